"""The HDF5 form: same features in one file, lossless conversion back, detection of damage."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.worlds.small_store import FAILED_ROW, MEL, N_TRACKS, create, features, fill, tree
from mgc.cache.errors import ConfigError, StoreCorruptError, StoreFormatError, TrackUnavailableError
from mgc.cache.format.plan import read_plan
from mgc.cache.format.tables import plan_table
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.compact import compact
from mgc.cache.upkeep.hdf5_writer import seal_store, unpack_store
from mgc.cache.upkeep.seal import seal_problem
from mgc.cache.writing.creation import append_generation
from mgc.cache.writing.takedowns import drop


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path]:
    """A Zarr store of two generations with a track taken down, and its HDF5 form."""
    folder = tmp_path_factory.mktemp("both")
    store = create(folder / "s.zarr")
    fill(store)
    late = plan_table([{"id": "t99", "path": "99.mp3", "artists": ["b", "c"], "genres": ["soul"], "song": "Näme"}])
    append_generation(
        store, read_plan(store), "append", late, new_genres=["soul"], genre_embedding=np.ones((1, 12), np.float32)
    )
    fill(store, [3])
    drop(store, ["t02"], planned=["t02"])
    with pytest.raises(ConfigError, match="mgc store compact"):
        seal_store(store, folder / "s.h5")
    compact(store)
    seal_store(store, folder / "s.h5")
    return store, folder / "s.h5"


def test_hdf5_form_reads_as_the_zarr_form(both):
    with FeatureStore.open(both[0]) as zarr_form, FeatureStore.open(both[1]) as sealed:
        assert sealed.tracks.equals(zarr_form.tracks)
        assert sealed.recipe == zarr_form.recipe
        assert sealed.fingerprints == zarr_form.fingerprints
        assert sealed.genres == zarr_form.genres == ["jazz", "rock", "soul"]
        assert sealed.counts() == zarr_form.counts()
        np.testing.assert_array_equal(sealed.status, zarr_form.status)
        np.testing.assert_array_equal(sealed.genre_embedding, zarr_form.genre_embedding)
        rows = sealed.ok_rows[::-1]
        for name in features(0):
            assert sealed.read(name, rows).tobytes() == zarr_form.read(name, rows).tobytes()
        np.testing.assert_array_equal(sealed.read("lyrics", [9], length=129), zarr_form.read("lyrics", [9], length=129))
        with pytest.raises(TrackUnavailableError, match="t05"):
            sealed.read("mel", [FAILED_ROW])


def test_plain_h5py_reads_it(both):
    with h5py.File(both[1], "r") as file:
        assert json.loads(file.attrs["recipe"])["mel"]["hop_length"] == MEL.hop_length
        assert [dim.label for dim in file["mel"].dims] == ["track", "mel_band", "frame"]
        assert file["mel"].attrs["units"] == "dB re 1.0"
        assert file["mel"].chunks == (1, 128, MEL.n_frames)
        row = file["tracks/id"][:].tolist().index(b"t09")
        np.testing.assert_array_equal(file["mel"][file["tracks/row"][row]], features(9)["mel"])
        assert json.loads(file["tracks/artists"][-1]) == ["b", "c"]
        assert file["tracks/song"][-1].decode() == "Näme"
        assert file["tracks/song_missing"][:].tolist() == [True] * N_TRACKS + [False]
        assert file["genre_embedding"].shape == (3, 12)


def test_conversion_to_hdf5_and_back_gives_identical_bytes(both, tmp_path):
    unpack_store(both[1], tmp_path / "again.zarr")
    assert tree(tmp_path / "again.zarr") == tree(both[0])
    seal_store(tmp_path / "again.zarr", tmp_path / "again.h5")
    with FeatureStore.open(tmp_path / "again.h5") as again, FeatureStore.open(both[1]) as first:
        assert again.tracks.equals(first.tracks)


def test_any_flipped_byte_is_found(both, tmp_path):
    data = both[1].read_bytes()
    assert seal_problem(both[1]) is None
    places = [0, 100, 300, 511, 512, 600, len(data) // 3, len(data) // 2, len(data) - 1]
    for place in [*places, *np.random.default_rng(0).integers(0, len(data), 50).tolist()]:
        damaged = tmp_path / "damaged.h5"
        damaged.write_bytes(data[:place] + bytes([data[place] ^ 8]) + data[place + 1 :])
        assert seal_problem(damaged) is not None, place
        with pytest.raises(StoreCorruptError):
            unpack_store(damaged, tmp_path / "x.zarr")
        assert not (tmp_path / "x.zarr").exists()
    (tmp_path / "cut.h5").write_bytes(data[:-1])
    assert seal_problem(tmp_path / "cut.h5") is not None


def test_reader_detects_a_flipped_bit_in_a_clip(both, tmp_path):
    data = bytearray(both[1].read_bytes())
    place = data.index(features(7)["mel"].tobytes()[:64])
    data[place + 9] ^= 1
    (tmp_path / "damaged.h5").write_bytes(data)
    with FeatureStore.open(tmp_path / "damaged.h5") as store:
        store.read("mel", [6])
        with pytest.raises(StoreCorruptError, match="mel does not match its checksum"):
            store.read("mel", [7])


def test_conversion_refuses_pending_tracks_and_existing_targets(both, tmp_path):
    pending = create(tmp_path / "s.zarr")
    with pytest.raises(ConfigError, match="10 tracks not extracted yet"):
        seal_store(pending, tmp_path / "s.h5")
    with pytest.raises(ConfigError, match="already exists"):
        seal_store(both[0], both[1])
    with pytest.raises(ConfigError, match="already exists"):
        unpack_store(both[1], both[0])
    assert [file.name for file in tmp_path.iterdir()] == ["s.zarr"]
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(StoreFormatError, match="not an mgc feature store"):
        FeatureStore.open(tmp_path / "x.h5")


def test_several_processes_read_the_hdf5_form_at_once(both):
    script = (
        "import sys, hashlib; from mgc.cache.reading.store import FeatureStore\n"
        "store = FeatureStore.open(sys.argv[1])\n"
        "print(hashlib.sha256(b''.join(store.read('mel', store.ok_rows).tobytes() for _ in range(20))).hexdigest())"
    )
    command = [sys.executable, "-c", script, str(both[1])]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    assert len({reader.communicate(timeout=60)[0] for reader in readers}) == 1
    assert [reader.returncode for reader in readers] == [0] * 4


FULL = """
import resource, sys; from pathlib import Path
from mgc.cache.upkeep.hdf5_writer import seal_store
for limit in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        seal_store(Path(sys.argv[1]), Path(sys.argv[2]))
    except OSError as error:
        print(error.errno)
"""


def test_a_disk_that_fills_up_while_a_store_is_sealed_is_an_error_and_no_crash(both, tmp_path):
    """HDF5 itself ends the process (SIGSEGV) where it cannot write while it closes a file."""
    limits = [str(both[1].stat().st_size * percent // 100) for percent in (1, 20, 50, 80, 97)]
    command = [sys.executable, "-c", FULL, both[0], tmp_path / "full.h5", *limits]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(errno.EFBIG)] * 5
    assert list(tmp_path.iterdir()) == [], "nothing is left"
    seal_store(both[0], tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == both[1].read_bytes()
