"""Test batches: stored values in all placements, each example once per epoch, statistics without padding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mgc.cache.errors import ConfigError, TrainingError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.data.batches import Examples, FeatureBatches, Placement, choose_placement, epoch_batches, in_batches
from mgc.heads.data.labels import genre_matrix
from mgc.heads.data.normalisation import mel_statistics

CPU = torch.device("cpu")
GENRES = ("blues", "folk", "jazz", "metal", "rock")
MakeWorld = Callable[..., Any]


def examples_of(store: FeatureStore) -> Examples:
    return Examples.of(store, store.ok_rows, genre_matrix(store.tracks.column("genres"), GENRES))


def batches_in(placement: str, store: FeatureStore) -> FeatureBatches:
    examples = examples_of(store)
    return FeatureBatches(
        store, examples, placement=choose_placement(store, examples, device=CPU, wanted=placement), device=CPU
    )


def test_all_placements_give_identical_batches(small_store: FeatureStore) -> None:
    indices = [np.array([3, 0, 7]), np.array([14, 21]), np.arange(40)]
    mapped, host = (list(batches_in(placement, small_store)(indices)) for placement in ("mapped", "host"))
    for first_batch, second_batch in zip(mapped, host, strict=True):
        assert (
            first_batch.padded
            == second_batch.padded
            == bool((first_batch.mel_frames < first_batch.mel.shape[-1]).any())
        )
        for field in dataclasses.fields(first_batch):
            first, second = getattr(first_batch, field.name), getattr(second_batch, field.name)
            if field.name in ("padded", "embeddings"):
                continue
            assert first.dtype == second.dtype, field.name
            assert torch.equal(first, second), field.name


@pytest.mark.parametrize("placement", ["mapped", "host"])
def test_batch_equals_the_stored_features(small_store: FeatureStore, placement: str) -> None:
    index = np.array([5, 0, 9, 33])
    batch = batches_in(placement, small_store).batch(index)
    rows = small_store.ok_rows[index]
    tokens = small_store.read("lyrics_tokens", rows)
    assert batch.rows.tolist() == rows.tolist()
    assert np.array_equal(batch.mel.numpy(), small_store.read("mel", rows))
    assert batch.lyrics_tokens.tolist() == tokens.tolist()
    assert batch.lyrics.shape[1] == tokens.max() < small_store.recipe.lyrics.max_tokens
    stored = small_store.read("lyrics", rows)
    for k, n in enumerate(tokens.tolist()):
        assert np.array_equal(batch.lyrics[k, :n].numpy(), stored[k, :n])
        assert not batch.lyrics[k, n:].any()
    genres = small_store.tracks.column("genres").to_pylist()
    assert [[GENRES[j] for j in row.nonzero().flatten().tolist()] for row in batch.labels] == [genres[r] for r in rows]


def test_tracks_without_lyrics_have_no_key_no_tokens_and_a_zero_mean(small_store: FeatureStore) -> None:
    batch = batches_in("host", small_store).batch(np.array([0, 7, 14]))
    assert batch.lyrics_key.tolist() == [-1, -1, -1]
    assert batch.lyrics.shape[1] == 0
    assert not batch.lyrics_pooled.any()


def test_equal_audio_and_equal_lyrics_have_equal_keys(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(n_tracks=6)
    world.lyrics_tokens[:] = 5
    world.mel[4] = world.mel[1]
    world.lyrics[5] = world.lyrics[2]
    examples = examples_of(world.write(tmp_path / "s.zarr"))
    assert [i for i in range(6) if examples.track_key[i] == examples.track_key[1]] == [1, 4]
    assert [i for i in range(6) if examples.lyrics_key[i] == examples.lyrics_key[2]] == [2, 5]
    assert len(set(examples.lyrics_key.tolist())) == len(set(examples.track_key.tolist())) == 5


@given(st.integers(1, 100), st.integers(2, 20), st.integers(0, 5), st.integers(0, 5))
def test_epoch_has_each_example_once_in_batches_of_two_or_more(n: int, size: int, seed: int, epoch: int) -> None:
    order = epoch_batches(n, size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(order).tolist()) == list(range(n))
    assert all(2 <= len(batch) <= size + 1 for batch in order) or n == 1
    repeated = epoch_batches(n, size, seed=seed, epoch=epoch)
    assert all(np.array_equal(a, b) for a, b in zip(order, repeated, strict=True))


def test_epochs_and_seeds_shuffle_differently() -> None:
    orders = {tuple(np.concatenate(epoch_batches(50, 8, seed=s, epoch=e)).tolist()) for s in (0, 1) for e in (1, 2)}
    assert len(orders) == 4


def test_shuffling_is_uniform_over_positions_and_pairs() -> None:
    """Chi-squared test over 4 000 epochs, which shuffling within blocks or with too few swaps fails clearly."""
    n, size, n_epochs = 12, 3, 4000
    orders = np.stack([np.concatenate(epoch_batches(n, size, seed=0, epoch=e)) for e in range(n_epochs)])
    counts = np.stack([np.bincount(orders[:, position], minlength=n) for position in range(n)])
    together = np.zeros((n, n))
    for order in orders.reshape(-1, size):
        together[np.ix_(order, order)] += 1
    pair_counts = together[np.triu_indices(n, 1)]
    assert stats.chi2((n - 1) ** 2).sf(((counts - n_epochs / n) ** 2 / (n_epochs / n)).sum()) > 1e-3
    expected = n_epochs * (size - 1) / (n - 1)
    statistic = ((pair_counts - expected) ** 2 / expected).sum() / (1 - (size - 1) / (n - 1))
    assert stats.chi2(len(pair_counts) - 1).sf(statistic) > 1e-3


def test_no_examples_give_no_batches() -> None:
    assert in_batches(np.zeros(0, dtype=np.int64), 4) == []


def test_placement_is_the_fastest_with_enough_memory(small_store: FeatureStore) -> None:
    examples = examples_of(small_store)
    placement = choose_placement(small_store, examples, device=CPU)
    features = len(examples) * (128 * 44 * 2 + 12 * 4) + int(examples.lyrics_tokens.sum()) * 12 * 2
    assert (placement.name, placement.n_bytes) == ("host", features)
    assert "host memory" in str(placement)
    large = dataclasses.replace(examples, lyrics_tokens=examples.lyrics_tokens + 10**12)
    assert choose_placement(small_store, large, device=CPU).name == "mapped"
    with pytest.raises(ConfigError, match="--set placement=device"):
        choose_placement(small_store, examples, device=CPU, wanted="device")


def test_errors_of_prefetching_are_raised(small_store: FeatureStore) -> None:
    examples = dataclasses.replace(examples_of(small_store), rows=np.full(40, 999))
    batches = FeatureBatches(
        small_store, examples, placement=Placement(name="mapped", n_bytes=0, free_bytes=0), device=CPU
    )
    with pytest.raises(KeyError, match="999"):
        list(batches([np.array([0, 1])]))


def valid_values(store: FeatureStore, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    frames = store.read("mel_frames", rows)
    mels = store.read("mel", rows).astype(np.float64)
    return np.concatenate([mel[:, :n].ravel() for mel, n in zip(mels, frames, strict=True)])


def test_mel_statistics_ignore_padding(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(n_tracks=20)
    for i, n in enumerate(world.mel_frames.tolist()):
        world.mel[i, :, n:] = -100 if i % 2 else np.nan
    store = world.write(tmp_path / "s.zarr")
    rows = np.array([0, 3, 4, 11, 19])
    statistics = mel_statistics(store, rows, store.read("mel_frames", rows).astype(np.int64))
    values = valid_values(store, rows)
    assert statistics.mean_db == pytest.approx(values.mean(), abs=1e-10)
    assert statistics.std_db == pytest.approx(values.std(), abs=1e-10)
    assert statistics.n_values == values.size


def test_mel_with_infinite_value_raises_an_error_with_the_track_id(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(n_tracks=6)
    world.mel[4, 10, 0] = np.inf
    store = world.write(tmp_path / "s.zarr")
    with pytest.raises(TrainingError, match="'t0004'"):
        mel_statistics(store, store.ok_rows, store.read("mel_frames", store.ok_rows).astype(np.int64))


def test_standard_deviation_of_silent_tracks_is_one(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(n_tracks=4)
    world.mel[:] = -100
    store = world.write(tmp_path / "s.zarr")
    statistics = mel_statistics(store, store.ok_rows, np.full(4, 44))
    assert (statistics.mean_db, statistics.std_db) == (-100.0, 1.0)
