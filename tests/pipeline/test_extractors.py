"""Extractors: found by their entry points, they join a store without touching it, and every tool knows of them."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import xarray

import mgc
from mgc import api
from mgc.cache.errors import ConfigError, RecipeMismatchError, TrackUnavailableError
from mgc.cache.failures import failures
from mgc.cache.forms import convert
from mgc.cache.select import select
from mgc.cache.verify import verify
from mgc.pipeline import extractors as module
from mgc.pipeline.extractors import Extractor, load_extractor
from mgc.pipeline.manifest import Source, Track

PACKAGE = Path(__file__).parents[2] / "examples" / "extractor"
OPTIONS: dict[str, Any] = {"workers": 0, "clip_s": 1.0}
HZ = (220, 440, 880, 1760, 3520)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(PACKAGE, folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
               "--disable-pip-version-check", "--target", folder / "site", folder / "source"]  # fmt: skip
    subprocess.run(command, check=True)
    return folder / "site"


@pytest.fixture(autouse=True)
def _importable(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Five tones, one file that is no audio; the second has no words."""
    folder = tmp_path_factory.mktemp("songs")
    tracks = []
    for i, hz in enumerate(HZ):
        tone = 0.3 * np.sin(2 * np.pi * hz * np.arange(22_050) / 22_050)
        soundfile.write(folder / f"{i}.wav", tone.astype(np.float32), 22_050)
        words = None if i == 1 else "la " * i + "di da"
        tracks.append(Track(id=f"t{i}", path=f"{i}.wav", genres=("jazz",), lyrics=words))
    (folder / "x.wav").write_text("<html>404</html>")
    return Source(root=folder, tracks=[*tracks, Track(id="x", path="x.wav", genres=("rock",))])


