"""Arrays as data: names, dims, dtypes, units, chunks; status, flags and reason codes."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .recipe import FeatureSetRecipe, Recipe, TextRecipe

FORMAT_VERSION = 1

LARGE_VALUES = 1024
"""An extractor's array with at least so many values per track has one chunk per track, which can be mapped; a smaller
array is read whole."""

PART_BYTES = 2**28
"""Default maximum size of the arrays of a part."""

MAX_CHUNK_BYTES, MAX_SHARD_BYTES = 2**30, 2**36
"""Bytes that may be read at once (a part of an array that is read whole, a row of another), and of any part."""

ABSENT, OK, FAILED = 0, 1, 2
"""Values of the ``status`` array: no committed outcome yet, features present, failed with a reason."""


FIRST_FLAGS = 17
"""Number of flags in the first version of the format."""


class Flag(enum.IntFlag):
    """Observations on a track; bits of the ``flags`` array (uint32). New flags take the next free bit."""

    EXT_MISMATCH = 1 << 0
    TRUNCATED = 1 << 1
    DECODE_GAPS = 1 << 2
    UPSAMPLED = 1 << 3
    MULTICHANNEL = 1 << 4
    SILENT = 1 << 5
    CLIPPED = 1 << 6
    SHORT = 1 << 7
    LONG = 1 << 8
    TEXT_RECODED = 1 << 9
    LYRICS_FAILED = 1 << 10
    NO_LYRICS = 1 << 11
    EMPTY_LYRICS = 1 << 12
    INSTRUMENTAL = 1 << 13
    LYRICS_TRUNCATED = 1 << 14
    TEXT_CLEANED = 1 << 15
    NO_LABEL = 1 << 16
    ENCODING_DOUBTFUL = 1 << 17

    @property
    def names(self) -> list[str]:
        """Names of the bits that are set, lowest bit first."""
        return [flag.name or "" for flag in Flag if flag in self]


ORDINARY_FLAGS = frozenset((Flag.LONG,))
"""Flags that most whole songs have, so that lists of what is unusual leave them out."""


class Reason(enum.StrEnum):
    """Why a track failed; one code per failed track."""

    SRC_MISSING = "SRC_MISSING"
    SRC_DENIED = "SRC_DENIED"
    SRC_TIMEOUT = "SRC_TIMEOUT"
    SRC_NOT_REGULAR = "SRC_NOT_REGULAR"
    PATH_ESCAPE = "PATH_ESCAPE"
    EMPTY = "EMPTY"
    NOT_AUDIO = "NOT_AUDIO"
    TOO_SHORT = "TOO_SHORT"
    TOO_LARGE = "TOO_LARGE"
    BAD_HEADER = "BAD_HEADER"
    DECODE_ERROR = "DECODE_ERROR"
    UNSUPPORTED_CODEC = "UNSUPPORTED_CODEC"
    DECODER_CRASH = "DECODER_CRASH"
    DECODER_TIMEOUT = "DECODER_TIMEOUT"
    DECODER_MEMORY = "DECODER_MEMORY"
    NONFINITE = "NONFINITE"
    WORKER_CRASH = "WORKER_CRASH"
    LYRICS_CHANGED = "LYRICS_CHANGED"
    SOURCE_CHANGED = "SOURCE_CHANGED"
    EXTRACTOR_FAILED = "EXTRACTOR_FAILED"
    DROPPED = "DROPPED"


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One array of the store.

    Attributes
    ----------
    dims : names of the dimensions. The first is ``track``, or ``genre`` for genre embeddings.
    tail : shape without the first dimension.
    inner : shape of an inner chunk, one row long; empty for an array that is not sharded.
    """

    name: str
    dims: tuple[str, ...]
    tail: tuple[int, ...]
    dtype: str
    fill: float
    unit: str
    description: str
    inner: tuple[int, ...] = ()

    @property
    def sharded(self) -> bool:
        """Whether all inner chunks of a part are in one object, each as plain bytes + crc32c, which can be mapped.

        The chunk of any other array is as long as a part, and compressed (zstd + crc32c).
        """
        return bool(self.inner)


