"""The JSON documents of a store: their keys, types and bounds, and the one function that reads them.

``docs/store.md`` lists the same keys. A document with another key, or a value out of bounds, is refused before it is
used: stores come from other people, and a checksum proves no intent.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from ..bounds import AtMost, Between, Matching, PartRows, problem
from ..durable import LINK, fingerprint, inside, unseal
from ..errors import StoreCorruptError, StoreFormatError
from .recipe import ExtractorRecipe, MelRecipe, TextRecipe
from .schema import FORMAT_VERSION

NAME, NUMBER = "[a-z][a-z0-9_]*", "(?:0|[1-9][0-9]{0,8})"
"""Regular expressions of names of feature sets, and of numbers of parts and records."""

Sha256 = Annotated[str, Matching("[0-9a-f]{64}", "64 hexadecimal digits")]
Name = Annotated[str, Matching(NAME, "lower-case letters, digits and _, a letter first"), AtMost(100)]
Number = Annotated[int, Between(0, 10**9 - 1)]
Size = Annotated[int, Between(0, 2**60)]
Fingerprints = Annotated[dict[Name, Sha256], AtMost(100)]
Versions = Annotated[dict[str, str], AtMost(100)]


class RecipeDocument(TypedDict):
    """Input of :meth:`~mgc.cache.format.recipe.Recipe.from_dict`."""

    mel: NotRequired[MelRecipe]
    lyrics: NotRequired[TextRecipe]
    genre_names: NotRequired[dict[str, str]]


class PlanDocument(TypedDict):
    """``plan.json``."""

    format_version: Literal[1]
    recipe: RecipeDocument
    fingerprints: Fingerprints
    embeds_genres: bool
    part_rows: PartRows
    library_versions: Versions


class AddedAttribute(TypedDict):
    """One entry of the attribute ``added``."""

    recipe: TextRecipe | ExtractorRecipe
    fingerprints: Fingerprints


class Attributes(TypedDict):
    """Attributes of the group, or of the file in the HDF5 form."""

    mgc_format_version: Literal[1]
    recipe: RecipeDocument
    fingerprints: Fingerprints
    library_versions: Versions
    part_rows: PartRows
    flag_bits: Annotated[dict[str, int], AtMost(1000)]
    status_codes: Annotated[dict[str, int], AtMost(1000)]
    added: NotRequired[Annotated[dict[Name, AddedAttribute], AtMost(1000)]]


class SealDocument(TypedDict):
    """The user block of the HDF5 form."""

    sealed: Literal["mgc feature store"]
    format_version: Literal[1]
    bytes: Size
    sha256: Sha256


class ObjectEntry(TypedDict):
    """One object of a record."""

    key: Annotated[str, Matching("[ -~]{1,250}", "1 to 250 ASCII characters")]
    size: Size
    sha256: Sha256


class _Objects(TypedDict):
    digest: Sha256
    objects: list[ObjectEntry]


class GenerationDocument(_Objects):
    """``generations/<g>.json``."""

    generation: Number
    kind: Literal["first", "append", "retry"]
    plan: Sha256
    previous: Sha256 | None
    first_row: Size
    n_tracks: Number
    first_genre: Number
    n_genres: Number


class FeatureSetDocument(_Objects):
    """``features/<name>.json`` and ``features/<name>.<n>.json``."""

    feature_set: Name
    recipe: TextRecipe | ExtractorRecipe
    fingerprints: Fingerprints
    plan: Sha256
    first_genre: Number
    n_genres: Number


class CommitCounts(TypedDict):
    """Tracks of a part by outcome."""

    ok: Number
    failed: Number


class CommitDocument(_Objects):
    """``commits/<part>.json``, and the like for later records and added feature sets."""

    part: Number
    n: Number
    generation: Sha256
    feature_set: NotRequired[Sha256]
    counts: CommitCounts
    reasons: Annotated[dict[Annotated[str, Matching("[A-Z][A-Z0-9_]*", "a reason code")], Number], AtMost(1000)]


class TakedownDocument(TypedDict):
    """``drops/<n>.json``."""

    ids: list[str]


DOCUMENTS: tuple[tuple[re.Pattern[str], Any], ...] = tuple(
    (re.compile(pattern.format(name=NAME, n=NUMBER)), kind)
    for pattern, kind in (
        (r"plan\.json", PlanDocument),
        (r"generations/{n}\.json", GenerationDocument),
        (r"features/{name}(?:\.{n})?\.json", FeatureSetDocument),
        (r"commits/(?:{name}/)?{n}(?:\.{n})?\.json", CommitDocument),
        (r"drops/{n}\.json", TakedownDocument),
    )
)
"""Key of a record -> type of its document."""

_TABLE = re.compile(rf"(?:tracks|genres|rows|rows/{NAME})/{NUMBER}\.parquet|genre_embedding(?:_\w+)?/c/{NUMBER}/0")


RECORD_FOLDERS = ("commits", "drops", "features", "generations", "genres", "rows", "tracks")


def refuse_foreign_files(store: Path) -> None:
    """Refuse links, pipes and devices at the top of a store and in its folders of records and tables.

    What readers open below arrays is checked when they open it: there may be a hundred thousand folders.

    Raises
    ------
    StoreCorruptError
    """
    folders = [store, *(store / name for name in RECORD_FOLDERS)]
    while folders:
        folder = folders.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if fault := foreign_entry(entry):
                    raise StoreCorruptError(f"{entry.path}: {fault}")
                if folder != store and entry.is_dir():
                    folders.append(Path(entry.path))


def foreign_entry(entry: os.DirEntry[str]) -> str | None:
    """Return the kind of a folder entry that is neither a folder nor a regular file; else None."""
    if entry.is_symlink():
        return LINK
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False) or not os.path.lexists(entry.path):
        return None  # also where it was removed since
    return "neither a file nor a folder; remove it"


def is_record_key(key: str) -> bool:
    """Return whether the format has a record, table or genre embedding of that key."""
    return any(pattern.fullmatch(key) for pattern, _ in DOCUMENTS) or _TABLE.fullmatch(key) is not None


def read_record(store: Path, key: str) -> dict[str, Any]:
    """Read a sealed record of a store, and check it.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    StoreFormatError
        If it is of another format version.
    StoreCorruptError
        If it is a link, altered, or breaks the format.
    """
    path = inside(store, key)
    document = unseal(path)
    if key == "plan.json":
        refuse_other_format(store, document.get("format_version"))
    if fault := record_problem(key, document):
        raise StoreCorruptError(f"{path}: {fault}. Do not use this store, or restore the record from a copy.")
    return document


def refuse_other_format(store: Path, version: object) -> None:
    """Refuse a store of another format version.

    Raises
    ------
    StoreFormatError
    """
    if version != FORMAT_VERSION:
        raise StoreFormatError(
            f"{store}: store format {version!r:.20}, but this mgc reads format {FORMAT_VERSION}; "
            "install a matching version of mgc"
        )


def record_problem(key: str, document: dict[str, Any]) -> str | None:
    """Return the first way in which the document of a record breaks the format; None if it does not."""
    kind = next((kind for pattern, kind in DOCUMENTS if pattern.fullmatch(key)), None)
    if kind is None:
        return "no record of that name is documented"
    if fault := problem(document, kind):
        return fault
    if "objects" in document and fingerprint(document["objects"]) != document["digest"]:
        return "digest is not that of the objects"
    return None
