"""File systems without hard links: said before any work, with a way on."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
import soundfile

from benchmarks.worlds.full_store import create_full
from benchmarks.worlds.small_store import create, fill, tree
from mgc import api
from mgc.cache.durable import refuse_without_links
from mgc.cache.errors import ConfigError
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.compact import compact
from mgc.cache.upkeep.hdf5_writer import convert
from mgc.cache.upkeep.verify import verify
from mgc.cache.writing.takedowns import drop


@pytest.fixture(params=["EPERM", "ENOTSUP", "ENOSYS"])
def without_links(request, monkeypatch):
    """As exFAT, SMB and FUSE mounts answer link(2)."""

    def no_link(source, target, **options):
        number = getattr(errno, request.param)
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    return lambda: monkeypatch.setattr(os, "link", no_link)


def test_extraction_is_refused_before_any_work(tmp_path, without_links):
    soundfile.write(tmp_path / "a.wav", np.zeros(22_050, np.float32), 22_050)
    source = api.read_source(tmp_path).source
    without_links()
    with pytest.raises(
        ConfigError, match=r"has no hard links .* work on another disk, and copy the finished store here"
    ):
        api.extract(source, tmp_path / "deep" / "er" / "s.zarr", features=("mel",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav"]


def test_a_store_that_was_copied_there_is_read_verified_and_converted(tmp_path, without_links):
    whole = create_full(tmp_path / "whole.zarr")
    without_links()
    with FeatureStore.open(whole) as store:
        assert len(store.ok_rows)
    assert verify(whole, full=True) == []
    convert(whole, tmp_path / "s.h5")
    convert(tmp_path / "s.h5", tmp_path / "back.zarr")
    assert tree(tmp_path / "back.zarr") == {key: data for key, data in tree(whole).items() if "quarantine" not in key}
    with pytest.raises(ConfigError, match="there is something already"):
        convert(whole, tmp_path / "s.h5")


def test_writing_into_it_says_why_not_and_changes_nothing(tmp_path, without_links):
    store = create(tmp_path / "s.zarr")
    fill(store)
    drop(store, ["t02"], planned=["t02"])
    before = tree(store)
    without_links()
    for command in (lambda: drop(store, ["t03"], planned=["t03"]), lambda: compact(store)):
        with pytest.raises(ConfigError, match="has no hard links"):
            command()
        assert tree(store) == before


def test_where_there_are_links_nothing_is_left_of_the_trial(tmp_path):
    refuse_without_links(tmp_path / "not" / "there")
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(tmp_path)
    refuse_without_links(tmp_path)
