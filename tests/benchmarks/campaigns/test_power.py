"""Test power cuts on a disk that logs its writes; `make campaign` runs hundreds."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from benchmarks.campaigns import disk, power


@pytest.fixture
def logged_disk(tmp_path):
    """Yield the initial image of an ext4 disk, and the disk, mounted with a log of its writes."""
    if missing := disk.missing():
        pytest.skip(missing)
    (tmp_path / "content").mkdir()
    disk.make_image(tmp_path / "before.img", "ext4", tmp_path / "content")
    disk.copy_image(tmp_path / "before.img", tmp_path / "now.img")
    with disk.logged(tmp_path / "now.img", tmp_path / "now", "defaults") as now:
        yield tmp_path / "before.img", now


def test_power_cut_keeps_fsynced_files_only(logged_disk, tmp_path):
    before, now = logged_disk
    (now.folder / "new").write_bytes(b"a" * 10_000)
    positions = [now.position()]
    for path in (now.folder / "new", now.folder):
        disk_file = os.open(path, os.O_RDONLY)
        os.fsync(disk_file)
        os.close(disk_file)
        positions.append(now.position())
    (now.folder / "late").write_bytes(b"b" * 10_000)
    writes, ends = disk.read_log(now.log)
    sizes = []
    for position in positions:
        disk.copy_image(before, tmp_path / "cut.img")
        disk.cut(tmp_path / "cut.img", writes[: ends.index(position) + 1], 1.0, random.Random(0))
        with disk.mounted(tmp_path / "cut.img", tmp_path / "cut", "defaults") as cut:
            sizes.append({path.name: path.stat().st_size for path in cut.iterdir() if path.is_file()})
    assert sizes == [{}, {"new": 10_000}, {"new": 10_000}]


def test_power_cut_loses_blocks_since_the_last_flush_only(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(8 * disk.BLOCK))
    kept, lost = (disk.Write(i * disk.BLOCK, bytes([i + 1]) * 2 * disk.BLOCK) for i in (0, 4))
    assert disk.cut(image, [kept, disk.Write(0, None), lost], 1.0, random.Random(0)) == 2
    assert image.read_bytes() == b"\1" * 2 * disk.BLOCK + bytes(6 * disk.BLOCK)
    assert disk.cut(image, [lost], 0.0, random.Random(0)) == 0
    assert image.read_bytes()[4 * disk.BLOCK :][: 2 * disk.BLOCK] == b"\5" * 2 * disk.BLOCK


@pytest.mark.parametrize("name", ["extract", "manifest"])
def test_power_cuts_lose_nothing_that_was_reported(tmp_path, name):
    if missing := disk.missing():
        pytest.skip(missing)
    assert power.cut(0, tmp_path, n_cuts=3, names=(name,))["cuts"] == 3
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line]
