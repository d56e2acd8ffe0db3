"""Read added feature sets as audio input: their layout, their values, and their statistics over the training split.

Shapes: n tracks, L layers, N steps, D values per step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...cache.errors import ConfigError, TrainingError
from ...cache.format.recipe import ExtractorRecipe
from ...cache.format.schema import length_name
from ...cache.messages import join_names
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..config import TrainConfig
from ..model.config import MEL, EmbeddingShape
from .labels import FilterCount
from .moments import Moments

Float = npt.NDArray[np.floating]

_READ_AT_ONCE = 2**23
"""Number of values to read at once for statistics."""

STD_FLOOR = 0.01
"""Smallest standard deviation, as a share of the root mean square of a layer's; a value that is constant in training
would otherwise dominate every other track."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Layout of the array of a feature set, without its first dimension.

    Attributes
    ----------
    layer_axis, step_axis : axes of layers and of time; None for an array without. All other axes are flattened.
    has_lengths : whether tracks have fewer steps than the array, as the array ``NAME_length`` states.
    """

    shape: tuple[int, ...]
    layer_axis: int | None
    step_axis: int | None
    has_lengths: bool

    @classmethod
    def of(cls, recipe: ExtractorRecipe) -> Layout:
        layer_axis = next((axis for axis, name in enumerate(recipe.dims) if name.endswith("_layer")), None)
        steps = [axis for axis, name in enumerate(recipe.dims) if name == recipe.length]
        steps += [axis for axis, name in enumerate(recipe.dims) if name == "frame" or name.endswith("_frame")]
        return cls(
            shape=recipe.shape,
            layer_axis=layer_axis,
            step_axis=steps[0] if steps else None,
            has_lengths=recipe.length is not None,
        )

    @property
    def n_steps(self) -> int:
        return 1 if self.step_axis is None else self.shape[self.step_axis]

    @property
    def widths(self) -> EmbeddingShape:
        layers = 1 if self.layer_axis is None else self.shape[self.layer_axis]
        return EmbeddingShape(layers=layers, dim=math.prod(self.shape) // (layers * self.n_steps))

    def arrange(self, values: Float) -> Float:
        """Return (n, L, N, D) from (n, *shape), of which time may be cut."""
        axes = [None if axis is None else axis + 1 for axis in (self.layer_axis, self.step_axis)]
        order = [0, *(axis for axis in axes if axis is not None)]
        order += [axis for axis in range(values.ndim) if axis not in order]
        layers, steps = (1 if axis is None else values.shape[axis] for axis in axes)
        return values.transpose(order).reshape(len(values), layers, steps, self.widths.dim)


def layout_of(store: FeatureStore, name: str) -> Layout:
    """Return the layout of an added feature set of a store."""
    return Layout.of(store.extractors[name])


def read_steps(store: FeatureStore, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the number of valid steps of each row, (n,)."""
    layout = layout_of(store, name)
    if not layout.has_lengths:
        return np.full(len(rows), layout.n_steps, dtype=np.int64)
    return store.read(length_name(name), rows).astype(np.int64)


def read_embeddings(
    store: FeatureStore, name: str, rows: npt.NDArray[np.int64], steps: npt.NDArray[np.int64], *, longest: int
) -> Float:
    """Return (n, L, `longest`, D) in the stored precision, float32 at most; 0 beyond the valid `steps` of a row."""
    layout = layout_of(store, name)
    cut = longest if layout.has_lengths and layout.step_axis == 0 else None
    values = layout.arrange(store.read(name, rows, length=cut))[:, :, :longest]
    if values.dtype != np.float16:
        values = values.astype(np.float32)
    padding = np.arange(longest) >= steps[:, None]
    if padding.any():
        values = np.where(padding[:, None, :, None], values.dtype.type(0), values)
    return values


@dataclass(frozen=True, kw_only=True)
class EmbeddingStatistics:
    """Mean and standard deviation of each value over the valid steps of the training split, (L, D) float32."""

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]


