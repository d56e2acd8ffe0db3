"""Protocol of readers: the Zarr form, mapped or through zarr, and the HDF5 form give the same store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.worlds.full_store import OTHER, TEMPO, create_full, fill_pending
from benchmarks.worlds.small_store import FAILED_ROW, GENRES, N_TRACKS, PART_ROWS, RECIPE, create, features, fill
from mgc.cache.errors import ConfigError, StoreError, TrackUnavailableError
from mgc.cache.format.layout import library_versions
from mgc.cache.format.plan import read_plan
from mgc.cache.format.schema import ABSENT, FAILED, OK, ArraySpec, added_arrays, track_arrays
from mgc.cache.format.tables import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, PLAN_SCHEMA, plan_table
from mgc.cache.reading.hdf5_reader import Hdf5Reader
from mgc.cache.reading.reader import StoreReader
from mgc.cache.reading.store import FeatureStore
from mgc.cache.reading.zarr_reader import ZarrReader
from mgc.cache.upkeep.hdf5_writer import seal_store
from mgc.cache.writing.commits import commit_part
from mgc.cache.writing.creation import append_generation

LATE_ROW, RETRY_ROW, DROPPED_ROW = 12, 16, 2
"""The second generation has one track in the fourth part, the third generation one in the fifth."""
N_ROWS = 5 * PART_ROWS
OK_ROWS = [row for row in range(N_TRACKS) if row not in (FAILED_ROW, DROPPED_ROW)] + [LATE_ROW, RETRY_ROW]

FORMS: dict[str, Callable[[Path], StoreReader]] = {
    "mapped": lambda folder: ZarrReader(folder / "s.zarr", mapped=True),
    "zarr": lambda folder: ZarrReader(folder / "s.zarr", mapped=False),
    "hdf5": lambda folder: Hdf5Reader(folder / "s.h5"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``s.zarr`` and ``s.h5``: three generations, two added feature sets, a failed, a dropped and a retried track."""
    path = create_full(tmp_path_factory.mktemp("contract") / "s.zarr")
    retry = plan_table([{"id": "t05", "path": "5.mp3", "artists": ["a"], "genres": ["rock"]}])
    append_generation(path, read_plan(path), "retry", retry)
    lost = {"row": RETRY_ROW, "status": FAILED, "reason": "EXTRACTOR_FAILED", "detail": "no beat"}
    arrays = {"status_tempo": np.full(1, FAILED, np.uint8), "tempo": np.full((1, *TEMPO.shape), np.nan, np.float32)}
    commit_part(path, 4, arrays, pa.Table.from_pylist([lost], schema=ADDED_OUTCOME_SCHEMA), feature_set="tempo")
    fill_pending(path)
    seal_store(path, path.with_suffix(".h5"))
    return path.parent


@pytest.fixture(params=FORMS)
def reader(request: pytest.FixtureRequest, folder: Path) -> Iterator[StoreReader]:
    opened = FORMS[request.param](folder)
    yield opened
    opened.close()


@pytest.fixture(params=FORMS)
def store(request: pytest.FixtureRequest, folder: Path) -> Iterator[FeatureStore]:
    """The public reader over each form."""
    path = folder / ("s.h5" if request.param == "hdf5" else "s.zarr")
    with FeatureStore.open(path, mapped=request.param == "mapped") as opened:
        yield opened


def spec_of(name: str) -> ArraySpec:
    specs = [*track_arrays(RECIPE), *added_arrays("other", OTHER), *added_arrays("tempo", TEMPO)]
    return next(spec for spec in specs if spec.name == name)


def rows_of(reader: StoreReader, name: str, rows: list[int], length: int | None = None) -> np.ndarray:
    spec = spec_of(name)
    tail = spec.tail if length is None else (length, *spec.tail[1:])
    out = np.zeros((len(rows), *tail), spec.dtype)
    reader.read_into(spec, out, np.asarray(rows))
    return out


def test_attributes_describe_the_store(reader: StoreReader) -> None:
    assert reader.recipe == RECIPE
    assert reader.fingerprints == RECIPE.fingerprints()
    assert reader.library_versions == library_versions()
    assert (reader.part_rows, reader.n_rows) == (PART_ROWS, N_ROWS)
    assert reader.embeds_genres is True
    assert reader.genres == [*GENRES, "soul"]
    assert reader.added == {"other": OTHER, "tempo": TEMPO}


