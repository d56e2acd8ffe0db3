"""Interface of an extractor plug-in, which computes one array from each track's clip or lyrics."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...cache.errors import ConfigError
from ...cache.format.recipe import ExtractorRecipe, MelRecipe

NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
FLOATS = ("float16", "float32", "float64")
DTYPES = (*FLOATS, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
"""Allowed dtypes of an extractor; for lyrics only the first three, which have a NaN."""

CLEANING = "lyrics_cleaning"
"""Parameter of a text extractor's recipe: the rule that cleans lyrics, unless the store has lyrics. Default: 1."""

_call_once = functools.lru_cache(maxsize=4)(lambda prepare: prepare())
"""Call a function, once per process unless it raises; the number bounds the memory of a process with many networks."""

CLIP_PARAMETERS = ("backend", "sample_rate_hz", "clip_s", "offset", "min_clip_s")
"""Parameters of :class:`~mgc.cache.format.recipe.MelRecipe` that define a clip."""


def forget_prepared() -> None:
    """Let :meth:`Extractor.prepare_once` call `prepare` again, and free what its functions hold."""
    _call_once.cache_clear()


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Definition of an extractor of one feature per track.

    Attributes
    ----------
    name : of the feature and of its array: lower-case letters, digits, ``_``.
    version : increase it whenever values change. Stores record it, and cannot be continued with another version.
    input : ``clip`` or ``text``.
    dims, shape : names and lengths of the dimensions of one track's values; () for one number per track. Start names
        with the feature's name, as in the layout that training reads: ``NAME_layer``, ``NAME_frame``, ``NAME_dim``, of
        which each may be absent. A name that the store has already must have the same length (``mel_band``), and no
        dimension may have the name of an array.
    length : of a sequence, the dimension of `dims` along which a track may have fewer values than `shape` has, at
        least 1. The array ``NAME_length`` has their number, and the values behind it are fill.
    dtype : one of :data:`DTYPES`; for ``text`` a float, so that NaN can stand for a track without lyrics.
    unit, description : as in the store.
    parameters : all other parameters that determine the values, as JSON values.
    sample_rate_hz : of the clips, which are resampled once from the file; None for the rate of the store's clips.
    prepare : called once per process, when the feature set is planned and before the first part of a worker, such as to
        load weights; raises ConfigError if that is impossible.
    compute : of a clip ``compute(samples, sample_rate_hz)``, samples (n,) float32 mono without padding; of lyrics
        ``compute(text)``, cleaned. Returns values that NumPy converts to an array of `shape`; must be deterministic.
    batch_size, compute_batch : of clips, ``compute_batch(list of samples, sample_rate_hz)`` returns the values of up to
        `batch_size` tracks. A track's values must not depend on the other tracks. If it raises, or returns wrong
        values, the tracks are computed one by one by `compute`, so that only the track at fault fails.
    """

    name: str
    version: str
    input: Literal["clip", "text"]
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    unit: str
    description: str
    compute: Callable[..., npt.ArrayLike]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sample_rate_hz: int | None = None
    prepare: Callable[[], object] | None = None
    length: str | None = None
    batch_size: int = 1
    compute_batch: Callable[..., Sequence[npt.ArrayLike]] | None = None

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ConfigError(f"extractor {self.name!r}: {problem}")

    def _problem(self) -> str | None:
        if not NAME.fullmatch(self.name) or self.name.startswith("status"):
            return "its name must have up to 31 lower-case letters, digits and _, a letter first, and not be 'status'"
        if self.sample_rate_hz is not None and (self.input != "clip" or self.sample_rate_hz < 100):
            return f"sample_rate_hz {self.sample_rate_hz}; only clips have one, of 100 Hz or more"
        if self.input not in ("clip", "text"):
            return f"input {self.input!r}; use 'clip' or 'text'"
        if len(self.dims) != len(self.shape) or not all(length > 0 for length in self.shape):
            return f"dims {self.dims} and shape {self.shape} do not match"
        if self.length is not None and self.length not in self.dims:
            return f"length {self.length!r}; use one of its dims, {self.dims}"
        if self.batch_size < 1 or (self.batch_size > 1) != (self.compute_batch is not None):
            return f"batch_size {self.batch_size}; use 2 or more with compute_batch, and 1 without"
        if self.compute_batch is not None and self.input != "clip":
            return "compute_batch; only clips are computed in batches"
        dtypes = FLOATS if self.input == "text" else DTYPES
        if type(self.dtype) is not str or self.dtype not in dtypes:
            lyrics = "; NaN stands for a track without lyrics" if self.dtype in DTYPES else ""
            return f"dtype {self.dtype!r}; use one of {', '.join(dtypes)}{lyrics}"
        try:
            json.dumps(dict(self.parameters), allow_nan=False)
        except (TypeError, ValueError) as error:
            return f"its parameters cannot be written as JSON: {error}"
        return None

    def recipe(self, mel: MelRecipe | None, cleaning: int | None = None) -> ExtractorRecipe:
        """Return the recipe that a store records.

        Parameters
        ----------
        mel : recipe of the store's mels.
        cleaning : rule that cleans the lyrics, if the recipe of the store's lyrics does not name it.

        Raises
        ------
        ConfigError
            If the extractor needs clips, and the store has no mels.
        """
        if self.input == "clip" and mel is None:
            raise ConfigError(f"extractor {self.name!r} needs clips, but the store was made without mels.")
        clips = self.clips(mel) if mel is not None else None
        clip = {name: getattr(clips, name) for name in CLIP_PARAMETERS} if self.input == "clip" else None
        own = ("name", "compute", "prepare", "sample_rate_hz", "batch_size", "compute_batch")
        fields = {name: value for name, value in vars(self).items() if name not in own}
        fields["parameters"] = json.loads(json.dumps(dict(self.parameters)))
        if self.input == "text" and cleaning not in (None, 1):
            fields["parameters"][CLEANING] = cleaning
        return ExtractorRecipe(extractor=self.name, clip=clip, **fields)

    def clips(self, mel: MelRecipe) -> MelRecipe:
        """Return the recipe that cuts and resamples the clips of this extractor, in a store with `mel`."""
        if self.sample_rate_hz is None:
            return mel
        return replace(mel, sample_rate_hz=self.sample_rate_hz, fmax_hz=min(mel.fmax_hz, self.sample_rate_hz / 2))

    def prepare_once(self) -> None:
        """Call `prepare`, unless this process has done so successfully.

        Raises
        ------
        ConfigError
        """
        if self.prepare is not None:
            _call_once(self.prepare)

    def values(self, *arguments: Any) -> npt.NDArray[Any]:
        """Compute the values of one track in the stored dtype.

        Raises
        ------
        ValueError
            If the values have another shape, are not finite, or do not fit `dtype`.
        """
        return self._checked(self.compute(*arguments))

    def batch_values(self, clips: Sequence[npt.NDArray[np.float32]], sample_rate_hz: int) -> list[npt.NDArray[Any]]:
        """Compute the values of several tracks in the stored dtype, from samples (n,) each; raises as `values` does."""
        assert self.compute_batch is not None
        results = self.compute_batch(list(clips), sample_rate_hz)
        if len(results) != len(clips):
            raise ValueError(f"values of {len(results)} tracks, the batch has {len(clips)}")
        return [self._checked(result) for result in results]

    def _checked(self, result: npt.ArrayLike) -> npt.NDArray[Any]:
        values = np.asarray(result)
        shape = list(values.shape)
        if self.length is not None and len(shape) == len(self.shape):
            axis = self.dims.index(self.length)
            if 1 <= shape[axis] <= self.shape[axis]:
                shape[axis] = self.shape[axis]
        if tuple(shape) != self.shape:
            raise ValueError(f"values of shape {values.shape}, announced was {self.shape}")
        is_integer = self.dtype not in FLOATS
        if values.dtype.kind not in ("biu" if is_integer else "biuf"):
            raise ValueError(f"values of {values.dtype}, announced was {self.dtype}")
        with np.errstate(over="ignore"):  # values that are too large become infinite
            stored = values.astype(self.dtype)
        if is_integer and not np.array_equal(stored, values):
            raise ValueError(f"values that {self.dtype} cannot hold")
        if not np.isfinite(stored).all():
            raise ValueError("values that are not finite")
        return stored