DESCRIPTIONS = {
    "status": "0 absent, 1 ok, 2 failed; mask every other array by it",
    "flags": "what was unusual about the track; bit names in the attribute flag_bits",
    "mel": "log-mel power spectrogram of the clip; no reference level or clipping applied",
    "mel_frames": "frames that hold sound; later ones are zero-padding of a short clip",
    "lyrics": "last hidden states of the frozen text encoder, [CLS] and [SEP] included",
    "lyrics_tokens": "tokens kept, [CLS] and [SEP] included; 0 without lyrics",
    "lyrics_tokens_full": "tokens before truncation, [CLS] and [SEP] included",
    "lyrics_pooled": "mean of the hidden states over non-special tokens; NaN without lyrics",
}
"""Name of an array with one row per track -> the text that is stored with it."""


def array_name(kind: str, feature_set: str | None = None) -> str:
    """Return the name of an array or dimension of the store itself, or its counterpart in an added feature set."""
    return kind if feature_set is None else f"{kind}_{feature_set}"


def track_arrays(recipe: Recipe) -> list[ArraySpec]:
    """Return the arrays with one row per track, for the features of `recipe`."""
    specs = [_track_array("status", "uint8", "code"), _track_array("flags", "uint32", "bit field")]
    if recipe.mel is not None:
        shape = {"mel_band": recipe.mel.n_mels, "frame": recipe.mel.n_frames}
        specs += [
            _track_array("mel", "float16", "dB re 1.0", shape, fill=math.nan, inner=(1, *shape.values())),
            _track_array("mel_frames", "uint16", "frames"),
        ]
    return specs + (text_arrays(recipe.lyrics) if recipe.lyrics is not None else [])


def text_arrays(text: TextRecipe, feature_set: str | None = None) -> list[ArraySpec]:
    """Return the arrays of a text encoder's features: the store's own, or those of an added feature set."""
    tokens = {array_name("token", feature_set): text.max_tokens}
    state = {array_name("text_dim", feature_set): text.hidden_size}
    inner = (1, _largest_divisor(text.max_tokens, 128), text.hidden_size)
    specs = [
        _track_array("lyrics", "float16", "1", tokens | state, inner=inner),
        _track_array("lyrics_tokens", "uint16", "tokens"),
        _track_array("lyrics_tokens_full", "uint32", "tokens"),
        _track_array("lyrics_pooled", "float32", "1", state, fill=math.nan),
    ]
    return [dataclasses.replace(spec, name=array_name(spec.name, feature_set)) for spec in specs]


def added_arrays(name: str, recipe: FeatureSetRecipe) -> list[ArraySpec]:
    """Return the arrays of an added feature set; the first is its own ``status``."""
    mask = f"0 absent, 1 ok, 2 failed; mask the arrays of {name} by it"
    status = _track_array("status", "uint8", "code")
    status = dataclasses.replace(status, name=array_name("status", name), description=mask)
    if isinstance(recipe, TextRecipe):
        return [status, *text_arrays(recipe, name)]
    inner = recipe.shape
    if recipe.length in recipe.dims[:1] and recipe.shape:  # so that only chunks with values are read
        inner = (_largest_divisor(recipe.shape[0], 128), *recipe.shape[1:])
    feature = ArraySpec(
        name=name,
        dims=("track", *recipe.dims),
        tail=recipe.shape,
        dtype=recipe.dtype,
        fill=math.nan if np.dtype(recipe.dtype).kind == "f" else 0,
        unit=recipe.unit,
        description=recipe.description,
        inner=(1, *inner) if math.prod(recipe.shape) >= LARGE_VALUES else (),
    )
    return [status, feature] if recipe.length is None else [status, feature, _length_array(name, recipe.length)]


def length_name(name: str) -> str:
    """Return the name of the array with the lengths of the sequences of an extractor."""
    return f"{name}_length"


def _length_array(name: str, dimension: str) -> ArraySpec:
    return ArraySpec(
        name=length_name(name),
        dims=("track",),
        tail=(),
        dtype="uint32",
        fill=0,
        unit="steps",
        description=f"entries of {name} along {dimension} that have values; later ones are fill; 0 without features",
    )