def test_tracks_have_plan_and_outcomes_in_array_row_order(reader: StoreReader) -> None:
    assert reader.tracks.schema.equals(pa.schema([*PLAN_SCHEMA, *list(OUTCOME_SCHEMA)[1:]]))
    assert reader.tracks.column("row").to_pylist() == [*range(N_TRACKS), LATE_ROW, RETRY_ROW]
    by_row = {track["row"]: track for track in reader.tracks.to_pylist()}
    assert [row for row, track in by_row.items() if track["status"] == OK] == OK_ROWS
    assert (by_row[0]["id"], by_row[0]["artists"], by_row[0]["seconds"]) == ("t00", ["a"], 0.5)
    assert by_row[LATE_ROW]["genres"] == ["soul"]


def test_failed_dropped_and_retried_tracks_keep_their_outcomes(reader: StoreReader) -> None:
    outcomes = {
        track["row"]: (track["id"], track["status"], track["reason"], track["detail"])
        for track in reader.tracks.to_pylist()
    }
    assert outcomes[FAILED_ROW] == ("t05", FAILED, "EMPTY", "no samples")
    assert outcomes[RETRY_ROW] == ("t05", OK, None, None)
    assert outcomes[DROPPED_ROW] == ("t02", FAILED, "DROPPED", None)


def test_sharded_arrays_are_read_in_any_order_and_cut_to_a_length(reader: StoreReader) -> None:
    rows = [9, LATE_ROW, 0, 9, RETRY_ROW]
    for name in ("mel", "lyrics"):
        expected = np.stack([features(row)[name] for row in rows])
        np.testing.assert_array_equal(rows_of(reader, name, rows), expected, strict=True)
    for length in (1, 127, 300):
        expected = np.stack([features(row)["lyrics"][:length] for row in rows])
        np.testing.assert_array_equal(rows_of(reader, "lyrics", rows, length), expected, strict=True)
    assert rows_of(reader, "mel", []).shape == (0, *spec_of("mel").tail)


def test_small_arrays_are_read_whole(reader: StoreReader) -> None:
    for name in ("lyrics_tokens", "lyrics_pooled", "flags", "mel_frames"):
        values = reader.column(spec_of(name), np.asarray(OK_ROWS))
        assert values.shape == (N_ROWS, *spec_of(name).tail)
        np.testing.assert_array_equal(values[OK_ROWS], np.stack([features(row)[name] for row in OK_ROWS]), strict=True)
    status = reader.column(spec_of("status"), np.asarray(OK_ROWS))
    assert np.flatnonzero(status == OK).tolist() == OK_ROWS
    assert np.flatnonzero(status == FAILED).tolist() == [DROPPED_ROW, FAILED_ROW]


def test_rows_without_features_hold_fill(reader: StoreReader) -> None:
    """No byte of a track that was taken down is left, whichever form is read."""
    no_track = N_TRACKS
    rows = [DROPPED_ROW, no_track]
    assert np.isnan(rows_of(reader, "mel", [*rows, FAILED_ROW])).all()
    assert not rows_of(reader, "lyrics", rows).any()
    assert np.isnan(reader.column(spec_of("lyrics_pooled"), np.asarray(OK_ROWS))[rows]).all()


def test_genre_embeddings_of_the_store_and_of_an_added_text_encoder(reader: StoreReader) -> None:
    own = np.concatenate([np.arange(24, dtype=np.float32).reshape(2, 12), np.ones((1, 12), np.float32)])
    np.testing.assert_array_equal(reader.genre_embedding(), own, strict=True)
    other = np.asarray([[1.0] * 6, [1.0] * 6, [2.0] * 6], np.float32)
    np.testing.assert_array_equal(reader.genre_embedding("other"), other, strict=True)


def test_added_feature_sets_have_outcomes_and_values_of_their_own(reader: StoreReader) -> None:
    for name in ("other", "tempo"):
        outcomes = reader.added_outcomes(name)
        assert outcomes.schema.equals(ADDED_OUTCOME_SCHEMA)
        reasons = {row["row"]: row["reason"] for row in outcomes.to_pylist()}
        assert sorted(reasons) == [*range(N_TRACKS), LATE_ROW, RETRY_ROW]
        assert reasons[DROPPED_ROW] == "DROPPED"
        assert reasons[RETRY_ROW] == ("EXTRACTOR_FAILED" if name == "tempo" else None)
        values = reader.column(spec_of(f"status_{name}"), np.asarray(OK_ROWS))
        np.testing.assert_array_equal(values[list(reasons)], np.asarray(outcomes.column("status")))
    tempo = reader.column(spec_of("tempo"), np.asarray(OK_ROWS))
    assert np.isfinite(tempo[[row for row in OK_ROWS if row != RETRY_ROW]]).all()
    assert np.isnan(tempo[RETRY_ROW]).all()
    states = rows_of(reader, "lyrics_other", OK_ROWS)
    assert states.shape == (len(OK_ROWS), OTHER.max_tokens, OTHER.hidden_size)
    assert (states >= 1).all()


