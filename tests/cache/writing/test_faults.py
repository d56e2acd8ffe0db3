"""A kill or a disk error at any operation leaves the old or the new state, and a later run completes it."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.campaigns.faults import check_fault, faults, life
from benchmarks.worlds.small_store import tree


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    with faults(folder) as watch:
        life(folder / "s.zarr")
    return tree(folder / "s.zarr"), watch.operations


@pytest.mark.parametrize(("fault", "first"), [("kill", 0), ("EIO", 30), ("ENOSPC", 60)])
def test_a_fault_at_every_hundred_and_first_operation(tmp_path, clean, fault, first):
    """`make campaign` takes every operation."""
    expected, operations = clean
    assert len(operations) > 200
    for at in range(first, len(operations), 101):
        check_fault(tmp_path, fault, at, expected)
        shutil.rmtree(tmp_path / "s.zarr")


def test_a_kill_right_after_a_record_or_a_probe_is_linked(tmp_path, clean):
    """Another process then makes the record durable, as a power cut could remove it, and sweeps the staging."""
    expected, operations = clean
    links = [i for i, name in enumerate(operations) if name == "os.link"]
    for at in [i + 1 for i in links if operations[i - 1] == "fsync" or operations[i + 1] == "os.remove"]:
        check_fault(tmp_path, "kill", at, expected)
        shutil.rmtree(tmp_path / "s.zarr")
