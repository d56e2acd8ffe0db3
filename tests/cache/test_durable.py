"""File systems without hard links are refused before any work, with a remedy."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.worlds.full_store import create_full
from benchmarks.worlds.small_store import create, fill, tree
from mgc import api
from mgc.cache.durable import link, refuse_without_links
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
        ConfigError, match=r"has no hard links .* Work on another disk, and copy the finished store here"
    ):
        api.extract(source, tmp_path / "deep" / "er" / "s.zarr", features=("mel",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav"]


def test_store_on_a_file_system_without_links_is_read_and_verified(tmp_path, without_links):
    whole = create_full(tmp_path / "whole.zarr")
    without_links()
    with FeatureStore.open(whole) as store:
        assert len(store.ok_rows)
    assert verify(whole, full=True) == []
    convert(whole, tmp_path / "s.h5")
    convert(tmp_path / "s.h5", tmp_path / "back.zarr")
    assert tree(tmp_path / "back.zarr") == {key: data for key, data in tree(whole).items() if "quarantine" not in key}
    with pytest.raises(ConfigError, match="already exists"):
        convert(whole, tmp_path / "s.h5")


def test_extract_into_hdf5_store_is_refused(tmp_path, without_links):
    store = create(tmp_path / "s.zarr")
    fill(store)
    drop(store, ["t02"], planned=["t02"])
    before = tree(store)
    without_links()
    for command in (lambda: drop(store, ["t03"], planned=["t03"]), lambda: compact(store)):
        with pytest.raises(ConfigError, match="has no hard links"):
            command()
        assert tree(store) == before


def test_link_check_leaves_no_files(tmp_path):
    refuse_without_links(tmp_path / "not" / "there")
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(tmp_path)
    refuse_without_links(tmp_path)


def test_refused_hard_link_reports_the_cause(tmp_path, monkeypatch):
    """As Linux refuses a link to another user's file (fs.protected_hardlinks)."""
    theirs, own_link = tmp_path / "theirs", os.link
    theirs.touch()

    def protected(source, target, **options):
        if source == theirs:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))
        own_link(source, target, **options)

    monkeypatch.setattr(os, "link", protected)
    with pytest.raises(ConfigError, match=r"theirs: the kernel refuses .* fs\.protected_hardlinks") as error:
        link(theirs, tmp_path / "second")
    assert "no hard links" not in str(error.value)
    assert list(tmp_path.iterdir()) == [theirs]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two users")
def test_file_of_another_user_is_reported(tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "theirs").touch(mode=0o644)
    script = (
        "import os, sys; from pathlib import Path; from mgc.cache.durable import link\n"
        "os.setuid(12345); os.chdir(sys.argv[1]); link(Path('theirs'), Path('second'))"
    )
    code = [sys.executable, "-c", script, tmp_path]
    lock = Path("/proc/sys/fs/protected_hardlinks")
    if not lock.exists() or lock.read_text() != "1\n":
        pytest.skip("this kernel lets users link files of others")
    for parent in tmp_path.parents[:3]:  # a worker of pytest-xdist has a folder of its own
        parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert "fs.protected_hardlinks" in done.stderr.splitlines()[-1]
