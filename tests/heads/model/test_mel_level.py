"""Reference level and clipping of stored mels, against librosa, from the power spectrogram on."""

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
from mgc.heads.model.audio_cnn import MelLevel


def power(n_tracks: int = 3, n_frames: int = 40) -> np.ndarray:
    return 10 ** np.random.default_rng(0).uniform(-9, 3, (n_tracks, 8, n_frames))


@pytest.mark.parametrize("reference", ["one", "max"])
@pytest.mark.parametrize("top_db", [None, 80.0, 30.0])
def test_any_level_is_librosas_power_to_db_of_the_stored_one(reference: Any, top_db: float | None) -> None:
    powers = power()
    stored = np.stack([librosa.power_to_db(p, ref=1.0, amin=1e-10, top_db=None) for p in powers])
    expected = [librosa.power_to_db(p, ref=np.max if reference == "max" else 1.0, top_db=top_db) for p in powers]
    level = MelLevel(reference=reference, top_db=top_db)
    found = level.apply(torch.from_numpy(stored), torch.full((3,), 40))
    np.testing.assert_allclose(found.numpy(), np.stack(expected), atol=1e-9)


def test_padding_has_no_say_in_what_is_loudest() -> None:
    stored = torch.from_numpy(10 * np.log10(power()))
    level, frames = MelLevel(reference="max", top_db=30.0), torch.tensor([40, 17, 1])
    loud = stored.clone()
    for track, n in enumerate(frames.tolist()):
        loud[track, :, n:] = 200.0
    found, expected = level.apply(loud, frames), level.apply(stored[:, :, :17], frames.clamp(max=17))
    assert torch.equal(found[1:, :, 0], expected[1:, :, 0])
    assert found[1, :, :17].max() == 0


def test_statistics_are_taken_at_the_level_the_model_reads(make_world: Callable[..., Any], tmp_path: Path) -> None:
    world = make_world(n_tracks=6)
    world.mel[2] += 20
    store = world.write(tmp_path / "s.zarr")
    rows, frames = store.ok_rows, store.read("mel_frames", store.ok_rows).astype(np.int64)
    found = mel_statistics(store, rows, frames, level=MelLevel(reference="max", top_db=25.0))
    values = []
    for mel, n in zip(store.read("mel", rows).astype(np.float32), frames, strict=True):
        sound = mel[:, :n]
        values.append(np.maximum(sound - sound.max(), -25.0).ravel())
    joined = np.concatenate(values).astype(np.float64)
    assert found.mean_db == pytest.approx(joined.mean(), abs=1e-5)
    assert found.std_db == pytest.approx(joined.std(), abs=1e-5)


@pytest.mark.parametrize(("options", "says"), [({"reference": "loud"}, "loud"), ({"top_db": 0.0}, "above 0 dB")])
def test_a_level_without_meaning_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        MelLevel(**options)
