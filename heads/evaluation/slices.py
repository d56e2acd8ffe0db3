"""Divide tracks into slices by a column of the store's track table, for metrics per slice."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.errors import ConfigError
from ...cache.format.schema import Flag
from ...cache.messages import counted, did_you_mean
from ..metrics.bootstrap import BoolArray

COUNTED = {"artists": "artists", "labels": "genres"}
"""Slices by the number of elements of a list column."""
_LARGEST_COUNT = 3
_MANY_VALUES = 12
"""Number of distinct numbers from which on slices are quarters of the tracks."""
FLAG, NO_FLAG, UNKNOWN = "flag", "no flag", "unknown"
_UNSUITABLE = ("row", "status", "id", "path", "song", "genres", "detail", "lyrics_path", "flags")


def slices_by(tracks: pa.Table, column: str) -> dict[str, BoolArray]:
    """Return masks (N,) of the tracks per value of a column, the largest slice first; numbers in their order.

    Parameters
    ----------
    column : ``language``, ``flag`` (one slice per flag; a track with several flags is in several), ``artists`` and
        ``labels`` (their number), or another column of `tracks`. A number with many values is cut into quarters.

    Raises
    ------
    ConfigError
        If there is no such column, or its values identify tracks.
    """
    if column == FLAG:
        flags = np.asarray(tracks.column("flags"), dtype=np.uint32)
        masks = {flag.name or "": (flags & flag.value) > 0 for flag in Flag}
        return _largest_first({**masks, NO_FLAG: flags == 0})
    if column in COUNTED:
        counts = np.asarray(pc.list_value_length(tracks.column(COUNTED[column])).combine_chunks())
        by_count = {str(n): counts == n for n in range(_LARGEST_COUNT)}
        by_count[f"{_LARGEST_COUNT} or more"] = counts >= _LARGEST_COUNT
        return {name: mask for name, mask in by_count.items() if mask.any()}
    names = [name for name in tracks.column_names if name not in _UNSUITABLE and not name.endswith("sha256")]
    names = sorted({*names, *COUNTED, FLAG})
    if column not in names:
        raise ConfigError(f"--by {column}: no such column of tracks; {did_you_mean(column, names)}")
    values = tracks.column(column).combine_chunks()
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return _by_number(values)
    texts = np.asarray(pc.fill_null(values.cast(pa.string()), UNKNOWN).to_pylist(), dtype=object)
    if len(set(texts)) > len(texts) / 2 and len(texts) > _MANY_VALUES:
        tracks_in_all = counted(len(texts), "track")
        raise ConfigError(f"--by {column}: {len(set(texts))} values in {tracks_in_all}. Use a column with fewer.")
    return _largest_first({str(text): texts == text for text in sorted(set(texts))})


def _by_number(values: pa.Array) -> dict[str, BoolArray]:
    numbers = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    known = np.isfinite(numbers)
    distinct = np.unique(numbers[known])
    if len(distinct) <= _MANY_VALUES:
        masks = {f"{value:g}": numbers == value for value in distinct}
    else:
        edges = np.unique(np.quantile(numbers[known], [0, 0.25, 0.5, 0.75, 1]))
        bins = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
        masks = {f"{low:g} to {high:g}": known & (bins == i) for i, (low, high) in enumerate(itertools.pairwise(edges))}
    return masks | ({} if known.all() else {UNKNOWN: ~known})


def _largest_first(masks: Mapping[str, BoolArray]) -> dict[str, BoolArray]:
    return {name: masks[name] for name in sorted(masks, key=lambda name: -int(masks[name].sum())) if masks[name].any()}