def tree(store: Path) -> dict[str, bytes]:
    files = (path for path in store.rglob("*") if path.is_file() and path.relative_to(store).parts[0] != "log")
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def made(songs: Source, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that three extractors have joined; what was there before is as it was."""
    store = tmp_path_factory.mktemp("made") / "s.zarr"
    api.extract(songs, store, features=("mel", "lyrics"), text_model="minilm", part_rows=2, **OPTIONS)
    before = tree(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(installed))
        for name in ("pooled_mel", "brightness", "word_variety"):
            report = api.extract(songs, store, add=name, **OPTIONS)
            assert (report.planned, report.ok, report.failed, report.parts_built) == (6, 5, 1, 3)
    after = tree(store)
    assert {key for key in before if before[key] != after[key]} == {"zarr.json"}
    return store


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "s.zarr"))


def test_values_are_those_that_can_be_worked_out_another_way(made: Path, songs: Source) -> None:
    view = mgc.open(made)
    assert verify(made, full=True) == []
    np.testing.assert_allclose(view["brightness"][:], np.repeat(HZ, 3).reshape(5, 3), rtol=0.01)
    assert view["brightness"].unit == "Hz"
    variety = view["word_variety"][:]
    assert np.isnan(variety[1])
    np.testing.assert_allclose(variety[[0, 2, 3, 4]], [2 / 2, 3 / 4, 3 / 5, 3 / 6])
    for i in range(5):
        y, _ = soundfile.read(songs.root / f"{i}.wav", dtype="float32")
        mel = librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=22_050), ref=1.0, top_db=None)
        by_hand = [mel.mean(1), mel.std(1), *np.percentile(mel, [10, 50, 90], axis=1), np.abs(np.diff(mel)).mean(1)]
        np.testing.assert_allclose(view["pooled_mel"][i], by_hand, atol=0.1)


def test_plain_tools_see_named_dimensions_units_and_the_recipe(made: Path) -> None:
    plain = xarray.open_zarr(made, chunks=None)
    assert plain["pooled_mel"].dims == ("track", "pooled_mel_statistic", "mel_band")
    assert plain["brightness"].attrs["units"] == "Hz"
    assert plain["status_brightness"].values.tolist() == [1, 1, 1, 1, 1, 2]
    recipe = plain.attrs["added"]["brightness"]["recipe"]
    assert recipe["parameters"] == {"quantiles": [0.25, 0.5, 0.75]}
    assert recipe["clip"]["sample_rate_hz"] == 22_050


def test_reading_needs_no_extractor_and_loads_none(made: Path) -> None:
    script = (
        "import sys, mgc; found = mgc.open(sys.argv[1])['brightness'][:]; "
        "print(found.shape, {'mgc_example_extractor', 'mgc.pipeline.extractors'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, made], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "(5, 3) set()"


def test_again_does_nothing_and_another_version_is_refused(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(store)
    assert api.extract(songs, store, add="brightness", **OPTIONS).parts_built == 0
    assert tree(store) == before
    newer = dataclasses.replace(load_extractor("brightness"), version="2")
    monkeypatch.setattr(module, "_built_in", lambda: {"brightness": newer})
    with pytest.raises(RecipeMismatchError, match="version: 1 here, 2 there"):
        api.extract(songs, store, add="brightness", **OPTIONS)


def test_both_forms_and_smaller_stores_keep_it(store: Path, tmp_path: Path) -> None:
    convert(store, tmp_path / "s.h5")
    sealed = mgc.open(tmp_path / "s.h5")
    for name in ("brightness", "pooled_mel", "word_variety"):
        np.testing.assert_array_equal(sealed[name][:], mgc.open(store)[name][:])
    assert sealed.store.extractors == mgc.open(store).store.extractors
    convert(tmp_path / "s.h5", tmp_path / "again.zarr")
    assert tree(tmp_path / "again.zarr") == tree(store)
    some = mgc.open(store).take([4, 0])
    assert select(some, tmp_path / "some.zarr") == []
    assert verify(tmp_path / "some.zarr", full=True) == []
    np.testing.assert_array_equal(mgc.open(tmp_path / "some.zarr")["brightness"][:], some["brightness"][:][::-1])


def test_tracks_that_join_later_lack_it_until_it_is_run_again(store: Path, songs: Source) -> None:
    late = Source(root=songs.root, tracks=[*songs.tracks, Track(id="z", path="0.wav", genres=("jazz",), lyrics="new")])
    api.extract(late, store, features=("mel", "lyrics"), append=True, **OPTIONS)
    view = mgc.open(store)
    assert view.store.counts("brightness").pending == 1
    with pytest.raises(TrackUnavailableError, match=r"1 of the tracks asked for have no 'brightness': z \(not extr"):
        view["brightness"][:]
    assert len(view) == 6
    assert view.sel(feature="brightness")["brightness"].shape == (5, 3)
    assert api.extract(late, store, add="brightness", **OPTIONS).parts_built == 1
    np.testing.assert_allclose(mgc.open(store)["brightness"][5], HZ[0], rtol=0.01)


def test_damage_is_named_and_mended_and_what_is_taken_down_leaves(store: Path, songs: Source) -> None:
    file = store / "brightness" / "c" / "1" / "0"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (damage,) = verify(store, full=True)
    assert (damage.array, damage.part, damage.tracks) == ("brightness", 1, ("t2", "t3"))
    assert api.store_repair(store, songs)["pending_added"] == {"brightness": 2}
    api.extract(songs, store, add="brightness", **OPTIONS)
    assert verify(store, full=True) == []
    api.store_drop(store, ["t2"])
    api.store_compact(store)
    assert verify(store, full=True) == []
    assert np.isnan(xarray.open_zarr(store, chunks=None)["brightness"][2]).all()


def other(**changed: Any) -> Extractor:
    given = {"name": "other", "version": "1", "input": "clip", "dims": (), "shape": (), "dtype": "float32", "unit": "1",
             "description": "of a test", "compute": lambda samples, rate: float(samples.max())}  # fmt: skip
    return Extractor(**{**given, **changed})


def _raises(samples: Any, rate: int) -> float:
    if samples[1] > 0.1:
        raise ZeroDivisionError
    return 1.0


FAULTY = {
    "raises": (_raises, "the extractor raised ZeroDivisionError"),
    "of another shape": (lambda samples, rate: [1.0, 2.0], "values of shape (2,), announced was ()"),
    "not finite": (lambda samples, rate: np.inf, "values that are not finite"),
}


@pytest.mark.parametrize(("compute", "said"), FAULTY.values(), ids=FAULTY.keys())
def test_a_faulty_extractor_costs_the_tracks_it_fails_on(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch, compute: Any, said: str
) -> None:
    monkeypatch.setattr(module, "_built_in", lambda: {"other": other(compute=compute)})
    report = api.extract(songs, store, add="other", **OPTIONS)
    lost = 2 if compute is _raises else 5  # the tones of 1 760 and 3 520 Hz start steeply
    assert report.reasons == {"EXTRACTOR_FAILED": lost, "NOT_AUDIO": 1}
    with pytest.raises(TrackUnavailableError, match="EXTRACTOR_FAILED"):
        mgc.open(store)["other"][:]
    assert mgc.open(store).store.counts().ok == 5
    listed = [one for one in failures(store, "other")["failures"] if one["reason"] == "EXTRACTOR_FAILED"]
    assert sum(said in one["detail"] for one in listed) == len(listed) == lost
    with pytest.raises(ConfigError, match="no features 'others' joined it, but brightness, other"):
        failures(store, "others")


def test_files_that_changed_are_not_mixed_in(store: Path, songs: Source, tmp_path: Path) -> None:
    shutil.copytree(songs.root, tmp_path / "songs")
    shutil.copy(songs.root / "4.wav", tmp_path / "songs" / "0.wav")
    shutil.rmtree(store / "commits" / "brightness")
    again = Source(root=tmp_path / "songs", tracks=songs.tracks)
    assert api.extract(again, store, add="brightness", **OPTIONS).reasons == {"SOURCE_CHANGED": 1, "NOT_AUDIO": 1}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "Loud"}, "its name wants"),
        ({"name": "status_x"}, "not 'status'"),
        ({"shape": (3,)}, "do not go together"),
        ({"dtype": "U5"}, "want a float, or a whole number"),
        ({"input": "text", "dtype": "int32"}, "want a float"),
        ({"parameters": {"x": np.ones(2)}}, "cannot be written as JSON"),
    ],
)
def test_what_an_extractor_announces_is_checked(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        other(**changed)


def test_names_and_dimensions_that_a_store_has_already_are_refused(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {"mel_frames": other(name="mel_frames"), "bands": other(name="bands", dims=("mel_band",), shape=(64,))}
    monkeypatch.setattr(module, "_built_in", lambda: two)
    with pytest.raises(ConfigError, match="has arrays of that name already"):
        api.extract(songs, store, add="mel_frames", **OPTIONS)
    with pytest.raises(ConfigError, match="'mel_band' is 64 long, the store's 128; .*such as bands_mel_band"):
        api.extract(songs, store, add="bands", **OPTIONS)
    with pytest.raises(ConfigError, match=r"--add brihtness: no extractor .*; did you mean 'brightness'\?; or name a"):
        api.extract(songs, store, add="brihtness", **OPTIONS)


def test_the_command_lists_who_brings_what(call: Any) -> None:
    listed = {one["name"]: one for one in call("extractors", "--json").json["extractors"]}
    assert (listed["pooled_mel"]["from"], listed["pooled_mel"]["shape"]) == ("mgc", [6, 128])
    assert listed["brightness"]["from"] == metadata.distribution("mgc-example-extractor").name
    assert "energy_quantile" in call("extractors").out
