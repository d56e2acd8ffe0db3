"""Metrics per slice of the tracks: each equals the evaluation of its tracks alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mgc.cache.errors import ConfigError
from mgc.cache.format.schema import Flag
from mgc.cache.reading.store import FeatureStore
from mgc.heads.data.artist_groups import bootstrap_groups
from mgc.heads.data.labels import genre_matrix
from mgc.heads.evaluation.predict import score_store
from mgc.heads.evaluation.slices import slices_by
from mgc.heads.metrics.multilabel import evaluate_predictions
from mgc.heads.runs.published_model import load_run

TRACKS = pa.table(
    {
        "id": [f"t{i}" for i in range(40)],
        "artists": [["a"]] * 20 + [["a", "b"]] * 10 + [["a", "b", "c", "d"]] * 9 + [[]],
        "genres": [["rock"]] * 40,
        "language": ["en"] * 25 + ["pt"] * 14 + [None],
        "flags": pa.array([0] * 30 + [Flag.SHORT.value] * 6 + [Flag.SHORT.value | Flag.CLIPPED.value] * 4, pa.uint32()),
        "seconds": [float(i) for i in range(40)],
        "channels": pa.array([1, 2] * 20, pa.int16()),
    }
)


def test_slices_have_the_tracks_of_their_value() -> None:
    def sizes(column: str) -> dict[str, int]:
        return {name: int(mask.sum()) for name, mask in slices_by(TRACKS, column).items()}

    assert list(sizes("language").items()) == [("en", 25), ("pt", 14), ("unknown", 1)]
    assert list(sizes("flag").items()) == [("no flag", 30), ("SHORT", 10), ("CLIPPED", 4)]
    assert sizes("artists") == {"0": 1, "1": 20, "2": 10, "3 or more": 9}
    assert sizes("labels") == {"1": 40}
    assert sizes("channels") == {"1": 20, "2": 20}
    quarters = slices_by(TRACKS, "seconds")
    assert [int(mask.sum()) for mask in quarters.values()] == [10, 10, 10, 10]
    assert np.flatnonzero(quarters["0 to 9.75"]).tolist() == list(range(10))


@pytest.mark.parametrize("column", ["id", "langauge", "genres"])
def test_other_columns_are_refused(column: str) -> None:
    with pytest.raises(ConfigError, match=f"--by {column}: no such column of tracks"):
        slices_by(TRACKS, column)


def test_metrics_of_a_slice_in_json_text_and_report(
    small_store: FeatureStore, evaluated_run: Path, tmp_path: Path, call: Any
) -> None:
    run = shutil.copytree(evaluated_run, tmp_path / "run")
    given = ("evaluate", run, small_store.path, "--split", "all", "--by", "artists", "--by", "split")
    found = call(*given, "--json").json
    assert list(found["slices"]) == ["artists", "split"]
    tracks = small_store.tracks
    mask = slices_by(tracks, "artists")["1"]
    rows, loaded = np.flatnonzero(mask), load_run(run)
    expected = evaluate_predictions(
        genre_matrix(tracks.column("genres"), loaded.genres)[rows],
        score_store(loaded, small_store, rows.astype(np.int64)).scores,
        genres=loaded.genres,
        thresholds=loaded.thresholds.by_column,
        groups=np.asarray(bootstrap_groups(tracks))[rows],
    ).to_dict()
    measured = found["slices"]["artists"]["1"]
    assert measured["n_tracks"] == len(rows)
    assert measured["mean_average_precision"] == pytest.approx(expected["mean_average_precision"], abs=1e-6)
    assert measured["mean_average_precision"]["low"] is not None  # 20 artists
    text = call(*given).out
    assert "by artists" in text
    assert "by split" in text
    assert call("evaluate", run, small_store.path, "--by", "artists", "-q").code == 0
    assert "Metrics by artists" in (run / "report.html").read_text(encoding="utf-8")
    refused = call("evaluate", run, small_store.path, "--by", "mood")
    assert (refused.code, "--by mood: no such column" in refused.err) == (2, True)
