"""The content of a committed part, read back so that the part can be made anew with some of its rows changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr

from .commits import outcomes_key, read_commit
from .durable import file_sha256, inside
from .errors import StoreCorruptError
from .plan import Plan
from .tracks import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, read_table


def read_part(
    store: Path, plan: Plan, part: int, feature_set: str | None = None
) -> tuple[dict[str, npt.NDArray[Any]], pa.Table]:
    """A committed part's rows of every array, by the array's name, and its table of outcomes.

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
