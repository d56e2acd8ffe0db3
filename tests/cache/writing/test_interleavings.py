"""Commands during a suspended writer leave a valid store, or the writer fails with a clear error."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from benchmarks.campaigns import interleavings
from benchmarks.campaigns.faults import faults
from benchmarks.worlds.full_store import content
from benchmarks.worlds.small_store import append_late_track, create, fill
from mgc.cache.claims import STALE_S, file_system_time
from mgc.cache.durable import seal, unseal
from mgc.cache.errors import ConfigError, StoreError
from mgc.cache.format.plan import read_plan
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.verify import verify
from mgc.cache.writing import publish
from mgc.cache.writing.commits import commit_part


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return interleavings.create_half(tmp_path_factory.mktemp("half") / "s.zarr")


@pytest.mark.parametrize("writer", [*interleavings.WRITERS, interleavings.repair], ids=lambda command: command.__name__)
def test_other_commands_during_a_suspended_writer_do_no_harm(half, tmp_path, writer):
    """`make campaign` suspends it at every operation; this test at one operation per command."""
    n, others = interleavings.n_operations(half, tmp_path, writer), interleavings.OTHERS
    for i, other in enumerate(others):
        interleavings.interleave(half, tmp_path, writer, other, (2 * i + 1) * n // (2 * len(others)))


def test_a_part_whose_staging_is_gone_is_not_committed(half, tmp_path):
    """At no operation of a commit can its staging be emptied by hand, or by another release, and the part committed."""
    plan = read_plan(half)
    arrays, outcomes = content(half, plan, 1, None)

    def commit(path):
        commit_part(path, 1, arrays, outcomes, plan=plan)

    path = shutil.copytree(half, tmp_path / "clean.zarr")
    with faults(path) as watch:
        commit(path)
    whole = {item["key"] for item in unseal(path / "commits/1.json")["objects"]}
    for at in range(0, len(watch.operations), 3):
        path = shutil.copytree(half, tmp_path / f"{at}.zarr")

        def empty(path=path):
            for folder in (path / "staging").glob("*/mel"):
                shutil.rmtree(folder)

        errors = []
        with faults(path, empty, at):
            try:
                commit(path)
            except StoreError as error:
                errors.append(str(error))
        assert all("Run the same command again" in error for error in errors)
        assert not errors or not (path / "commits/1.json").exists()
        commit(path)
        assert {item["key"] for item in unseal(path / "commits/1.json")["objects"]} == whole


def test_verify_reports_a_record_that_lists_too_few_objects(half, tmp_path):
    """Releases before 0.2 could commit such a record, if an extraction was suspended during `store compact`."""
    path = shutil.copytree(half, tmp_path / "s.zarr")
    interleavings.extract(path)
    record = unseal(path / "commits/1.json")
    for key in ("mel/c/1/0/0", "mel_frames/c/1", "status/c/1", "flags/c/1"):
        without = [item for item in record["objects"] if item["key"] != key]
        assert len(without) < len(record["objects"])
        document = publish.with_objects({k: v for k, v in record.items() if k != "objects"}, without)
        (path / "commits/1.json").write_bytes(seal(document))
        result = [damage for damage in verify(path) if damage.kind == "missing"]
        assert [(damage.key, damage.part, damage.tracks) for damage in result] == [(key, 1, ("t04", "t05"))]


def test_age_of_a_claim_uses_the_clock_of_its_file_system(half, tmp_path, monkeypatch):
    """A machine whose clock is hours ahead does not treat a new claim as stale."""
    path = shutil.copytree(half, tmp_path / "s.zarr")
    (path / "staging").mkdir(exist_ok=True)
    claim = path / "staging" / "commits+1~claim"
    claim.write_text(json.dumps({"host": "other", "pid": 1, "id": "x"}))
    monkeypatch.setattr("time.time", lambda: claim.stat().st_mtime + 10 * STALE_S)
    with pytest.raises(ConfigError, match="an extraction is running"):
        publish.refuse_busy(path)
    old = file_system_time(path) - 2 * STALE_S
    os.utime(claim, (old, old))
    publish.refuse_busy(path)


def test_genres_that_another_process_has_appended_meanwhile_are_refused(tmp_path):
    """A process that derived its new genres from an older plan would plan them twice."""
    path = create(tmp_path / "s.zarr")
    append_late_track(path)
    with pytest.raises(ConfigError, match="has just added the genres soul.*Run the same command again"):
        append_late_track(path)
    assert len(read_plan(path).generations) == 2
    fill(path, range(4))
    with FeatureStore.open(path) as store:
        assert store.genres == ["jazz", "rock", "soul"]
