"""Sequences: features of an extractor whose length differs between tracks, padded with fill to the same shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .recipe import ExtractorRecipe


def pad_sequence(values: npt.NDArray[Any], recipe: ExtractorRecipe, fill: float) -> npt.NDArray[Any]:
    """Return the values of one track in the shape of the recipe, with `fill` behind the last entry."""
    if values.shape == recipe.shape:
        return values
    padded = np.full(recipe.shape, fill, dtype=values.dtype)
    padded[tuple(slice(length) for length in values.shape)] = values
    return padded


def wrong_rows(
    recipe: ExtractorRecipe,
    values: npt.NDArray[Any],
    lengths: npt.NDArray[np.integer[Any]] | None,
    has_values: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Return which tracks have values or a length that the format does not allow, (n,) bool.

    Parameters
    ----------
    values : (n, *recipe.shape). Values must be finite up to the length, and fill behind it.
    lengths : (n,), 1 to the length of the dimension, or 0 without features; None if the feature is not a sequence.
    has_values : (n,) bool, tracks that have the feature.
    """
    wrong = np.zeros(len(values), dtype=np.bool_)
    if recipe.length is None or lengths is None:
        for row_number in np.flatnonzero(has_values):
            wrong[row_number] = not np.isfinite(values[row_number]).all()
        return wrong
    axis = recipe.dims.index(recipe.length)
    for i, (row, length) in enumerate(zip(values, map(int, lengths), strict=True)):
        steps = np.moveaxis(row, axis, 0)
        is_fill = np.isnan(steps[length:]) if row.dtype.kind == "f" else steps[length:] == 0
        is_allowed = 1 <= length <= len(steps) if has_values[i] else length == 0
        wrong[i] = not (is_allowed and np.isfinite(steps[:length]).all() and is_fill.all())
    return wrong
