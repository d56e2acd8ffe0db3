"""Names as a reader sees them: cleaning, pairs that look alike, and matching across Unicode forms.

A name that looks like another one but is a different string would become a class, an artist or a missing file of its
own. What can be changed safely is changed (:func:`clean_name`), the rest is remarked (:func:`remark_names`).
"""

from __future__ import annotations

import functools
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from ...cache.errors import ConfigError
from ...cache.messages import counted, join_names, limit_lines
from ...cache.normalise import normalise

LISTED_NAMES = 20
LYRICS_SUFFIXES = (".lrc", ".txt")
"""Of lyrics next to a song, in any case; the later one is preferred."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_INVISIBLE = re.compile("[\xad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
# Joiners are part of the spelling in some scripts and in emoji, and nothing next to ASCII or at an end.
_JOINERS = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])")
_PLACEHOLDERS = """
nan,none,null,nil,na,n/a,#n/a,<na>,-,--,–,—,?,.,unknown,undefined,unspecified,(none),(unknown),[none],[unknown],[],(),{},
set(),unknown artist,unknown genre,no genre,not available
"""
_MISSING = frozenset(_PLACEHOLDERS.replace("\n", "").split(","))


def refuse_other_encodings() -> None:
    """Refuse to read names of files where the locale makes Python read them as anything but UTF-8.

    Raises
    ------
    ConfigError
        With the locale and what to do. The command line starts again in Python's UTF-8 mode instead.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        name = next((value for key in ("LC_ALL", "LC_CTYPE", "LANG") if (value := os.environ.get(key))), "C")
        raise ConfigError(
            f"the locale {name!r} makes Python read names of files as {encoding}, and here they are UTF-8. Set "
            "PYTHONUTF8=1 before Python starts, or use a UTF-8 locale"
        )


def clean_name(name: str) -> str:
    """Return a name in NFC with single spaces and without invisible characters.

    All white space and control characters count as spaces. Zero-width characters, soft hyphens and direction marks
    are removed. Cleaning twice is cleaning once.
    """
    if name.isascii() and name.isprintable():
        return " ".join(name.split())
    text = _INVISIBLE.sub("", _CONTROL.sub(" ", normalise("NFC", name)))
    text = _JOINERS.sub("", " ".join(text.split()))
    return normalise("NFC", " ".join(text.split()))


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return groups of names that differ only by case, width, spaces, punctuation or invisible characters."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(_skeleton(name), set()).add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _skeleton(name: str) -> str:
    folded = normalise("NFKC", normalise("NFKD", name).casefold())
    letters = [c for c in folded if unicodedata.category(c)[0] not in "PZC" and not "\ufe00" <= c <= "\ufe0f"]
    return "".join(letters) or folded


def stands_for_nothing(text: str) -> bool:
    """Return whether a text is probably a missing value that some program wrote as a word, such as ``nan``."""
    return len(text) < 20 and clean_name(text).casefold() in _MISSING


def remark_names(noun: str, tracks: Mapping[str, int], effect: str = "") -> list[str]:
    """Remark look-alikes and placeholders among names, given the number of tracks of each.

    Parameters
    ----------
    noun : plural, such as "genres".
    effect : of keeping look-alikes apart, in a few words.
    """
    notes = []
    for group in look_alikes(tracks):
        by_case = len({normalise("NFC", name.casefold()) for name in group}) == 1
        difference = "by case only" if by_case else "only by case, width, spaces or punctuation"
        notes.append(f"{noun} that differ {difference} are kept apart{effect}: {', '.join(map(repr, group))}")
    notes = limit_lines(notes, f"such groups of {noun}", LISTED_NAMES)
    missing = [f"{name!r} ({counted(n, 'track')})" for name, n in sorted(tracks.items()) if stands_for_nothing(name)]
    if missing:
        notes.append(
            f"{noun} that probably stand for a missing value: {join_names(missing)}; leave the cell empty where there "
            "is none"
        )
    return notes


def match_names(wanted: Iterable[str], names: Collection[str]) -> dict[str, str]:
    """Return for each wanted name the equal one of `names`, or else the only one that differs by Unicode form alone."""
    present, forms = set(names), names_by_form(names)
    matches = ((name, name if name in present else forms.get(normalise("NFC", name))) for name in wanted)
    return {name: match for name, match in matches if match is not None}


def names_by_form(names: Iterable[str]) -> dict[str, str]:
    """Map the NFC form of each name to the name, where no other name has this form."""
    forms: dict[str, set[str]] = {}
    for name in names:
        forms.setdefault(normalise("NFC", name), set()).add(name)
    return {form: group.pop() for form, group in forms.items() if len(group) == 1}


def find_file(root: Path, relative: str) -> Path:
    """Return ``root / relative``; where nothing has that name, the path that differs from it by Unicode form alone.

    macOS and many archives write file names in NFD, tables and other systems in NFC.
    """
    path = root / relative
    if relative.isascii() or os.path.lexists(path):
        return path
    found = root
    for part in PurePosixPath(relative).parts:
        if not part.isascii() and not os.path.lexists(found / part):
            part = _forms_in(found).get(normalise("NFC", part), part)
        found /= part
    return found


def lyrics_next_to(names: Iterable[str]) -> Callable[[str], str | None]:
    """Return a function from the name of an audio file to that of its lyrics among `names`, if there are any.

    The two names differ by the suffix alone, or else by case or Unicode form too, where only one name does.
    """
    texts = [(*os.path.splitext(name), name) for name in names if name.lower().endswith(LYRICS_SUFFIXES)]  # noqa: PTH122
    texts.sort(key=lambda text: (LYRICS_SUFFIXES.index(text[1].lower()), text[1].islower()))
    exact = {stem: name for stem, _, name in texts}
    alike: dict[str, set[str]] = {}
    for stem in exact:
        alike.setdefault(clean_name(stem).casefold(), set()).add(stem)

    def lyrics_of(audio: str) -> str | None:
        stem = os.path.splitext(audio)[0]  # noqa: PTH122 (pathlib keeps the dot of "song.")
        stems = alike.get(clean_name(stem).casefold(), ())
        return exact.get(stem) or (exact[next(iter(stems))] if len(stems) == 1 else None)

    return lyrics_of


def _forms_in(folder: Path) -> dict[str, str]:
    try:
        return _listed_forms(str(folder), folder.stat().st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=16)  # by the time of the last change, so that a file that joins is seen
def _listed_forms(folder: str, _: int) -> dict[str, str]:
    return names_by_form(os.listdir(folder))
