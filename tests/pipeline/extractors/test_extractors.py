"""Extractors: entry points, adding them to a store without changing it, and support by all commands."""

from __future__ import annotations

import dataclasses
import json
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
from mgc.cache.errors import ConfigError, RecipeMismatchError, StoreCorruptError, TrackUnavailableError
from mgc.cache.upkeep.failures import failures
from mgc.cache.upkeep.hdf5_writer import convert
from mgc.cache.upkeep.select import select
from mgc.cache.upkeep.verify import verify
from mgc.pipeline.extractors import registry as module
from mgc.pipeline.extractors.extractor import Extractor
from mgc.pipeline.extractors.registry import load_extractor
from mgc.pipeline.sources.manifest import Source, Track

PACKAGE = Path(__file__).parents[3] / "examples" / "extractor"
OPTIONS: dict[str, Any] = {"workers": 0, "clip_s": 1.0}
HZ = (220, 440, 880, 1760, 3520)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(PACKAGE, folder / "source")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "--target",
        folder / "site",
        folder / "source",
    ]
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
def sample(songs: Source, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three added extractors, whose other content has not changed."""
    store = tmp_path_factory.mktemp("made") / "s.zarr"
    api.extract(songs, store, features=("mel", "lyrics"), text_model="minilm", part_rows=2, **OPTIONS)
    before = tree(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(installed))
        for name in ("pooled_mel", "brightness", "word_variety"):
            report = api.extract(songs, store, add=name, **OPTIONS)
            assert (report.planned, report.ok, report.failed, report.parts_built) == (5, 5, 0, 3)
    after = tree(store)
    assert {key for key in before if before[key] != after[key]} == {"zarr.json"}
    return store


@pytest.fixture
def store(sample: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample, tmp_path / "s.zarr"))


def test_values_are_those_that_can_be_worked_out_another_way(sample: Path, songs: Source) -> None:
    view = mgc.open(sample)
    assert verify(sample, full=True) == []
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


def test_plain_tools_see_named_dimensions_units_and_the_recipe(sample: Path) -> None:
    plain = xarray.open_zarr(sample, chunks=None)
    assert plain["pooled_mel"].dims == ("track", "pooled_mel_statistic", "mel_band")
    assert plain["brightness"].attrs["units"] == "Hz"
    assert plain["status_brightness"].values.tolist() == [1, 1, 1, 1, 1, 2]
    recipe = plain.attrs["added"]["brightness"]["recipe"]
    assert recipe["parameters"] == {"quantiles": [0.25, 0.5, 0.75]}
    assert recipe["clip"]["sample_rate_hz"] == 22_050


def test_reading_needs_no_extractor_and_loads_none(sample: Path) -> None:
    script = (
        "import sys, mgc; found = mgc.open(sys.argv[1])['brightness'][:]; "
        "print(found.shape, {'mgc_example_extractor', 'mgc.pipeline.extractors.registry'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, sample], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "(5, 3) set()"


def test_add_again_builds_nothing_and_refuses_another_version(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(store)
    assert api.extract(songs, store, add="brightness", **OPTIONS).parts_built == 0
    assert tree(store) == before
    newer = dataclasses.replace(load_extractor("brightness"), version="2")
    monkeypatch.setattr(module, "BUILT_IN", {"brightness": newer})
    with pytest.raises(RecipeMismatchError, match="version: 1 in the store, 2 in this command"):
        api.extract(songs, store, add="brightness", **OPTIONS)


def test_conversion_and_selection_keep_an_added_feature(store: Path, tmp_path: Path) -> None:
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


def test_appended_tracks_lack_an_added_feature_until_the_next_run(store: Path, songs: Source) -> None:
    late = Source(root=songs.root, tracks=[*songs.tracks, Track(id="z", path="0.wav", genres=("jazz",), lyrics="new")])
    api.extract(late, store, features=("mel", "lyrics"), append=True, **OPTIONS)
    view = mgc.open(store)
    assert view.store.counts("brightness").pending == 1
    with pytest.raises(TrackUnavailableError, match=r"1 of the requested tracks have no 'brightness': z \(not extr"):
        view["brightness"][:]
    assert len(view) == 6
    assert view.sel(feature="brightness")["brightness"].shape == (5, 3)
    assert api.extract(late, store, add="brightness", **OPTIONS).parts_built == 1
    np.testing.assert_allclose(mgc.open(store)["brightness"][5], HZ[0], rtol=0.01)


def test_damage_of_an_added_feature_is_repaired_and_takedowns_are_compacted(store: Path, songs: Source) -> None:
    file = store / "brightness" / "c" / "1" / "0"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (damage,) = verify(store, full=True)
    assert (damage.array, damage.part, damage.tracks) == ("brightness", 1, ("t2", "t3"))
    done = api.store_repair(store, songs)
    assert (done.parts_built, done.pending_added, done.not_built) == (1, {}, {})
    assert verify(store, full=True) == []
    api.store_drop(store, ["t2"])
    api.store_compact(store)
    assert verify(store, full=True) == []
    assert np.isnan(xarray.open_zarr(store, chunks=None)["brightness"][2]).all()


def other(**changed: Any) -> Extractor:
    given = {
        "name": "other",
        "version": "1",
        "input": "clip",
        "dims": (),
        "shape": (),
        "dtype": "float32",
        "unit": "1",
        "description": "of a test",
        "compute": lambda samples, rate: float(samples.max()),
    }
    return Extractor(**{**given, **changed})


def _raises(samples: Any, rate: int) -> float:
    if samples[1] > 0.1:
        raise ZeroDivisionError
    return 1.0


FAULTY = {
    "raises": (_raises, "the extractor raised ZeroDivisionError"),
    "of another shape": (lambda samples, rate: [1.0, 2.0], "values of shape (2,), announced was ()"),
    "not finite": (lambda samples, rate: np.inf, "values that are not finite"),
    "too large": (lambda samples, rate: 1e300, "values that are not finite"),
    "text": (lambda samples, rate: "loud", "values of <U4, announced was float32"),
}


@pytest.mark.parametrize(("compute", "output"), FAULTY.values(), ids=FAULTY.keys())
def test_failing_extractor_fails_only_its_tracks(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch, compute: Any, output: str
) -> None:
    monkeypatch.setattr(module, "BUILT_IN", {"other": other(compute=compute)})
    report = api.extract(songs, store, add="other", **OPTIONS)
    lost = 2 if compute is _raises else 5  # the tones of 1 760 and 3 520 Hz start steeply
    assert (report.planned, report.failed, report.reasons) == (5, lost, {"EXTRACTOR_FAILED": lost})
    with pytest.raises(TrackUnavailableError, match="EXTRACTOR_FAILED"):
        mgc.open(store)["other"][:]
    assert mgc.open(store).store.counts().ok == 5
    listed = [item for item in failures(store, "other").failures if item.reason == "EXTRACTOR_FAILED"]
    assert sum(output in item.detail for item in listed) == len(listed) == lost
    with pytest.raises(ConfigError, match=r"no added feature set 'others'.*\(added: brightness, other"):
        failures(store, "others")


def test_files_that_changed_are_not_mixed_in(store: Path, songs: Source, tmp_path: Path) -> None:
    shutil.copytree(songs.root, tmp_path / "songs")
    shutil.copy(songs.root / "4.wav", tmp_path / "songs" / "0.wav")
    shutil.rmtree(store / "commits" / "brightness")
    again = Source(root=tmp_path / "songs", tracks=songs.tracks)
    assert api.extract(again, store, add="brightness", **OPTIONS).reasons == {"SOURCE_CHANGED": 1}


@pytest.mark.parametrize(
    ("changed", "output"),
    [
        ({"name": "Loud"}, "its name must have"),
        ({"name": "status_x"}, "not be 'status'"),
        ({"shape": (3,)}, "do not match"),
        ({"dtype": "U5"}, "dtype 'U5'; use one of float16, float32, float64, int8, .* uint64$"),
        ({"dtype": ">f4"}, "use one of float16"),
        ({"dtype": "bool"}, "use one of float16"),
        ({"dtype": np.dtype("float32")}, "use one of float16"),
        ({"input": "text", "dtype": "int32"}, "use one of float16, float32, float64; NaN stands for a track without"),
        ({"parameters": {"x": np.ones(2)}}, "cannot be written as JSON"),
    ],
)
def test_extractor_definition_is_validated(changed: dict[str, Any], output: str) -> None:
    with pytest.raises(ConfigError, match=output):
        other(**changed)


def test_names_and_dimensions_that_a_store_has_already_are_refused(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {"mel_frames": other(name="mel_frames"), "bands": other(name="bands", dims=("mel_band",), shape=(64,))}
    monkeypatch.setattr(module, "BUILT_IN", two)
    with pytest.raises(ConfigError, match="has arrays or folders of that name already"):
        api.extract(songs, store, add="mel_frames", **OPTIONS)
    with pytest.raises(ConfigError, match="'mel_band' is 64 long, the store's 128; .*such as bands_mel_band"):
        api.extract(songs, store, add="bands", **OPTIONS)
    with pytest.raises(ConfigError, match=r"--add brihtness: no extractor .*; did you mean 'brightness'\?; or give a"):
        api.extract(songs, store, add="brihtness", **OPTIONS)


def test_command_lists_extractors_with_their_packages(call: Any) -> None:
    listed = {item["name"]: item for item in call("extractors", "--json").json["extractors"]}
    assert (listed["pooled_mel"]["from"], listed["pooled_mel"]["shape"]) == ("mgc-music", [6, 128])
    assert listed["brightness"]["from"] == metadata.distribution("mgc-example-extractor").name
    assert "energy_quantile" in call("extractors").out


def test_whole_numbers_are_kept_exactly_or_fail() -> None:
    narrow = other(dtype="uint8", compute=lambda value, rate: value)
    assert narrow.values(255, 1).dtype == np.uint8
    for value, output in ((256, "uint8 cannot hold"), (-1, "uint8 cannot hold"), (1.5, "values of float64")):
        with pytest.raises(ValueError, match=output):
            narrow.values(value, 1)


def test_removed_extractor_can_be_added_again_with_its_name(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    wrong = other(compute=lambda samples, rate: -1.0)
    right = other(version="2", dims=("other_end",), shape=(2,), dtype="float64", compute=lambda samples, rate: [1, 2])
    monkeypatch.setattr(module, "BUILT_IN", {"other": wrong})
    api.extract(songs, store, add="other", **OPTIONS)
    whole = tree(store)
    monkeypatch.setattr(module, "BUILT_IN", {"other": right})
    with pytest.raises(RecipeMismatchError, match=f"`mgc store drop {store} --feature other` first"):
        api.extract(songs, store, add="other", **OPTIONS)
    progress = call("store", "drop", store, "--feature", "other", "--dry-run", "--json").json
    assert (progress["ok"], progress["made_by"], progress["bytes"] > 0) == (5, "extractor, version 1", True)
    assert "of 5 tracks, " in call("store", "drop", store, "--feature", "other", "--dry-run").out
    assert tree(store) == whole
    done = call("store", "drop", store, "--feature", "other")
    assert (done.code, "Its name can be used again." in done.out) == (0, True)
    assert not any("other" in key for key in tree(store))
    assert call("store", "drop", store, "--feature", "other").code == 2
    assert call("store", "drop", store, "--feature", "other", "t0").code == 2
    assert call("store", "drop", store).code == 2
    assert api.extract(songs, store, add="other", **OPTIONS).ok == 5
    assert mgc.open(store)["other"][:].tolist() == [[1, 2]] * 5
    assert verify(store, full=True) == []
    listed = {item["name"]: item for item in call("store", "info", store, "--json").json["added"]}
    assert listed["other"] == {
        "name": "other",
        "made_by": "extractor, version 2",
        "ok": 5,
        "failed": 0,
        "pending": 0,
    }
    assert "added feature sets" in call("store", "info", store).out


def test_a_dry_run_takes_no_track_down(store: Path, call: Any) -> None:
    before = tree(store)
    assert "1 track would be taken down; nothing was changed" in call("store", "drop", store, "t0", "--dry-run").out
    assert tree(store) == before
    assert "1 track taken down" in call("store", "drop", store, "t0").out


def test_retry_of_an_added_feature_keeps_other_rows(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUILT_IN", {"other": other(compute=_raises)})
    assert api.extract(songs, store, add="other", **OPTIONS).failed == 2
    own = {item.id: item.attempts for item in failures(store).failures}
    assert own == {"x": 1}, "an added feature does not count the store's own failures"
    seen: list[float] = []

    def repaired(samples: Any, rate: int) -> float:
        seen.append(float(samples[1]))
        return 2.0

    monkeypatch.setattr(module, "BUILT_IN", {"other": other(compute=repaired)})
    assert api.extract(songs, store, add="other", **OPTIONS).failed == 2, "only with --retry-failed"
    before = tree(store)
    report = api.extract(songs, store, add="other", retry_failed=True, **OPTIONS)
    assert (report.ok, report.failed, report.parts_built, len(seen)) == (5, 0, 2, 2)
    assert all(value > 0.1 for value in seen), "other rows are not computed again"
    assert mgc.open(store)["other"][:].tolist() == [1, 1, 1, 2, 2]
    assert verify(store, full=True) == []
    changed = {key for key in before if tree(store).get(key) != before[key]}
    assert changed
    assert all(key.split("/")[0] in ("other", "status_other", "rows") for key in changed)
    assert api.extract(songs, store, add="other", retry_failed=True, **OPTIONS).parts_built == 0


def test_a_second_failure_counts_as_one_more_attempt(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUILT_IN", {"other": other(compute=_raises)})
    api.extract(songs, store, add="other", **OPTIONS)
    api.extract(songs, store, add="other", retry_failed=True, **OPTIONS)
    assert {item.id: item.attempts for item in failures(store, "other").failures} == {"t3": 2, "t4": 2, "x": 1}


def test_retry_of_a_damaged_part_raises(store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUILT_IN", {"other": other(compute=_raises)})
    api.extract(songs, store, add="other", **OPTIONS)
    (store / "other" / "c" / "1").unlink()
    with pytest.raises(StoreCorruptError, match="part 1 is damaged. Run `mgc store repair"):
        api.extract(songs, store, add="other", retry_failed=True, **OPTIONS)


def _table_of(songs: Source, path: Path) -> Path:
    lines = [
        {"id": item.id, "path": item.path, "genres": list(item.genres), "lyrics": item.lyrics} for item in songs.tracks
    ]
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    return path


def test_failure_limit_of_an_added_feature_counts_its_own_failures(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch, call: Any, tmp_path: Path
) -> None:
    table = _table_of(songs, tmp_path / "songs.jsonl")
    options = (table, "--root", songs.root, "-o", store, "--workers", 0, "--max-failures", 0, "--add", "other")
    monkeypatch.setattr(module, "BUILT_IN", {"other": other()})
    fine = call("extract", *options)
    assert (fine.code, "planned 5 = ok 5 + failed 0" in fine.out, "flag" in fine.out) == (0, True, False)
    call("store", "drop", store, "--feature", "other")
    monkeypatch.setattr(module, "BUILT_IN", {"other": other(compute=_raises)})
    bad = call("extract", *options)
    assert (bad.code, "2 of 5 tracks failed" in bad.err) == (3, True)


def test_pending_tracks_are_reported_with_a_command(
    store: Path, songs: Source, monkeypatch: pytest.MonkeyPatch, call: Any, tmp_path: Path
) -> None:
    table = _table_of(songs, tmp_path / "songs.jsonl")
    (store / "brightness" / "c" / "1" / "0").write_bytes(b"")
    damaged = call("store", "repair", store)
    assert (damaged.code, "2 tracks pending in feature set brightness" in damaged.out) == (0, True)
    advice = damaged.out.splitlines()[-1].partition(": ")[2]
    command = advice.replace("SOURCE", str(table)).removeprefix("mgc ").split()
    gone = [*command, "--root", songs.root]
    with monkeypatch.context() as patch:
        patch.setattr("mgc.pipeline.extraction.added_builders.load_extractor", _not_installed)
        refused = call(*gone)
    assert "feature set brightness cannot be extracted: no extractor 'brightness' is installed" in refused.out
    assert "Fix this, then repeat the command." in refused.out
    repaired = call(*gone)
    assert (repaired.code, "no damage found; 1 pending part extracted" in repaired.out) == (0, True)
    assert "nothing to repair" in call(*gone).out
    assert verify(store, full=True) == []


def _not_installed(name: str) -> Extractor:
    raise ConfigError(f"no extractor {name!r} is installed")


def test_extractor_that_cannot_be_loaded_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    about = tmp_path / "broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mgc.extractors]\nzither = no_such_module:ZITHER\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    progress = call("extractors", "--json")
    assert progress.code == 2
    assert {"brightness", "pooled_mel"} <= {item["name"] for item in progress.json["extractors"]}
    (bad,) = progress.json["broken"]
    assert (bad["name"], bad["from"]) == ("zither", "broken")
    assert "ModuleNotFoundError: No module named 'no_such_module'" in bad["error"]
    shown = call("extractors")
    assert (shown.code, "pooled_mel" in shown.out) == (2, True)
    assert "extractor 'zither' (no_such_module:ZITHER) cannot be loaded" in shown.err