def _track_array(
    name: str,
    dtype: str,
    unit: str,
    shape: Mapping[str, int] | None = None,
    fill: float = 0,
    inner: tuple[int, ...] = (),
) -> ArraySpec:
    """Describe an array with one row per track; `shape` has the names and lengths of its other dimensions."""
    dims, tail = ("track", *(shape or {})), tuple((shape or {}).values())
    return ArraySpec(
        name=name, dims=dims, tail=tail, dtype=dtype, fill=fill, unit=unit, description=DESCRIPTIONS[name], inner=inner
    )


def default_part_rows(n_tracks: int, recipe: Recipe) -> int:
    """Return the rows per part of a new store with so many tracks.

    Fewer rows if they have more than :data:`PART_BYTES`, as a worker holds the arrays of a part in memory.
    """
    row_bytes = sum(math.prod(spec.tail) * np.dtype(spec.dtype).itemsize for spec in track_arrays(recipe))
    return min(128 if n_tracks >= 2048 else 16, max(1, PART_BYTES // row_bytes))


def size_problem(specs: Iterable[ArraySpec], part_rows: int) -> str | None:
    """Return which array is too large to be read; None if none is."""
    for spec in specs:
        row_bytes = math.prod(spec.tail) * np.dtype(spec.dtype).itemsize
        at_once = row_bytes if spec.sharded else part_rows * row_bytes
        if at_once > MAX_CHUNK_BYTES or part_rows * row_bytes > MAX_SHARD_BYTES:
            return f"{spec.name} has {part_rows * row_bytes:.3g} bytes per part"
    return None


def length_problem(recipe: FeatureSetRecipe) -> str | None:
    """Return what is wrong with the `length` of an extractor; None if nothing is."""
    if isinstance(recipe, TextRecipe) or recipe.length is None or recipe.length in recipe.dims:
        return None
    return f"its length is {recipe.length!r}, which is not one of its dims {recipe.dims}"


def dimension_clash(existing: Iterable[ArraySpec], new: Iterable[ArraySpec], name: str) -> str | None:
    """Return which dimension of the feature set `name` has another length in the arrays that exist; None if none."""
    lengths = {dim: length for spec in existing for dim, length in zip(spec.dims[1:], spec.tail, strict=True)}
    for spec in new:
        if len(spec.dims) != 1 + len(spec.tail):
            return f"its dims {spec.dims[1:]} and shape {spec.tail} do not match"
        for dim, length in zip(spec.dims[1:], spec.tail, strict=True):
            if lengths.setdefault(dim, length) != length or dim in ("track", "genre"):
                return (
                    f"its dimension {dim!r} is {length} long, the store's {lengths.get(dim, 'another thing')}; give it "
                    f"a name of its own, such as {name}_{dim}"
                )
    return None


def coordinate_clash(existing: Iterable[ArraySpec], new: Iterable[ArraySpec], name: str) -> str | None:
    """Return which name both an array and a dimension would have, with a feature set `name`; None if none.

    xarray makes such an array a coordinate. This is checked when a feature set is added: older stores may have some.
    """
    existing, new = list(existing), list(new)
    for spec in new:
        for dim in spec.dims[1:]:
            if any(dim == other.name for other in (*new, *existing)):
                return f"its dimension {dim!r} has the name of an array; use another name, such as {name}_dim"
    dims = {dim for spec in existing for dim in spec.dims}
    if clash := sorted(dims & {spec.name for spec in new}):
        return f"the store has a dimension {clash[0]!r}; use another name for the feature set"
    return None


def is_fill(values: npt.NDArray[Any], fill: float) -> bool:
    """Return whether an array holds nothing but its fill value; minus zero is not zero, as it is not to Zarr."""
    if values.size > 1 and not is_fill(values[(0,) * values.ndim], fill):  # most arrays end here
        return False
    if np.isnan(fill):
        return bool(np.isnan(values).all())
    return not np.any(values != fill) and not (values.dtype.kind == "f" and fill == 0 and np.signbit(values).any())


def _largest_divisor(number: int, at_most: int) -> int:
    return max(n for n in range(1, at_most + 1) if number % n == 0)
