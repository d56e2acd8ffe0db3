"""Shards that mgc writes are zarr's, byte for byte."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc.cache.format.layout import encode, encode_with_zarr
from mgc.cache.format.recipe import MelRecipe, Recipe, TextRecipe
from mgc.cache.format.schema import ArraySpec, added_arrays, is_fill, track_arrays

TEXT = TextRecipe(model="m", weights_sha256="a" * 64, tokenizer_sha256="b" * 64, hidden_size=24, max_tokens=512)
MEL = MelRecipe(clip_s=1.0)


def spec_of(inner: tuple[int, ...], n_inner: int, dtype: str, fill: float) -> ArraySpec:
    tail = (inner[1] * n_inner, *inner[2:])
    dims = ("track", *(f"d{i}" for i in range(len(tail))))
    return ArraySpec(name="x", dims=dims, tail=tail, dtype=dtype, fill=fill, unit="1", description="", inner=inner)


def some_values(spec: ArraySpec, n_rows: int, seed: int) -> npt.NDArray[Any]:
    """Values of which some inner chunks are fill throughout, and some all but one value."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 50, (n_rows, *spec.tail)).astype(spec.dtype)
    for row in range(n_rows):
        for start in range(0, spec.tail[0], spec.inner[1]):
            chunk = values[row, start : start + spec.inner[1]]
            match rng.integers(5):
                case 0:
                    chunk[...] = spec.fill
                case 1:
                    chunk[...] = spec.fill
                    chunk.flat[-1] = 1
                case 2 if values.dtype.kind == "f":
                    chunk[...] = -0.0
    return values


EVERY_ARRAY = [
    *track_arrays(Recipe(mel=MEL, lyrics=TEXT)),
    *added_arrays("other", TEXT),
]


@pytest.mark.parametrize("spec", [spec for spec in EVERY_ARRAY if spec.sharded], ids=lambda spec: spec.name)
@pytest.mark.parametrize("n_rows", [1, 5, 8, 19])
def test_every_sharded_array_of_a_store(spec: ArraySpec, n_rows: int) -> None:
    values = some_values(spec, n_rows, n_rows)
    assert not is_fill(values, spec.fill)
    encoded = encode(spec, values, 8)
    assert len(encoded) == math.ceil(n_rows / 8)
    assert encoded == with_zarr(spec, values, 8)


@settings(max_examples=60)
@given(
    inner=st.tuples(st.just(1), st.integers(1, 5), st.integers(1, 4)),
    n_inner=st.integers(1, 9),
    part_rows=st.integers(1, 20),
    n_rows=st.integers(1, 40),
    kind=st.sampled_from(
        [("<f2", math.nan), ("<f2", 0.0), ("<f4", -1.5), ("<f8", 0.0), ("<i2", 0), ("|u1", 7), ("<i8", 0)]
    ),
    seed=st.integers(0, 2**16),
)
def test_any_shape_dtype_and_fill_value(
    inner: tuple[int, ...], n_inner: int, part_rows: int, n_rows: int, kind: tuple[str, float], seed: int
) -> None:
    spec = spec_of(inner, n_inner, np.dtype(kind[0]).name, kind[1])
    values = some_values(spec, n_rows, seed)
    assert encode(spec, values, part_rows) == with_zarr(spec, values, part_rows)


def test_values_of_another_layout_in_memory() -> None:
    spec = spec_of((1, 4, 6), 2, "float16", 0.0)
    values = some_values(spec, 5, 0)
    expected = with_zarr(spec, values, 8)
    assert encode(spec, np.asfortranarray(values), 8) == expected
    assert encode(spec, values.astype(">f2"), 8) == expected
    assert encode(spec, values[::-1][::-1], 8) == expected


def with_zarr(spec: ArraySpec, values: npt.NDArray[Any], part_rows: int) -> list[bytes]:
    """The objects by zarr; a shard that is fill throughout, which zarr does not write, has an index only."""
    whole = [values[i : i + part_rows] for i in range(0, len(values), part_rows)]
    return [
        encode(spec, part, part_rows)[0] if is_fill(part, spec.fill) else encode_with_zarr(spec, part, part_rows)[0]
        for part in whole
    ]
