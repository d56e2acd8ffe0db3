"""Names that are equal but for their Unicode form: macOS and many archives write file names in NFD, tables in NFC."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from .normalise import normalise


def caseless(text: str) -> str:
    """Return a key that colliding strings share: Unicode's canonical caseless matching (Unicode 15, D145)."""
    folded = normalise("NFD", text).casefold()
    return normalise("NFD", folded)


def match_names(wanted: Iterable[str], names: Collection[str]) -> dict[str, str]:
    """Return for each wanted name the equal one of `names`, or else the only one that differs by Unicode form alone."""
    present, forms = set(names), names_by_form(names)
    matches = ((name, name if name in present else forms.get(normalise("NFC", name))) for name in wanted)
    return {name: match for name, match in matches if match is not None}


def explain_no_match(listed: Iterable[str], ids: Iterable[str]) -> str:
    """Return what to do if none of the `listed` names of a table is one of the `ids` of the tracks."""
    written = set(listed)
    shorter = {short for name in written for short in _shorter_forms(name)}
    for track_id in ids:
        if written.intersection(_shorter_forms(track_id)):
            return f"Write each id in full, with folder and suffix, as in {track_id!r}."
        if track_id in shorter:
            return f"Write each id without folder and suffix, as in {track_id!r}."
    return "Write each id as the source has it."


def _shorter_forms(name: str) -> tuple[str, str, str]:
    path = PurePosixPath(name or ".")
    return str(path.with_suffix("")) if path.suffix else "", path.stem, path.name


def names_by_form(names: Iterable[str]) -> dict[str, str]:
    """Map the NFC form of each name to the name, where no other name has this form."""
    forms: dict[str, set[str]] = {}
    for name in names:
        forms.setdefault(normalise("NFC", name), set()).add(name)
    return {form: group.pop() for form, group in forms.items() if len(group) == 1}


def find_file(root: Path, relative: str) -> Path:
    """Return ``root / relative``; where nothing has that name, the path that differs from it by Unicode form alone."""
    path = root / relative
    if relative.isascii() or os.path.lexists(path):
        return path
    actual = root
    for part in PurePosixPath(relative).parts:
        if not part.isascii() and not os.path.lexists(actual / part):
            part = _forms_in(actual).get(normalise("NFC", part), part)
        actual /= part
    return actual


def _forms_in(folder: Path) -> dict[str, str]:
    try:
        return _listed_forms(str(folder), folder.stat().st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=16)  # by the time of the last change, so that an added file is seen
def _listed_forms(folder: str, _: int) -> dict[str, str]:
    return names_by_form(os.listdir(folder))
