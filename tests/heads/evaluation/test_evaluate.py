"""Test the evaluation of a run: its own test tracks, every metric, saved in the run folder."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgc.cache.errors import ConfigError, RunError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.data.artist_groups import bootstrap_groups
from mgc.heads.data.splits import Split
from mgc.heads.evaluation.evaluate import TOO_FEW, _alignment, _few_warnings, evaluate
from mgc.heads.evaluation.predict import score_store
from mgc.heads.evaluation.scored_tracks import load_predictions
from mgc.heads.metrics.multilabel import evaluate_predictions
from mgc.heads.runs.documents import read_sealed
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.train import TrainingResult, train
from mgc.reports.run import write_report

MakeWorld = Callable[..., Any]
SMALL = {"encoder": "tiny", "model_options": {"width": 32, "graph_hidden": 32, "projection_dim": 16}}
CONFIG = TrainConfig(lr=2e-3, epochs=3, precision="fp32", **SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def result(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(small_store, tmp_path_factory.mktemp("evaluate") / "run", CONFIG)


def test_metrics_cover_the_test_tracks_and_resample_artists(result: TrainingResult, small_store: FeatureStore) -> None:
    evaluated = evaluate(result.run, small_store, n_replicates=50).to_dict()
    loaded = load_run(result.run)
    test = Split.load(result.run / "splits.json").ids["test"]
    tracks = small_store.tracks.to_pylist()
    rows = np.array([track["row"] for track in tracks if track["id"] in test])
    truth = np.array([[name in tracks[row]["genres"] for name in loaded.genres] for row in rows])
    scores = score_store(loaded, small_store, rows).scores
    tuned = {"tuned": loaded.thresholds.overall, "tuned_per_genre": loaded.thresholds.per_genre}
    expected = evaluate_predictions(
        truth,
        scores,
        genres=loaded.genres,
        thresholds=tuned,
        n_replicates=50,
        groups=[tracks[row]["artists"][0] for row in rows],
    )
    assert evaluated["metrics"] == expected.to_dict()
    saved = pq.read_table(result.run / "predictions.parquet")
    assert saved.column_names == [
        "id",
        "group",
        "genres",
        "artists",
        "song",
        "path",
        "offset_s",
        *(f"score: {name}" for name in loaded.genres),
    ]
    assert saved.column("genres").to_pylist() == [tracks[row]["genres"] for row in rows]
    read = load_predictions(result.run)
    assert read.ids == tuple(tracks[row]["id"] for row in rows)
    assert len(set(read.groups)) == len(test) / 2
    np.testing.assert_array_equal(read.labels, truth)
    np.testing.assert_array_equal(read.scores, scores)
    assert {name: cut.tolist() for name, cut in read.thresholds.items()} == {
        "tuned": [loaded.thresholds.overall] * len(loaded.genres),
        "tuned_per_genre": list(loaded.thresholds.per_genre),
    }
    assert evaluated["metrics"]["n_groups"] == len(test) / 2
    assert (evaluated["n_tracks"], evaluated["n_missing"], evaluated["n_seen_in_training"]) == (len(test), 0, 0)
    assert (evaluated["lr"], evaluated["threshold"]) == (2e-3, loaded.thresholds.overall)


def test_metrics_are_reported_by_available_modalities(
    result: TrainingResult, small_store: FeatureStore, make_world: MakeWorld, tmp_path: Path
) -> None:
    """Every seventh track has no lyrics. Lyrics without audio need a store extracted without audio."""
    evaluated = evaluate(result.run, small_store, split="all", n_replicates=20, save=False).to_dict()
    loaded, parts = load_run(result.run), evaluated["parts"]
    assert {name: part["n_tracks"] for name, part in parts.items()} == {
        "sound and lyrics": 34,
        "sound only": 6,
        "lyrics only": 0,
        "neither": 0,
    }
    rows = np.arange(0, 40, 7)
    truth = np.array(
        [[name in small_store.tracks.column("genres")[row].as_py() for name in loaded.genres] for row in rows.tolist()]
    )
    audio_only = evaluate_predictions(truth, score_store(loaded, small_store, rows).scores, genres=loaded.genres)
    assert parts["sound only"]["columns"]["fixed"]["jaccard"]["value"] == audio_only.columns["fixed"].jaccard.value
    assert parts["sound only"]["undefined_genres"] == audio_only.undefined_genres
    world = make_world()
    world.recipe = dataclasses.replace(world.recipe, mel=None)
    store = world.write(tmp_path / "lyrics.zarr")
    config = dataclasses.replace(CONFIG, epochs=1, modalities="lyrics", attention=False, contrastive=False)
    train(store, tmp_path / "lyrics", config)
    evaluated = evaluate(tmp_path / "lyrics", store, split="all", n_replicates=0).to_dict()
    assert (evaluated["parts"]["lyrics only"]["n_tracks"], evaluated["parts"]["neither"]["n_tracks"]) == (34, 6)
    assert evaluated["parts"]["sound and lyrics"]["columns"]["fixed"]["jaccard"]["value"] is None
    assert "no audio-lyrics projections" in evaluated["alignment"]["reason"]


def test_retrieval_equals_that_of_all_pairs_of_projections(result: TrainingResult, small_store: FeatureStore) -> None:
    """The 34 tracks with lyrics all have audio and lyrics of their own."""
    retrieval = evaluate(result.run, small_store, split="all", n_replicates=20, save=False).to_dict()["alignment"]
    loaded, rows = load_run(result.run), np.flatnonzero(small_store.read("lyrics_tokens", np.arange(40)) > 0)
    scored = score_store(loaded, small_store, rows)
    similarity = scored.outputs.audio_embedding @ scored.outputs.lyrics_embedding.T
    for direction, scores in (("audio_to_lyrics", similarity), ("lyrics_to_audio", similarity.T)):
        ranks = [1 + sum(scores[i, j] > scores[i, i] for j in range(34)) for i in range(34)]
        assert {k: recall["value"] for k, recall in retrieval["recall"][direction].items()} == pytest.approx(
            {str(k): np.mean([rank <= k for rank in ranks]) for k in (1, 5, 10)}
        )
    assert (retrieval["n_tracks"], retrieval["n_left_out"]) == (34, 0)
    assert retrieval["chance"]["10"] == pytest.approx(10 / 34)
    assert "note" not in retrieval
    untrained = dataclasses.replace(loaded, training=dataclasses.replace(CONFIG, lambda_=0.0))
    assert "never trained" in _alignment(untrained, scored, ["a"] * 34, 0, 0)["note"]


def test_calibration_error_equals_that_of_its_bins(result: TrainingResult, small_store: FeatureStore) -> None:
    evaluated = evaluate(result.run, small_store, n_replicates=0, save=False).to_dict()["calibration"]
    bins = evaluated["bins"]
    assert evaluated["n_pairs"] == 8 * 5 == sum(row["n"] for row in bins)
    distance = sum(row["n"] * abs(row["observed"] - row["mean_score"]) for row in bins if row["n"])
    assert evaluated["expected_calibration_error"] == pytest.approx(distance / 40)


def test_baselines_use_training_labels(result: TrainingResult, small_store: FeatureStore) -> None:
    evaluated = evaluate(result.run, small_store, n_replicates=0).to_dict()["baselines"]
    labels = result.task.train_labels
    np.testing.assert_array_equal(load_run(result.run).label_prior, labels.mean(axis=0))
    support = np.array([row["support"] for row in evaluated["label_prior"]["genres"]])
    prevalence = (support / evaluated["label_prior"]["n_tracks"])[support > 0]
    assert evaluated["label_prior"]["mean_average_precision"]["value"] == pytest.approx(prevalence.mean())
    assert 0 < evaluated["majority"]["columns"]["fixed"]["jaccard"]["value"] < 1


def test_results_of_each_split_are_saved_and_the_model_is_unchanged(
    result: TrainingResult, small_store: FeatureStore
) -> None:
    before = {path.name: path.read_bytes() for path in (result.run / "best").iterdir()}
    test = evaluate(result.run, small_store, n_replicates=0).to_dict()
    training = evaluate(result.run, small_store, split="train", n_replicates=0).to_dict()
    evaluate(result.run, small_store, split="all", n_replicates=0, save=False)
    assert read_sealed(result.run / "metrics.json") == {"test": test, "train": training}
    assert training["n_seen_in_training"] == training["n_tracks"] == result.task.n_train
    assert {path.name: path.read_bytes() for path in (result.run / "best").iterdir()} == before


def test_predictions_that_do_not_match_the_metrics_are_refused(
    result: TrainingResult, small_store: FeatureStore, tmp_path: Path
) -> None:
    evaluate(result.run, small_store, n_replicates=0)
    run = shutil.copytree(result.run, tmp_path / "run")
    data = bytearray((run / "predictions.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (run / "predictions.parquet").write_bytes(data)
    with pytest.raises(RunError, match=r"predictions\.parquet: does not match metrics\.json"):
        load_predictions(run)
    (run / "metrics.json").unlink()
    with pytest.raises(RunError, match="not evaluated on its test split. Run: mgc evaluate"):
        load_predictions(run)


def test_validation_metrics_equal_those_of_the_best_epoch(result: TrainingResult, small_store: FeatureStore) -> None:
    evaluated = evaluate(result.run, small_store, split="validation", n_replicates=0, save=False).to_dict()["metrics"]
    assert evaluated["mean_average_precision"]["value"] == pytest.approx(result.best_map)
    jaccard = {name: column["jaccard"]["value"] for name, column in evaluated["columns"].items()}
    assert jaccard["fixed"] == pytest.approx(result.history[result.best_epoch - 1].val_jaccard)
    assert jaccard["tuned"] >= jaccard["fixed"]


def test_another_store_is_evaluated_with_split_all(
    result: TrainingResult, make_world: MakeWorld, tmp_path: Path
) -> None:
    world = make_world(n_tracks=12, seed=8)
    for track in world.tracks:
        track["id"] = f"new {track['id']}"
    world.tracks[3]["genres"] = ["polka"]
    world.tracks[4]["genres"] = []
    store = world.write(tmp_path / "new.zarr")
    with pytest.raises(RunError, match="--split all"):
        evaluate(result.run, store)
    evaluated = evaluate(result.run / "best", store, split="all", n_replicates=0).to_dict()
    assert (evaluated["n_tracks"], evaluated["n_left_out"], evaluated["policy"]) == (10, 2, None)
    assert not (result.run / "best" / "metrics.json").exists()
    with pytest.raises(RunError, match=r"no splits\.json"):
        evaluate(result.run / "best", store)


def test_missing_tracks_of_the_split_are_counted(result: TrainingResult, make_world: MakeWorld, tmp_path: Path) -> None:
    split = Split.load(result.run / "splits.json")
    world = make_world()
    world.failed |= {int(name[1:]) for name in split.ids["test"][:3]}
    evaluated = evaluate(result.run, world.write(tmp_path / "s.zarr"), n_replicates=0, save=False).to_dict()
    assert (evaluated["n_tracks"], evaluated["n_missing"]) == (len(split.ids["test"]) - 3, 3)


def test_given_labels_replace_those_of_the_store(result: TrainingResult, small_store: FeatureStore) -> None:
    ids = small_store.tracks.column("id").to_pylist()
    evaluated = evaluate(result.run, small_store, labels={name: ["rock"] for name in ids}, n_replicates=0, save=False)
    support = {row.genre: row.support for row in evaluated.metrics.genres}
    assert support == {"blues": 0, "folk": 0, "jazz": 0, "metal": 0, "rock": 8}
    with pytest.raises(RunError, match="none of 8 tracks has a genre"):
        evaluate(result.run, small_store, labels={}, save=False)


def test_unknown_split_is_refused(result: TrainingResult, small_store: FeatureStore) -> None:
    with pytest.raises(ConfigError, match="dev"):
        evaluate(result.run, small_store, split="dev")


@pytest.mark.parametrize(
    ("n_tracks", "n_artists", "text"),
    [
        (20, 5, None),
        (19, 10, "only 19 tracks by 10 artists: too few"),
        (40, 4, "only 40 tracks by 4 artists: too few"),
        (3, 0, "only 3 tracks by unknown artists: too few"),
    ],
)
def test_evaluation_on_few_tracks_or_artists_gives_a_warning(n_tracks: int, n_artists: int, text: str | None) -> None:
    tracks = [{"id": f"t{i}", "artists": [f"a{i % n_artists}"] if n_artists else []} for i in range(n_tracks)]
    warnings = _few_warnings(bootstrap_groups(pa.Table.from_pylist(tracks)))
    assert [text in warning for warning in warnings] == ([] if text is None else [True])


def test_warning_of_few_tracks_is_saved_for_the_report(evaluated_run: Path) -> None:
    (warning,) = [text for text in read_sealed(evaluated_run / "metrics.json")["test"]["warnings"] if TOO_FEW in text]
    assert warning.startswith("only 8 tracks by 4 artists")
    page = write_report(evaluated_run, evaluated_run.parent / "few.html").read_text()
    assert f"<li>{warning}</li>" in page