def test_readers_raise_the_same_errors(store: FeatureStore) -> None:
    cases: list[tuple[str, list[int], type[Exception], str]] = [
        ("mel", [0, FAILED_ROW], TrackUnavailableError, r"1 of the requested tracks have no features: t05 \(EMPTY\)"),
        ("mel", [DROPPED_ROW], TrackUnavailableError, r"t02 \(DROPPED\)"),
        ("mel", [N_TRACKS], TrackUnavailableError, r"some of rows \[10\] belong to no track"),
        ("mel", [N_ROWS], TrackUnavailableError, r"rows \[20\] are outside the 20 array rows"),
        ("mel", [-1], TrackUnavailableError, r"rows \[-1\] are outside the 20 array rows"),
        ("tempo", [0, RETRY_ROW], TrackUnavailableError, r"have no 'tempo': t05 \(EXTRACTOR_FAILED\)"),
        ("chroma", [0], StoreError, "no array 'chroma': .*Use one of status, flags, mel"),
    ]
    for name, rows, error, message in cases:
        with pytest.raises(error, match=message):
            store.read(name, rows)
    with pytest.raises(ConfigError, match=r"no added feature set 'pace'.*\(added: other, tempo\)"):
        store.counts("pace")
    with pytest.raises(StoreError, match=r"no added text feature set 'tempo': .* \(added: other\)"):
        FeatureStore.open(store.path, text="tempo")


def test_the_public_reader_counts_and_selects_alike(store: FeatureStore) -> None:
    counts = store.counts()
    assert (counts.planned, counts.ok, counts.failed, counts.pending) == (11, 10, 1, 0)
    assert counts.reasons == {"DROPPED": 1}
    assert store.counts("tempo").reasons == {"EXTRACTOR_FAILED": 1}
    assert store.ok_rows.tolist() == OK_ROWS
    assert store.rows_with("tempo").tolist() == [row for row in OK_ROWS if row != RETRY_ROW]
    newest = store.newest_tracks(["id", "row"]).to_pylist()
    assert {track["id"]: track["row"] for track in newest}["t05"] == RETRY_ROW
    with FeatureStore.open(store.path, text="other") as other:
        assert other.read("lyrics", [0]).shape == (1, OTHER.max_tokens, OTHER.hidden_size)
        assert other.genre_embedding.shape == (3, OTHER.hidden_size)


@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_bit_of_a_clip_is_an_error(folder: Path, tmp_path: Path, form: str) -> None:
    name = "s.h5" if form == "hdf5" else "s.zarr"
    copy = shutil.copytree if form != "hdf5" else shutil.copy
    copy(folder / name, tmp_path / name)
    file = tmp_path / "s.h5" if form == "hdf5" else tmp_path / "s.zarr" / "mel" / "c" / "1" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[data.index(features(7)["mel"].tobytes()[:64]) + 9] ^= 1
    file.write_bytes(data)
    reader = FORMS[form](tmp_path)
    np.testing.assert_array_equal(rows_of(reader, "mel", [6])[0], features(6)["mel"])
    with pytest.raises(ValueError, match="checksum"):
        rows_of(reader, "mel", [7])
    reader.close()


@pytest.mark.parametrize("form", ["mapped", "zarr"])
def test_reader_during_extraction_shows_commits_at_its_opening(tmp_path: Path, form: str) -> None:
    """The HDF5 form is written once, when nothing is pending."""
    path = create(tmp_path / "s.zarr")
    fill(path, [1])
    early = FORMS[form](tmp_path)
    status = early.tracks.column("status").to_pylist()
    assert status == [ABSENT] * 4 + [OK, FAILED, OK, OK] + [ABSENT] * 2
    before = rows_of(early, "mel", [4, 7])
    fill(path, [0, 2])
    assert early.tracks.column("status").to_pylist() == status
    np.testing.assert_array_equal(rows_of(early, "mel", [4, 7]), before)
    np.testing.assert_array_equal(before, [features(4)["mel"], features(7)["mel"]])
    late = FORMS[form](tmp_path)
    assert ABSENT not in late.tracks.column("status").to_pylist()
