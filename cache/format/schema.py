"""Arrays as data: names, dims, dtypes, units, chunks; status, flags and reason codes."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .recipe import FeatureSetRecipe, Recipe, TextRecipe

FORMAT_VERSION = 1

LARGE_VALUES = 1024
"""An extractor's array with so many values a track gets a chunk a track, which can be mapped; a smaller one is read
whole."""

ABSENT, OK, FAILED = 0, 1, 2
"""Values of the ``status`` array: no committed outcome yet, features present, failed with a reason."""


class Flag(enum.IntFlag):
    """What was unusual about a track; bits of the ``flags`` array (uint32). New flags take the next free bit."""

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

    @property
    def names(self) -> list[str]:
        """Names of the bits that are set, lowest bit first."""
        return [flag.name or "" for flag in Flag if flag in self]


class Reason(enum.StrEnum):
    """Why a track failed; one code a failed track."""

    SRC_MISSING = "SRC_MISSING"
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
    dims : names of the dimensions; the first is ``track`` for every array that grows with the collection.
    tail : shape without the first dimension.
    inner : rows and tail of an inner chunk. Arrays with ``sharded`` put all inner chunks of a part in one object.
    plain : bytes + crc32c a chunk, so that an object can be memory-mapped; otherwise zstd + crc32c.
    """

    name: str
    dims: tuple[str, ...]
    tail: tuple[int, ...]
    dtype: str
    fill: float
    unit: str
    description: str
    inner: tuple[int, ...] = ()
    sharded: bool = False
    plain: bool = False


def track_arrays(recipe: Recipe) -> list[ArraySpec]:
    """The arrays with one row a track, for the features that `recipe` names."""
    specs = [
        ArraySpec(name="status", dims=("track",), tail=(), dtype="uint8", fill=0, unit="code",
                  description="0 absent, 1 ok, 2 failed; mask every other array by it"),
        ArraySpec(name="flags", dims=("track",), tail=(), dtype="uint32", fill=0, unit="bit field",
                  description="what was unusual about the track; bit names in the attribute flag_bits"),
    ]  # fmt: skip
    if recipe.mel is not None:
        mel = recipe.mel
        shape = (mel.n_mels, mel.n_frames)
        specs += [
            ArraySpec(name="mel", dims=("track", "mel_band", "frame"), tail=shape, dtype="float16", fill=float("nan"),
                      unit="dB re 1.0", inner=(1, *shape), sharded=True, plain=True,
                      description="log-mel power spectrogram of the clip; no reference level or clipping applied"),
            ArraySpec(name="mel_frames", dims=("track",), tail=(), dtype="uint16", fill=0, unit="frames",
                      description="frames that hold sound; later ones are zero-padding of a short clip"),
        ]  # fmt: skip
    return specs + (text_arrays(recipe.lyrics) if recipe.lyrics is not None else [])


def text_arrays(text: TextRecipe, name: str | None = None) -> list[ArraySpec]:
    """The arrays of one text encoder's features; `name` is that of a feature set which joined the store later."""
    suffix, step = "" if name is None else f"_{name}", _largest_divisor(text.max_tokens, 128)
    token, dim = f"token{suffix}", f"text_dim{suffix}"
    return [
        ArraySpec(name=f"lyrics{suffix}", dims=("track", token, dim), tail=(text.max_tokens, text.hidden_size),
                  dtype="float16", fill=0.0, unit="1", inner=(1, step, text.hidden_size), sharded=True, plain=True,
                  description="last hidden states of the frozen text encoder, [CLS] and [SEP] included"),
        ArraySpec(name=f"lyrics_tokens{suffix}", dims=("track",), tail=(), dtype="uint16", fill=0, unit="tokens",
                  description="tokens kept, [CLS] and [SEP] included; 0 without lyrics"),
        ArraySpec(name=f"lyrics_tokens_full{suffix}", dims=("track",), tail=(), dtype="uint32", fill=0, unit="tokens",
                  description="tokens before truncation, [CLS] and [SEP] included"),
        ArraySpec(name=f"lyrics_pooled{suffix}", dims=("track", dim), tail=(text.hidden_size,), dtype="float32",
                  fill=float("nan"), unit="1",
                  description="mean of the hidden states over non-special tokens; NaN without lyrics"),
    ]  # fmt: skip


def added_arrays(name: str, recipe: FeatureSetRecipe) -> list[ArraySpec]:
    """The arrays of a feature set that joined a store later, its own ``status`` among them."""
    status = ArraySpec(name=f"status_{name}", dims=("track",), tail=(), dtype="uint8", fill=0, unit="code",
                       description=f"0 absent, 1 ok, 2 failed; mask the arrays of {name} by it")  # fmt: skip
    if isinstance(recipe, TextRecipe):
        return [status, *text_arrays(recipe, name)]
    large = math.prod(recipe.shape) >= LARGE_VALUES
    feature = ArraySpec(
        name=name, dims=("track", *recipe.dims), tail=recipe.shape, dtype=recipe.dtype, unit=recipe.unit,
        fill=float("nan") if np.dtype(recipe.dtype).kind == "f" else 0, description=recipe.description,
        inner=(1, *recipe.shape) if large else (), sharded=large, plain=large,
    )  # fmt: skip
    return [status, feature]


def is_fill(values: npt.NDArray[Any], fill: float) -> bool:
    """Whether an array holds nothing but its fill value; minus zero is not zero, as it is not to Zarr."""
    if np.isnan(fill):
        return bool(np.isnan(values).all())
    return not np.any(values != fill) and not (values.dtype.kind == "f" and fill == 0 and np.signbit(values).any())


def _largest_divisor(number: int, at_most: int) -> int:
    return max(n for n in range(1, at_most + 1) if number % n == 0)
