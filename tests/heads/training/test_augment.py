"""Test augmentation: position, size and value of masks, and reproducibility."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import SWITCHES, TrainConfig, merge_options, switched_on
from mgc.heads.model.batch import Batch
from mgc.heads.training.augment import MAX_BANDS, MAX_SHARE, N_MASKS, augment_batch, drop_lyrics, spec_augment
from mgc.heads.training.train import train


def batch(n_tracks: int = 64, n_frames: int = 300) -> Batch:
    torch.manual_seed(0)
    tokens = torch.randint(3, 9, (n_tracks,))
    tokens[::4] = 0
    return Batch(
        mel=(10 * torch.randn(n_tracks, 128, n_frames) - 40).half(),
        mel_frames=torch.randint(n_frames // 4, n_frames + 1, (n_tracks,)),
        lyrics=torch.randn(n_tracks, 9, 5),
        lyrics_tokens=tokens,
        lyrics_pooled=torch.randn(n_tracks, 5) * (tokens > 0)[:, None],
        labels=torch.zeros(n_tracks, 2),
        track_key=torch.arange(n_tracks),
        lyrics_key=torch.where(tokens > 0, torch.arange(n_tracks), -1),
        rows=torch.arange(n_tracks),
    )


def test_masks_have_the_mean_of_the_track() -> None:
    tracks = batch()
    stored = tracks.mel.clone()
    assert spec_augment(tracks.mel, tracks.mel_frames).dtype == torch.float16
    assert torch.equal(tracks.mel, stored)
    mel = tracks.mel + torch.rand(tracks.mel.shape)  # float32: no value is the mean by chance
    masked = spec_augment(mel, tracks.mel_frames)
    changed = masked != mel
    for track, n in enumerate(tracks.mel_frames.tolist()):
        values, hidden = masked[track][changed[track]], changed[track, :, :n]
        torch.testing.assert_close(values, mel[track, :, :n].mean().expand_as(values))
        bands, frames = hidden.all(dim=1), hidden.all(dim=0)
        assert torch.equal(hidden, bands[:, None] | frames[None, :])
        assert bands.sum() <= N_MASKS * MAX_BANDS
        assert frames.sum() <= N_MASKS * MAX_SHARE * n
        assert not changed[track, ~bands, n:].any()


def test_masks_have_all_widths_and_positions() -> None:
    mel = torch.randn(400, 128, 200)
    hidden = spec_augment(mel, torch.full((400,), 200)) != mel
    bands, frames = hidden.all(dim=2).sum(dim=1), hidden.all(dim=1).sum(dim=1)
    assert bands.min() < 5
    assert bands.max() > 45
    assert frames.max() > 60
    # The mean width of a mask is half its maximum, and two masks may overlap.
    assert 0.8 * MAX_BANDS < bands.float().mean() < MAX_BANDS
    # Every band and every frame is masked in some track.
    assert hidden.all(dim=2).any(dim=0).all()
    assert hidden.all(dim=1).any(dim=0).all()


def test_lyrics_are_dropped_with_the_given_probability() -> None:
    tracks = batch(4000, 8)
    dropped = drop_lyrics(tracks, 0.3)
    had, has = tracks.lyrics_tokens > 0, dropped.lyrics_tokens > 0
    assert not (has & ~had).any()
    assert (had & ~has).sum() / had.sum() == pytest.approx(0.3, abs=0.03)
    assert (dropped.lyrics_key[~has] == -1).all()
    assert not dropped.lyrics_pooled[~has].any()
    assert torch.equal(dropped.lyrics_pooled[has], tracks.lyrics_pooled[has])
    assert torch.equal(dropped.lyrics[has], tracks.lyrics[has])
    assert not (drop_lyrics(tracks, 1.0).lyrics_tokens > 0).any()


def test_without_augmentation_batch_and_random_state_are_unchanged() -> None:
    tracks, state = batch(4), torch.get_rng_state()
    assert augment_batch(tracks, TrainConfig()) is tracks
    assert torch.equal(torch.get_rng_state(), state)


def test_augmentation_is_a_function_of_seed_and_epoch(small_store: FeatureStore, tmp_path: Path) -> None:
    """With all switches on, a run resumed after its first epoch has the same bytes as an uninterrupted one."""
    small = {"width": 32, "graph_hidden": 32}
    options = {"encoder": "tiny", "precision": "fp32", "epochs": 4, "lr": 1e-3, "model_options": small}
    config = TrainConfig.from_dict(merge_options(switched_on(*SWITCHES), options))

    class StopError(Exception):
        pass

    def stop(step: str, done: int, total: int, note: str = "") -> None:
        if step == "train":
            raise StopError

    train(small_store, tmp_path / "complete", config)
    with pytest.raises(StopError):
        train(small_store, tmp_path / "stopped", config, on_progress=stop)
    train(small_store, tmp_path / "stopped", config, resume=True)
    for name in ("last", "best"):
        files = [{p.name: p.read_bytes() for p in (tmp_path / run / name).iterdir()} for run in ("complete", "stopped")]
        assert files[0] == files[1]
    plain = train(small_store, tmp_path / "plain", dataclasses.replace(config, spec_augment=False))
    assert plain.history[0].loss != train(small_store, tmp_path / "complete", config, resume=True).history[0].loss
