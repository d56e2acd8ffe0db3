"""Exports as their readers see them, for the readers that are installed (extra ``interop``)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exported
import numpy as np
import pytest

from mgc import api
from mgc.cache.reading.view import StoreView, open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.write_store(tmp_path_factory.mktemp("peers") / "s.zarr")


@pytest.fixture(scope="module")
def view(store: Path) -> Iterator[StoreView]:
    with open_store(store) as view:
        yield view


@pytest.fixture(scope="module")
def expected(view: StoreView) -> dict[str, dict[str, Any]]:
    return dict(zip(view.tracks.column("id").to_pylist(), exported.expected(view), strict=True))


@pytest.fixture(scope="module")
def genres(view: StoreView) -> dict[str, list[str]]:
    return dict(zip(view.tracks.column("id").to_pylist(), view.tracks.column("genres").to_pylist(), strict=True))


@pytest.fixture(scope="module")
def parquet(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet") / "out"
    api.store_export(store, folder, "parquet")
    return folder


def peer(name: str) -> Any:
    """Import a peer, whose own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: pip install 'mgc-music[interop]'")


def assert_values(actual: Any, wanted: Any, dtype: str | None = None) -> None:
    """Compare bit for bit; `dtype` is that of a reader that changes it without changing a value."""
    if wanted is None:
        assert actual is None
        return
    wanted = np.asarray(wanted)
    if dtype is not None:
        assert np.asarray(actual).dtype == np.dtype(dtype)
    exported.assert_same(np.asarray(actual, wanted.dtype).reshape(wanted.shape), wanted)


def test_pandas_reads_the_values_of_the_store(parquet: Path, expected: Any, genres: Any) -> None:
    pandas = peer("pandas")
    frame = pandas.concat(pandas.read_parquet(path) for path in sorted(parquet.glob("data/*.parquet")))
    assert sorted(frame["id"]) == sorted(expected)
    for row in frame.to_dict("records"):
        assert list(row["genres"]) == genres[row["id"]]
        for name, wanted in expected[row["id"]].items():
            if wanted is None:
                assert row[name] is None or np.isnan(row[name])
            elif np.ndim(wanted) > 1:
                assert_values(
                    np.stack([np.stack(list(x)) if x.dtype == object else x for x in row[name]])
                    if len(row[name])
                    else [],
                    wanted,
                )
            else:
                assert_values(row[name], wanted)


def test_polars_reads_the_values_of_the_store(parquet: Path, expected: Any, genres: Any) -> None:
    polars = peer("polars")
    frame = polars.read_parquet(parquet / "data" / "*.parquet")
    assert str(frame.schema["mel"]) == "Array(Float16, shape=(128, 44))"
    ids = frame["id"].to_list()
    assert sorted(ids) == sorted(expected)
    assert dict(zip(ids, frame["genres"].to_list(), strict=True)) == genres
    for name in expected[ids[0]]:
        for i, value in zip(ids, frame[name], strict=True):
            value = value.to_numpy() if isinstance(value, polars.Series) else value
            assert_values(value, expected[i][name])


def test_duckdb_reads_the_values_of_the_store_with_float16_as_float(parquet: Path, expected: Any, genres: Any) -> None:
    duckdb = peer("duckdb")
    relation = duckdb.sql(f"select * from '{parquet}/data/*.parquet'")
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    assert types["mel"] == "FLOAT[][]"
    for values in relation.fetchall():
        row = dict(zip(relation.columns, values, strict=True))
        assert row["genres"] == genres[row["id"]]
        for name, wanted in expected[row["id"]].items():
            assert_values(row[name], wanted)


def test_datasets_reads_splits_and_values(
    parquet: Path, view: StoreView, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = peer("datasets")
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        splits = datasets.load_dataset(str(parquet), cache_dir=str(tmp_path))
    assert set(splits) == {"train", "validation", "test", "unsplit"}
    own = dict(zip(view.tracks.column("id").to_pylist(), view.tracks.column("split").to_pylist(), strict=True))
    n = 0
    for split, rows in splits.items():
        for row in rows.with_format("arrow"):
            row = row.to_pylist()[0]
            n += 1
            assert (own[row["id"]] or "unsplit") == split
            for name, wanted in expected[row["id"]].items():
                assert_values(row[name], wanted)
    assert n == len(own)


def test_mlcroissant_accepts_the_metadata_and_reads_the_records(parquet: Path, expected: Any) -> None:
    croissant = peer("mlcroissant")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = croissant.Dataset(str(parquet / "croissant.json"))
        assert not data.metadata.ctx.issues.errors
        records = list(data.records("train"))
    assert records
    for record in records:
        name = record["train/id"]
        wanted = expected[name.decode() if isinstance(name, bytes) else name]
        assert_values(record["train/lyrics_pooled"], wanted["lyrics_pooled"])


def test_lhotse_reads_cuts_with_features_and_arrays(
    store: Path, expected: Any, genres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lhotse = peer("lhotse")
    api.store_export(store, tmp_path / "out", "lhotse")
    monkeypatch.chdir(tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lhotse.qa import validate

        n = 0
        for path in sorted(Path().glob("cuts_*.jsonl.gz")):
            for cut in lhotse.CutSet.from_file(path):
                validate(cut)
                n += 1
                wanted = dict(expected[cut.id])
                mel = wanted.pop("mel")[:, : wanted["mel_frames"]].T
                exported.assert_same(cut.features.load(), mel)
                exported.assert_same(cut.load_features(), mel)
                assert cut.supervisions[0].custom["genres"] == genres[cut.id]
                for name, values in wanted.items():
                    if values is None:
                        assert name not in cut.custom
                    elif np.ndim(values):
                        exported.assert_same(cut.load_custom(name), values)
                    else:
                        assert_values(cut.custom[name], values)
        assert n == len(expected)
        manifests = [
            kind.from_file(f"{name}.jsonl.gz")
            for name, kind in (
                ("recordings", lhotse.RecordingSet),
                ("supervisions", lhotse.SupervisionSet),
                ("features", lhotse.FeatureSet),
            )
        ]
        cuts = lhotse.CutSet.from_manifests(
            recordings=manifests[0].to_eager(), supervisions=manifests[1].to_eager(), features=manifests[2].to_eager()
        )
        assert {cut.supervisions[0].recording_id for cut in cuts} == set(expected)


def test_webdataset_reads_every_sample(store: Path, expected: Any, genres: Any, tmp_path: Path) -> None:
    webdataset = peer("webdataset")
    api.store_export(store, tmp_path / "out", "webdataset")
    shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode())
    assert len(samples) == len(expected)
    for sample in samples:
        track = sample["json"]
        assert track["genres"] == genres[track["id"]]
        for name, values in expected[track["id"]].items():
            if values is None:
                assert f"{name}.npy" not in sample
            else:
                exported.assert_same(sample[f"{name}.npy"], values)
