"""An independent reader, written from docs/store.md alone, with zarr, pyarrow and h5py, without mgc."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

GOLDEN = Path(__file__).parents[1] / "golden"


def unsealed(file: Path) -> dict:
    document = json.loads(file.read_text(encoding="utf-8"))
    seal = document.pop("sha256")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == seal, file
    return document


def hash_of(document: dict) -> str:
    return hashlib.sha256(
        json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def read_store(path: Path) -> tuple[dict[str, dict], zarr.Group]:
    """Track id -> its line of both tables, for tracks that have features."""
    assert unsealed(path / "plan.json")["format_version"] == 1
    group = zarr.open_group(path, mode="r")
    tracks: dict[str, dict] = {}
    g = 0
    while (path / "generations" / f"{g}.json").exists():
        for line in pq.read_table(path / "tracks" / f"{g}.parquet").to_pylist():
            tracks[line["id"]] = line
        g += 1
    for file in sorted(path.glob("drops/*.json")):
        for name in unsealed(file)["ids"]:
            tracks.pop(name, None)
    status = group["status"][:]
    result = {name: line for name, line in tracks.items() if status[line["row"]] == 1}
    for name, line in result.items():
        part = line["row"] // group.attrs["part_rows"]
        (outcome,) = pq.read_table(path / "rows" / f"{part}.parquet", filters=[("row", "=", line["row"])]).to_pylist()
        result[name] = line | outcome
    return result, group


def check_records(path: Path) -> int:
    """Every object against the valid record; returns how many."""
    plan, checked, previous, generations = unsealed(path / "plan.json"), 0, None, []
    for g in range(len(list((path / "generations").iterdir()))):
        document = unsealed(path / "generations" / f"{g}.json")
        assert (document["plan"], document["previous"]) == (hash_of(plan), previous)
        previous = hash_of(document)
        generations.append(document)
    newest: dict[int, tuple[int, dict]] = {}
    for file in (path / "commits").iterdir():
        document = unsealed(file)
        newest[document["part"]] = max(
            newest.get(document["part"], (-1, {})), (document["n"], document), key=lambda pair: pair[0]
        )
    for document in [*generations, *(record for _, record in newest.values())]:
        assert document["digest"] == hash_of(document["objects"])
        for item in document["objects"]:
            data = (path / item["key"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (item["size"], item["sha256"])
            checked += 1
    return checked


def test_independent_reader_reads_the_golden_store():
    """`benchmarks/worlds/golden.py` wrote it with the first release of format 1; it is never made again."""
    document = json.loads((GOLDEN / "expected.json").read_text())
    result, group = read_store(GOLDEN / "golden.zarr")
    assert check_records(GOLDEN / "golden.zarr") > 20
    assert sorted(result) == sorted(document)
    for name, expected in document.items():
        row = result[name]["row"]
        mel, tokens = group["mel"][row], int(group["lyrics_tokens"][row])
        assert hashlib.sha256(mel.tobytes()).hexdigest() == expected["mel_sha256"]
        assert tokens == expected["tokens"]
        states = group["lyrics"][row]
        assert hashlib.sha256(states.tobytes()).hexdigest() == expected["lyrics_sha256"]
        assert not states[tokens:].any()
        assert result[name]["genres"] == expected["genres"]


def test_independent_reader_reads_the_golden_hdf5_file():
    document = json.loads((GOLDEN / "expected.json").read_text())
    data = (GOLDEN / "golden.h5").read_bytes()
    seal = json.loads(data[:512].rstrip(b"\0"))
    assert (seal["bytes"], seal["sha256"]) == (len(data), hashlib.sha256(data[512:]).hexdigest())
    with h5py.File(GOLDEN / "golden.h5") as file:
        columns = (file[f"tracks/{name}"][:].tolist() for name in ("id", "row", "status"))
        rows = {name.decode(): row for name, row, status in zip(*columns, strict=True) if status == 1}
        assert sorted(rows) == sorted(document)
        for name, row in rows.items():
            assert hashlib.sha256(file["mel"][row].tobytes()).hexdigest() == document[name]["mel_sha256"]


@pytest.mark.parametrize("form", ["golden.zarr", "golden.h5"])
def test_mgc_reads_the_golden_store(form):
    from mgc.cache.reading.store import FeatureStore

    document = json.loads((GOLDEN / "expected.json").read_text())
    with FeatureStore.open(GOLDEN / form) as store:
        ids = np.asarray(store.tracks.column("id"))[store.newest]
        rows = np.asarray(store.tracks.column("row"))[store.newest]
        ok = {name: row for name, row in zip(ids.tolist(), rows.tolist(), strict=True) if store.status[row] == 1}
        assert sorted(ok) == sorted(document)
        for name, row in ok.items():
            assert hashlib.sha256(store.read("mel", [row])[0].tobytes()).hexdigest() == document[name]["mel_sha256"]


def test_the_golden_store_is_as_recorded_though_later_versions_have_more_flags(tmp_path):
    from mgc.cache.format.schema import FIRST_FLAGS, Flag
    from mgc.cache.upkeep.verify import verify

    store = Path(shutil.copytree(GOLDEN / "golden.zarr", tmp_path / "s.zarr"))
    assert len(json.loads((store / "zarr.json").read_text())["attributes"]["flag_bits"]) == FIRST_FLAGS < len(Flag)
    assert verify(store, full=True) == []
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["flag_bits"].popitem()
    (store / "zarr.json").write_text(json.dumps(document))
    assert [damage.key for damage in verify(store)] == ["zarr.json"]
