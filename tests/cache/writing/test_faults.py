"""A store killed, or its disk failing, at any operation of its life is old or new, and ends up the same."""

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
    return tree(folder / "s.zarr"), len(watch.operations)


@pytest.mark.parametrize(("fault", "first"), [("kill", 0), ("EIO", 30), ("ENOSPC", 60)])
def test_a_fault_at_every_hundred_and_first_operation(tmp_path, clean, fault, first):
    """`make campaign` takes every operation."""
    expected, n_operations = clean
    assert n_operations > 200
    for at in range(first, n_operations, 101):
        check_fault(tmp_path, fault, at, expected)
        shutil.rmtree(tmp_path / "s.zarr")
