"""The extractors ``musicnn`` and ``musicnn_tags``: equal to the published graph, at their own sample rate."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from graph_def import Graph

import mgc
from mgc import api
from mgc.cache.errors import ConfigError
from mgc.cache.format.plan import read_plan
from mgc.cache.upkeep.verify import verify
from mgc.pipeline.extractors import extractor, musicnn
from mgc.pipeline.extractors.extractor import Extractor
from mgc.pipeline.extractors.registry import BUILT_IN
from mgc.pipeline.extractors.tensor_bundle import read_tensors
from mgc.pipeline.sources.manifest import Source, Track

needs_weights = pytest.mark.skipif(find_spec("musicnn") is None, reason=f"no weights: {musicnn.INSTALL}")


def chord(seconds: float, rate_hz: int, seed: int = 0) -> np.ndarray:
    """A chord with harmonics and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    tones = sum(np.sin(2 * np.pi * 220 * n * t) / n for n in (1, 2, 2.5, 3, 4.5))
    return (0.1 * tones + 0.01 * rng.normal(size=len(t))).astype(np.float32)


@needs_weights
def test_network_equals_the_published_graph_evaluated_in_numpy() -> None:
    folder = musicnn.weights_folder()
    windows = musicnn.windows_of(chord(7, musicnn.SAMPLE_RATE_HZ))
    training = {"model/Placeholder_2": np.array(False)}
    graph = Graph(folder / ".meta", {**read_tensors(folder), "model/Placeholder": windows, **training})
    features, tags = musicnn.network()(windows)
    assert features.shape == (2, musicnn.N_FEATURES)
    np.testing.assert_allclose(tags, graph.value("model/Sigmoid"), atol=1e-5)
    np.testing.assert_allclose(features, graph.value("model/batch_normalization_10/batchnorm/add_1"), atol=1e-4)
    assert len(set(musicnn.TAGS)) == tags.shape[1] == 50


def test_windows_are_whole_and_a_short_clip_has_one() -> None:
    assert musicnn.windows_of(chord(30, 16_000)).shape == (10, 187, 96)
    short = musicnn.windows_of(chord(1, 16_000))
    assert short.shape == (1, 187, 96)
    assert (short[0, 63:] == 0).all()
    assert short[0, :60].max() > 1
    with pytest.raises(ValueError, match="clips of 22050 Hz; the network was trained at 16000 Hz"):
        musicnn.features(chord(1, 22_050), 22_050)


def test_missing_or_other_weights_are_refused_before_anything_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    musicnn.network.cache_clear()
    extractor._call_once.cache_clear()  # earlier tests of this process may have loaded the weights
    source = songs(tmp_path / "songs", 1)
    store = tmp_path / "s.zarr"
    api.extract(source, store, features=("mel",), workers=0, clip_s=4.0)
    monkeypatch.setattr(musicnn, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"weights are not installed. Run `pip install --no-deps musicnn==0.1.0`"):
        api.extract(source, store, add="musicnn", workers=0)
    assert read_plan(store).added == {}
    other = tmp_path / "other" / musicnn.CHECKPOINT
    other.mkdir(parents=True)
    (other / ".data-00000-of-00001").write_bytes(b"other")
    spec = type("Spec", (), {"submodule_search_locations": [str(other.parent)]})
    monkeypatch.setattr(musicnn, "find_spec", lambda name: spec)
    with pytest.raises(ConfigError, match="not the weights of musicnn 0.1.0"):
        musicnn.weights_folder()


@needs_weights
@pytest.mark.parametrize("name", [".index", ".data-00000-of-00001"])
def test_damaged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(musicnn.weights_folder(), tmp_path / "weights"))
    damaged = bytearray((folder / name).read_bytes())
    for at in (0, 60, len(damaged) // 40):  # of tensors that are read: those of the optimizer are not
        for change in (b"", bytes([damaged[at] ^ 0xFF]) + damaged[at + 1 :]):
            (folder / name).write_bytes(damaged[:at] + change)
            with pytest.raises(ConfigError, match=r"the checkpoint cannot be read .* Install the package again"):
                read_tensors(folder)


def songs(folder: Path, n: int, rate_hz: int = 44_100) -> Source:
    folder.mkdir()
    for i in range(n):
        soundfile.write(folder / f"{i}.wav", chord(4, rate_hz, seed=i), rate_hz, subtype="FLOAT")
    return Source(root=folder, tracks=[Track(id=f"t{i}", path=f"{i}.wav", genres=("jazz",)) for i in range(n)])


@needs_weights
def test_features_in_a_store_equal_those_of_the_file_at_the_rate_of_the_network(tmp_path: Path) -> None:
    source, store = songs(tmp_path / "songs", 2), tmp_path / "s.zarr"
    api.extract(source, store, features=("mel",), workers=0, clip_s=4.0)
    for name, compute in (("musicnn", musicnn.features), ("musicnn_tags", musicnn.tags)):
        report = api.extract(source, store, add=name, workers=0)
        assert (report.ok, report.failed) == (2, 0)
        stored = mgc.open(store)[name][:]
        for i in range(2):
            samples = librosa.resample(chord(4, 44_100, seed=i), orig_sr=44_100, target_sr=musicnn.SAMPLE_RATE_HZ)
            alone = compute(samples, musicnn.SAMPLE_RATE_HZ)
            assert stored[i] @ alone / np.linalg.norm(stored[i]) / np.linalg.norm(alone) > 0.9999
    recipe = read_plan(store).added["musicnn_tags"].recipe
    assert recipe.clip["sample_rate_hz"] == 16_000
    assert recipe.parameters["tags"] == list(musicnn.TAGS)
    assert verify(store, full=True) == []


def test_extractor_gets_clips_at_its_own_sample_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clip is resampled once from the file, and the rate is part of the recipe."""
    prepared: list[int] = []
    own = Extractor(
        name="length",
        version="1",
        input="clip",
        dims=("length_value",),
        shape=(2,),
        dtype="float32",
        unit="1",
        description="samples of the clip, and their rate in Hz",
        compute=lambda samples, rate_hz: (len(samples), rate_hz),
        sample_rate_hz=8_000,
        prepare=lambda: prepared.append(1),
    )
    monkeypatch.setitem(BUILT_IN, own.name, own)
    source, store = songs(tmp_path / "songs", 2), tmp_path / "s.zarr"
    api.extract(source, store, features=("mel",), workers=0, clip_s=3.0)
    api.extract(source, store, add="length", workers=0)
    np.testing.assert_array_equal(mgc.open(store)["length"][:], [[24_000, 8_000]] * 2)
    assert read_plan(store).added["length"].recipe.clip["sample_rate_hz"] == 8_000
    assert prepared
    for wrong in ({"sample_rate_hz": 50}, {"input": "text", "sample_rate_hz": 8_000}):
        with pytest.raises(ConfigError, match="only clips have one"):
            Extractor(**{**vars(own), **wrong})
