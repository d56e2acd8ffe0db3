"""Records of parts: how they are named, which one of a part counts, and the content that it names.

A part's record is ``commits/<part>.json``. Where a part is quarantined, built again or has tracks hidden, the next
record is ``commits/<part>.<n>.json``, and the highest n counts. No name is used twice.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr

from ..durable import file_sha256, inside, unseal
from ..errors import StoreCorruptError
from . import layout
from .plan import Plan
from .tables import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, read_table

COMMITS, QUARANTINE = "commits", "quarantine"
_RECORD = re.compile(r"(\d+)(?:\.(\d+))?\.json")


def commit_key(part: int, n: int = 0, feature_set: str | None = None) -> str:
    """Key of the n-th record of a part, of the store as it was made or of a feature set that joined it."""
    folder = COMMITS if feature_set is None else f"{COMMITS}/{feature_set}"
    return f"{folder}/{part}.json" if n == 0 else f"{folder}/{part}.{n}.json"


def parse_commit_key(key: str) -> tuple[int, int, str | None] | None:
    """Part, n and feature set of a record's key; None for other keys."""
    folder, _, name = key.rpartition("/")
    parsed = parse_commit_name(name)
    if parsed is None or not (folder == COMMITS or folder.startswith(f"{COMMITS}/")):
        return None
    return (*parsed, folder.partition("/")[2] or None)


def outcomes_key(part: int, feature_set: str | None = None) -> str:
    """Key of the table that says what became of a part's tracks."""
    return f"rows/{part}.parquet" if feature_set is None else f"rows/{feature_set}/{part}.parquet"


def keys_of_part(plan: Plan, part: int, feature_set: str | None) -> set[str]:
    """Keys of all objects that a part can have."""
    return {outcomes_key(part, feature_set), *(layout.object_key(spec, part) for spec in plan.arrays(feature_set))}


def quarantine_folder(part: int, n: int, feature_set: str | None = None) -> str:
    """Where a part that was taken back lies; its name says that n is used."""
    return f"{QUARANTINE}/{part}.{n}" if feature_set is None else f"{QUARANTINE}/{feature_set}+{part}.{n}"


def parse_commit_name(name: str) -> tuple[int, int] | None:
    """Part and n of a record's file name; None for other names, such as a file manager's."""
    found = _RECORD.fullmatch(name)
    return None if found is None else (int(found[1]), int(found[2] or 0))


def committed(store: Path, feature_set: str | None = None) -> dict[int, int]:
    """Part -> n of the record that counts, for every committed part."""
    newest: dict[int, int] = {}
    folder, gone = store / COMMITS / (feature_set or ""), quarantined(store, feature_set)
    for name in os.listdir(folder) if folder.is_dir() else ():
        if (parsed := parse_commit_name(name)) is not None and parsed[1] > gone.get(parsed[0], -1):
            newest[parsed[0]] = max(parsed[1], newest.get(parsed[0], 0))
    return newest


def read_commit(store: Path, part: int, feature_set: str | None = None) -> dict[str, Any] | None:
    """The record of a part that counts; None where the part is not committed."""
    n = newest_record(store, part, feature_set)
    return None if n is None else unseal(store / commit_key(part, n, feature_set))


def newest_record(store: Path, part: int, feature_set: str | None) -> int | None:
    """n of the record that counts, found by its name alone: the folder may hold a million others."""
    newest, n = None, last_quarantined(store, part, feature_set) + 1
    misses = 0
    while misses < 8:  # past holes: older records may have been lost, or gone with a quarantine/ that somebody removed
        if (store / commit_key(part, n, feature_set)).exists():
            newest, misses = n, 0
        else:
            misses += 1
        n += 1
    return newest


def last_quarantined(store: Path, part: int, feature_set: str | None) -> int:
    """The highest n of a part that lies in quarantine; -1 where none does."""
    return quarantined(store, feature_set).get(part, -1)


def quarantined(store: Path, feature_set: str | None) -> dict[int, int]:
    """Part -> highest n in quarantine: records up to there do not count, wherever they lie."""
    found: dict[int, int] = {}
    prefix = "" if feature_set is None else f"{feature_set}+"
    for name in os.listdir(store / QUARANTINE) if (store / QUARANTINE).is_dir() else ():
        part, dot, n = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and dot and part.isdecimal() and n.isdecimal():
            found[int(part)] = max(int(n), found.get(int(part), -1))
    return found


def read_part(
    store: Path, plan: Plan, part: int, feature_set: str | None = None
) -> tuple[dict[str, npt.NDArray[Any]], pa.Table]:
    """Return a committed part's rows of every array, by name, and its outcome table.

    Raises
    ------
    StoreCorruptError
        If an object is missing or not what was committed: made anew, the damage would be committed with the rest.
    """
    record = read_commit(store, part, feature_set)
    for item in () if record is None else record["objects"]:
        file = inside(store, item["key"])
        if not file.is_file() or file_sha256(file) != item["sha256"]:
            raise StoreCorruptError(
                f"{file}: part {part} is damaged; run `mgc store repair {store} --source SOURCE` first"
            )
    rows, group = plan.part_range(part), zarr.open_group(store, mode="r")
    arrays = {}
    for spec in plan.arrays(feature_set):
        array = group[spec.name]
        assert isinstance(array, zarr.Array)
        arrays[spec.name] = np.asarray(array[rows.start : rows.stop])
    schema = OUTCOME_SCHEMA if feature_set is None else ADDED_OUTCOME_SCHEMA
    return arrays, read_table(store / outcomes_key(part, feature_set), schema)
