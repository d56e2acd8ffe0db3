"""Records of parts: their names, the valid record, and the content that it lists.

The record of a part is ``commits/<part>.json``. Where a part is quarantined, built again or has tracks hidden, the next
record is ``commits/<part>.<n>.json``, and the highest n counts. No name is used twice. An added feature set has its own
records, in ``commits/<name>/``.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..durable import file_sha256, inside, names_in
from ..errors import StoreCorruptError, StoreError
from . import layout
from .documents import NUMBER, read_record
from .plan import Plan
from .recipe import ExtractorRecipe
from .schema import OK, array_name, length_name
from .tables import outcome_schema, read_table

COMMITS, ROWS, QUARANTINE, STAGING = "commits", "rows", "quarantine", "staging"
_RECORD = re.compile(rf"{COMMITS}/(?:(.+)/)?({NUMBER})(?:\.({NUMBER}))?\.json")
_SEARCH_DEPTH = 8
"""Numbers to try beyond the last existing record, as older ones may have been lost, or deleted with a quarantine/."""


def part_folder(kind: str, feature_set: str | None = None) -> str:
    """Return the folder of commit records (:data:`COMMITS`) or outcome tables (:data:`ROWS`) of a feature set."""
    return kind if feature_set is None else f"{kind}/{feature_set}"


def commit_key(part: int, n: int = 0, feature_set: str | None = None) -> str:
    """Return the key of the n-th record of a part, of the store itself or of an added feature set."""
    return f"{part_folder(COMMITS, feature_set)}/{part}" + (".json" if n == 0 else f".{n}.json")


def parse_commit_key(key: str) -> tuple[int, int, str | None] | None:
    """Return part, n and feature set of a record's key; None for other keys, such as a file manager's."""
    match = _RECORD.fullmatch(key)
    return None if match is None else (int(match[2]), int(match[3] or 0), match[1])


def outcomes_key(part: int, feature_set: str | None = None) -> str:
    """Return the key of the outcome table of a part."""
    return f"{part_folder(ROWS, feature_set)}/{part}.parquet"


def keys_of_part(plan: Plan, part: int, feature_set: str | None) -> set[str]:
    """Return the keys of all objects that a part can have."""
    return {outcomes_key(part, feature_set), *(layout.object_key(spec, part) for spec in plan.arrays(feature_set))}


def required_keys(plan: Plan, part: int, feature_set: str | None, outcomes: pa.Table) -> set[str]:
    """Return the keys of the objects that the record of a part must name, by the outcomes of its tracks.

    Any other array may have only fill values, and then has no object.
    """
    specs = {spec.name: spec for spec in plan.arrays(feature_set)}
    names = {array_name("status", feature_set)}
    has_values = pc.equal(outcomes.column("status"), OK)
    recipe = None if feature_set is None else plan.added[feature_set].recipe
    if isinstance(recipe, ExtractorRecipe) and recipe.input == "text":  # a track without lyrics is ok and has none
        has_values = pc.and_(has_values, pc.is_valid(outcomes.column("lyrics_sha256")))
    if pc.any(has_values).as_py():
        names |= {"mel_frames", *(name for name, spec in specs.items() if math.isnan(spec.fill))}
        names |= set() if feature_set is None else {length_name(feature_set)}
        names -= {array_name("lyrics_pooled", feature_set)}
    if "flags" in outcomes.column_names and pc.any(pc.not_equal(outcomes.column("flags"), 0)).as_py():
        names.add("flags")
    if outcomes.column("lyrics_sha256").null_count < outcomes.num_rows:
        kinds = ("lyrics", "lyrics_tokens", "lyrics_tokens_full", "lyrics_pooled")
        names |= {array_name(kind, feature_set) for kind in kinds}
    objects = {layout.object_key(spec, part) for name, spec in specs.items() if name in names}
    return {outcomes_key(part, feature_set), *objects}


def staging_label(key: str) -> str:
    """Return how the names of all staging entries of a record start, before a ``~``."""
    return key.removesuffix(".json").replace("/", "+")


def staged_key(key: str, record: Mapping[str, Any]) -> str:
    """Return the key of the folder of the objects of a record until they are installed."""
    return f"{STAGING}/{staging_label(key)}~{record['digest']}"


def labels_to_keys(labels: Iterable[str]) -> set[str]:
    """Return the keys of records from the names of their staging entries."""
    return {label.partition("~")[0].replace("+", "/") + ".json" for label in labels if "~" in label}


def makes_rows_visible(item: Mapping[str, Any]) -> bool:
    """Return whether an object of a record shows rows to readers, so that it is installed last."""
    return str(item["key"]).startswith((f"{ROWS}/", "status"))


def quarantine_folder(part: int, n: int, feature_set: str | None = None) -> str:
    """Return the folder of a quarantined part; its name records that n is used."""
    return f"{QUARANTINE}/{part}.{n}" if feature_set is None else f"{QUARANTINE}/{feature_set}+{part}.{n}"


def committed(store: Path, feature_set: str | None = None) -> dict[int, int]:
    """Return part -> n of the valid record, for every committed part."""
    newest: dict[int, int] = {}
    withdrawn = quarantined(store, feature_set)
    for part, n in record_files(store, feature_set):
        if n > withdrawn.get(part, -1):
            newest[part] = max(n, newest.get(part, 0))
    return newest


def record_files(store: Path, feature_set: str | None) -> list[tuple[int, int]]:
    """Return part and n of every record of a feature set, whether or not it counts."""
    folder = part_folder(COMMITS, feature_set)
    keys = (parse_commit_key(f"{folder}/{name}") for name in names_in(store / folder))
    return [key[:2] for key in keys if key is not None]


def read_commit(store: Path, part: int, feature_set: str | None = None) -> dict[str, Any] | None:
    """Read the valid record of a part; None if the part is not committed.

    Raises
    ------
    StoreCorruptError
        If it is altered, or that of another part.
    """
    n = newest_record(store, part, feature_set)
    with contextlib.suppress(FileNotFoundError):  # quarantined or removed meanwhile
        record = None if n is None else read_record(store, commit_key(part, n, feature_set))
        if record is not None and (record["part"], record["n"]) != (part, n):
            raise StoreCorruptError(f"{store}: {commit_key(part, n or 0, feature_set)} is the record of another part")
        return record
    return None


def newest_record(store: Path, part: int, feature_set: str | None) -> int | None:
    """Return n of the valid record, by trying names, as the folder may have a million others."""
    newest, n = None, quarantined(store, feature_set).get(part, -1) + 1
    end = n + _SEARCH_DEPTH
    while n < end:
        if (store / commit_key(part, n, feature_set)).exists():
            newest, end = n, n + 1 + _SEARCH_DEPTH
        n += 1
    return newest


def quarantined(store: Path, feature_set: str | None) -> dict[int, int]:
    """Return part -> highest n in quarantine: records up to that n do not count, wherever they are."""
    highest: dict[int, int] = {}
    prefix = "" if feature_set is None else f"{feature_set}+"
    for name in names_in(store / QUARANTINE):
        part, dot, n = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and dot and part.isdecimal() and n.isdecimal():
            highest[int(part)] = max(int(n), highest.get(int(part), -1))
    return highest


def read_outcomes(store: Path, plan: Plan, part: int, feature_set: str | None = None) -> pa.Table:
    """Read the outcome table of a committed part.

    Raises
    ------
    StoreCorruptError
    """
    path = inside(store, outcomes_key(part, feature_set))
    return read_table(path, outcome_schema(feature_set), plan.part_range(part))


def read_part(
    store: Path, plan: Plan, part: int, feature_set: str | None = None
) -> tuple[dict[str, npt.NDArray[Any]], pa.Table]:
    """Return the rows of a committed part in every array, by name, and its outcome table.

    Raises
    ------
    StoreCorruptError
        If an object is missing or altered: a part built from it would commit the damage.
    StoreError
        If another command quarantined or replaced the part meanwhile.
    """
    record = read_commit(store, part, feature_set)
    for item in () if record is None else record["objects"]:
        file, digest = inside(store, item["key"]), None
        with contextlib.suppress(FileNotFoundError):
            digest = file_sha256(file)
        if digest != item["sha256"]:
            raise StoreCorruptError(
                f"{file}: part {part} is damaged. Run `mgc store repair {store} --source SOURCE` first."
            )
    rows, specs = plan.part_range(part), plan.arrays(feature_set)
    arrays = {spec.name: layout.read_rows(store, spec, rows, plan.part_rows) for spec in specs}
    with contextlib.suppress(FileNotFoundError):
        outcomes = read_outcomes(store, plan, part, feature_set)
        if record is not None and read_commit(store, part, feature_set) == record:  # it is moved before its objects
            return arrays, outcomes
    raise StoreError(f"{store}: part {part} was quarantined or replaced while it was read. Run the command again.")