def embedding_statistics(
    store: FeatureStore,
    name: str,
    rows: npt.NDArray[np.int64],
    steps: npt.NDArray[np.int64],
    *,
    on_progress: Progress = silent,
) -> EmbeddingStatistics:
    """Compute the statistics of a feature set; a standard deviation is at least `STD_FLOOR` of the typical one.

    Parameters
    ----------
    rows : (n,) training rows only.
    steps : (n,) number of valid steps per row; padding is left out.

    Raises
    ------
    TrainingError
        If a stored value is not finite.

    Notes
    -----
    One pass in float64 (:class:`Moments`).
    """
    layout, moments = layout_of(store, name), Moments()
    at_once = max(1, _READ_AT_ONCE // math.prod(layout.shape))
    for first in range(0, len(rows), at_once):
        block, counts = rows[first : first + at_once], steps[first : first + at_once]
        longest = int(counts.max())
        values = read_embeddings(store, name, block, counts, longest=longest).astype(np.float64)
        valid = np.arange(longest) < counts[:, None]
        _refuse_nonfinite(store, name, block, values)
        moments.add(values.transpose(0, 2, 1, 3)[valid])
        on_progress("statistics", first + len(block), len(rows))
    std = moments.std
    floor = STD_FLOOR * np.sqrt((std**2).mean(axis=1, keepdims=True))
    std = np.where(floor > 1e-12, np.maximum(std, floor), 1.0)
    return EmbeddingStatistics(mean=moments.mean.astype(np.float32), std=std.astype(np.float32))


def _refuse_nonfinite(store: FeatureStore, name: str, rows: npt.NDArray[np.int64], values: Float) -> None:
    bad = rows[~np.isfinite(values).all(axis=(1, 2, 3))]
    if len(bad):
        tracks = store.tracks.take(np.searchsorted(np.asarray(store.tracks.column("row")), bad)).column("id")
        raise TrainingError(
            f"{store.path}: the stored {name} of {join_names(tracks.to_pylist(), 3)} is not finite. Remove the "
            f"feature set with `mgc store drop {store.path} --feature {name}`, then add it again."
        )


def audio_feature_sets(store: FeatureStore) -> list[str]:
    """Return the names of the added feature sets that can be audio input: those of extractors of clips."""
    return sorted(name for name, recipe in store.extractors.items() if recipe.input == "clip")


def require_audio(store: FeatureStore, names: Sequence[str]) -> FeatureStore:
    """Return the reader of a store in which tracks need all these added feature sets, which are audio input.

    Raises
    ------
    ConfigError
        If the store lacks a feature set, or it is not computed from clips.
    """
    usable = audio_feature_sets(store)
    for name in names:
        if name not in usable:
            problem = "no added feature set" if name not in store.added else "not computed from audio: feature set"
            others = ", ".join([MEL] * (store.recipe.mel is not None) + usable) or "none"
            raise ConfigError(
                f"--audio: {problem} {name!r}: {store.path} (audio features: {others}). Add it with `mgc extract "
                f"SOURCE -o {store.path} --add {name}`, or use another."
            )
    return store.requiring(names)


def count_required(store: FeatureStore) -> list[FilterCount]:
    """Count the tracks that have each required feature set, of those that have the store's own and the earlier ones."""
    counts, n_tracks = list[FilterCount](), store.counts().ok + sum(store.required.values())
    for name, n_without in store.required.items():
        counts.append(FilterCount(filter=f"feature={name}", kept=n_tracks - n_without, of=n_tracks, unit="tracks"))
        n_tracks -= n_without
    return counts


def embedding_shapes(store: FeatureStore, config: TrainConfig) -> Mapping[str, EmbeddingShape]:
    """Return the widths of the added feature sets of a config's audio input."""
    return {name: layout_of(store, name).widths for name in config.added_audio}
