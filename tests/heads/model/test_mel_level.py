"""Test reference level and clipping of stored mels against librosa, starting from the power spectrogram."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch

from mgc.cache.errors import ConfigError
from mgc.heads.data.normalisation import mel_statistics
from mgc.heads.model.audio_cnn import at_level
from mgc.heads.model.config import MelLevel


def power(n_tracks: int = 3, n_frames: int = 40) -> np.ndarray:
    return 10 ** np.random.default_rng(0).uniform(-9, 3, (n_tracks, 8, n_frames))


@pytest.mark.parametrize("reference", ["one", "max"])
@pytest.mark.parametrize("top_db", [None, 80.0, 30.0])
def test_level_equals_power_to_db_of_librosa(reference: Any, top_db: float | None) -> None:
    powers = power()
    stored = np.stack([librosa.power_to_db(p, ref=1.0, amin=1e-10, top_db=None) for p in powers])
    expected = [librosa.power_to_db(p, ref=np.max if reference == "max" else 1.0, top_db=top_db) for p in powers]
    level = MelLevel(reference=reference, top_db=top_db)
    levelled = at_level(level, torch.from_numpy(stored), torch.full((3,), 40))
    np.testing.assert_allclose(levelled.numpy(), np.stack(expected), atol=1e-9)


def test_padding_does_not_change_the_reference_level() -> None:
    stored = torch.from_numpy(10 * np.log10(power()))
    level, frames = MelLevel(reference="max", top_db=30.0), torch.tensor([40, 17, 1])
    loud = stored.clone()
    for track, n in enumerate(frames.tolist()):
        loud[track, :, n:] = 200.0
    levelled, expected = at_level(level, loud, frames), at_level(level, stored[:, :, :17], frames.clamp(max=17))
    assert torch.equal(levelled[1:, :, 0], expected[1:, :, 0])
    assert levelled[1, :, :17].max() == 0


def test_statistics_use_the_level_of_the_model(make_world: Callable[..., Any], tmp_path: Path) -> None:
    world = make_world(n_tracks=6)
    world.mel[2] += 20
    store = world.write(tmp_path / "s.zarr")
    rows, frames = store.ok_rows, store.read("mel_frames", store.ok_rows).astype(np.int64)
    statistics = mel_statistics(store, rows, frames, level=MelLevel(reference="max", top_db=25.0))
    values = []
    for mel, n in zip(store.read("mel", rows).astype(np.float32), frames, strict=True):
        valid = mel[:, :n]
        values.append(np.maximum(valid - valid.max(), -25.0).ravel())
    expected = np.concatenate(values).astype(np.float64)
    assert statistics.mean_db == pytest.approx(expected.mean(), abs=1e-5)
    assert statistics.std_db == pytest.approx(expected.std(), abs=1e-5)


@pytest.mark.parametrize(("options", "message"), [({"reference": "loud"}, "loud"), ({"top_db": 0.0}, "above 0 dB")])
def test_invalid_level_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MelLevel(**options)
