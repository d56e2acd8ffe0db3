"""Test prediction: a published model reproduces the scores of training, independent of the batch."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mgc.cache.errors import RecipeMismatchError, RunError, TrackUnavailableError
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import TextRecipe
from mgc.cache.format.tables import PLAN_SCHEMA
from mgc.cache.reading.store import FeatureStore
from mgc.cache.writing.creation import append_generation
from mgc.heads.config import TrainConfig
from mgc.heads.data.splits import Split
from mgc.heads.evaluation.predict import lyrics_warnings, predict_blocks, score_store, tracks_with_lyrics
from mgc.heads.evaluation.predict_options import PredictOptions
from mgc.heads.evaluation.prediction_files import write_predictions
from mgc.heads.metrics.multilabel import decide, jaccard_per_track
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.train import TrainingResult, train

MakeWorld = Callable[..., Any]
SMALL = {"encoder": "tiny", "model_options": {"width": 32, "graph_hidden": 32, "projection_dim": 16}}
CONFIG = TrainConfig(lr=2e-3, epochs=3, precision="fp32", **SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def result(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(small_store, tmp_path_factory.mktemp("predict") / "run", CONFIG)


def test_prediction_needs_only_the_folder_best(
    result: TrainingResult, small_store: FeatureStore, tmp_path: Path
) -> None:
    shutil.copytree(result.run / "best", tmp_path / "model")
    scored = score_store(load_run(tmp_path / "model"), small_store)
    ids, scores = scored.examples.ids, scored.scores
    assert list(ids) == small_store.tracks.column("id").to_pylist()
    assert scores.shape == (40, 5)
    assert ((scores > 0) & (scores < 1)).all()
    assert np.array_equal(scores, score_store(load_run(result.run), small_store).scores)


def test_scores_reproduce_the_validation_metric_of_the_best_epoch(
    result: TrainingResult, small_store: FeatureStore
) -> None:
    loaded = load_run(result.run)
    validation = Split.load(result.run / "splits.json").ids["validation"]
    rows = np.flatnonzero(np.isin(small_store.tracks.column("id").to_pylist(), validation))
    scores = score_store(loaded, small_store, rows).scores
    truth = np.array(
        [
            [name in genres for name in loaded.genres]
            for genres in small_store.tracks.column("genres").take(rows).to_pylist()
        ]
    )
    jaccard = jaccard_per_track(truth, decide(scores, 0.5)).mean()
    assert jaccard == pytest.approx(result.history[result.best_epoch - 1].val_jaccard)
    assert loaded.validation["map"] == result.best_map
    assert loaded.thresholds == result.thresholds


def test_scores_do_not_depend_on_order_or_batch(result: TrainingResult, small_store: FeatureStore) -> None:
    loaded = load_run(result.run)
    scores = score_store(loaded, small_store).scores
    order = np.random.default_rng(0).permutation(40)
    shuffled = score_store(loaded, small_store, order, batch_size=7).scores
    single = [score_store(loaded, small_store, np.array([row])).scores[0] for row in (0, 1, 23)]
    assert np.allclose(shuffled, scores[order], atol=1e-5)
    assert np.allclose(single, scores[[0, 1, 23]], atol=1e-5)


def test_progress_counts_tracks(result: TrainingResult, small_store: FeatureStore) -> None:
    reports: list[tuple[int, int]] = []
    score_store(
        load_run(result.run), small_store, batch_size=16, on_progress=lambda step, *done: reports.append(done[:2])
    )
    assert reports == [(16, 40), (32, 40), (40, 40)]


def world_with_text_recipe(make_world: MakeWorld, **text: Any) -> Any:
    world = make_world(n_tracks=4)
    world.recipe = dataclasses.replace(world.recipe, lyrics=dataclasses.replace(world.recipe.lyrics, **text))
    return world


def test_store_with_another_recipe_raises_an_error_that_lists_the_differences(
    result: TrainingResult, make_world: MakeWorld, tmp_path: Path
) -> None:
    world = world_with_text_recipe(make_world, weights_sha256="c" * 64)
    world.recipe = dataclasses.replace(world.recipe, mel=dataclasses.replace(world.recipe.mel, fmax_hz=8000.0))
    with pytest.raises(RecipeMismatchError) as refused:
        score_store(load_run(result.run), world.write(tmp_path / "s.zarr"))
    assert "lyrics.weights_sha256: " + "a" * 64 in str(refused.value)
    assert "mel.fmax_hz: 11025.0 in the model, 8000.0 in the store" in str(refused.value)


def test_name_and_precision_of_the_text_encoder_may_differ(
    result: TrainingResult, make_world: MakeWorld, tmp_path: Path
) -> None:
    world = world_with_text_recipe(make_world, model="/some/where/tiny", precision="bf16")
    store = world.write(tmp_path / "s.zarr")
    assert len(score_store(load_run(result.run), store).examples.ids) == 4


def test_changed_genre_name_prompts_matter_to_training_but_not_to_prediction(
    result: TrainingResult, small_store: FeatureStore, make_world: MakeWorld, tmp_path: Path
) -> None:
    world = make_world()
    world.recipe = dataclasses.replace(world.recipe, genre_names={"rock": "rock music"})
    store = world.write(tmp_path / "s.zarr")
    loaded = load_run(result.run)
    assert np.array_equal(score_store(loaded, store).scores, score_store(loaded, small_store).scores)
    run = shutil.copytree(result.run, tmp_path / "run")
    with pytest.raises(RunError, match="differs in recipe fingerprints"):
        train(store, run, CONFIG, resume=True)


def test_store_without_text_is_scored_like_tracks_without_lyrics(
    result: TrainingResult, make_world: MakeWorld, tmp_path: Path
) -> None:
    world = make_world(n_tracks=4)
    world.lyrics_tokens[:] = 0
    expected = score_store(load_run(result.run), world.write(tmp_path / "without-lyrics.zarr")).scores
    world.recipe = dataclasses.replace(world.recipe, lyrics=None)
    scores = score_store(load_run(result.run), world.write(tmp_path / "without-text.zarr")).scores
    assert np.array_equal(scores, expected)


def test_missing_lyrics_cause_a_warning_only_if_training_had_none(
    result: TrainingResult, small_store: FeatureStore, make_world: MakeWorld, tmp_path: Path
) -> None:
    has_lyrics = tracks_with_lyrics(small_store, np.array([0, 1, 7]))
    assert has_lyrics.tolist() == [False, True, False]
    assert lyrics_warnings(load_run(result.run), has_lyrics) == []
    world = make_world()
    world.lyrics_tokens[:] = 9
    train(world.write(tmp_path / "all-lyrics.zarr"), tmp_path / "run", dataclasses.replace(CONFIG, epochs=1))
    loaded = load_run(tmp_path / "run")
    assert "2 of 3 tracks have no lyrics" in lyrics_warnings(loaded, has_lyrics)[0]
    assert lyrics_warnings(loaded, has_lyrics[1:2]) == []
    dropout = dataclasses.replace(CONFIG, epochs=1, modality_dropout=0.2)  # trains with lyrics removed at random
    train(FeatureStore.open(tmp_path / "all-lyrics.zarr"), tmp_path / "dropout", dropout)
    assert lyrics_warnings(load_run(tmp_path / "dropout"), has_lyrics) == []


def test_scoring_a_failed_track_raises_an_error_with_its_id(
    result: TrainingResult, make_world: MakeWorld, tmp_path: Path
) -> None:
    world = make_world(n_tracks=4)
    world.failed.add(2)
    with pytest.raises(TrackUnavailableError, match="t0002"):
        score_store(load_run(result.run), world.write(tmp_path / "s.zarr"), np.array([1, 2]))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "labels.json", "preprocessor.json", "thresholds.json", "graph.json"]
)
def test_altered_model_raises_an_error_with_the_file_name(result: TrainingResult, tmp_path: Path, name: str) -> None:
    shutil.copytree(result.run / "best", tmp_path / "best")
    data = bytearray((tmp_path / "best" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "best" / name).write_bytes(data)
    with pytest.raises(RunError, match=name):
        load_run(tmp_path / "best")


def test_loading_a_folder_without_a_model_raises(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no trained model"):
        load_run(tmp_path)


def test_loaded_recipe_equals_that_of_the_store(result: TrainingResult, small_store: FeatureStore) -> None:
    loaded = load_run(result.run)
    assert loaded.recipe == small_store.recipe
    assert loaded.fingerprints == small_store.fingerprints
    assert isinstance(loaded.recipe.lyrics, TextRecipe)


@pytest.fixture(scope="module")
def partial_store(make_world: MakeWorld, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Return a store of 40 tracks, two of them failed."""
    world = make_world()
    world.failed |= {3, 17}
    store: FeatureStore = world.write(tmp_path_factory.mktemp("partial") / "partial.zarr")
    return store


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_predictions_are_written_to_a_file_with_one_row_per_track(
    result: TrainingResult, partial_store: FeatureStore, call: Callable[..., Any], tmp_path: Path, form: str
) -> None:
    loaded = load_run(result.run)
    scores = score_store(loaded, partial_store).scores
    done = call(
        "predict",
        result.run,
        partial_store.path,
        "-o",
        tmp_path / f"scores.{form}",
        "--threshold",
        "per-genre",
        "--json",
    ).json
    assert (done["tracks"], done["failed"], done["reasons"]) == (40, 2, {"NOT_AUDIO": 2})
    assert [path.name for path in tmp_path.iterdir()] == [f"scores.{form}"]
    rows = _read(tmp_path / f"scores.{form}", loaded.genres)
    assert [row["id"] for row in rows] == partial_store.tracks.column("id").to_pylist()
    assert [(row["id"], row["reason"]) for row in rows if not row["scores"]] == [
        ("t0003", "NOT_AUDIO"),
        ("t0017", "NOT_AUDIO"),
    ]
    good = [row for row in rows if row["scores"]]
    np.testing.assert_allclose([[row["scores"][name] for name in loaded.genres] for row in good], scores, rtol=1e-6)
    for row, values in zip(good, scores, strict=True):
        decisions = sorted(zip(-values, loaded.genres, loaded.thresholds.per_genre, strict=True))
        assert row["genres"] == [name for value, name, threshold in decisions if -value >= threshold]


def _read(path: Path, genres: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows of a predictions file of any format."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row["genres"] = [name for name in row["genres"].split("|") if name]
    for row in rows:
        values = {name: row[f"score: {name}"] for name in genres}
        row["scores"] = {name: float(value) for name, value in values.items() if value not in (None, "")}
    return rows


def test_option_threshold_selects_the_thresholds(
    result: TrainingResult, partial_store: FeatureStore, call: Callable[..., Any]
) -> None:
    loaded = load_run(result.run)
    default = call("predict", result.run, partial_store.path, "--json").json
    for choice, threshold in (("overall", loaded.thresholds.overall), ("0.5", 0.5), ("0", 0.0), ("1", 1.0)):
        done = call("predict", result.run, partial_store.path, "--threshold", choice, "--json").json
        assert [sorted(row["genres"]) for row in done["predictions"]] == [
            [name for name in loaded.genres if row["scores"] and row["scores"][name] >= threshold]
            for row in done["predictions"]
        ]
        assert done["remarks"][0] == loaded.thresholds.describe(choice, loaded.genres)
        assert (done == default) == (choice == "overall")
    assert (
        loaded.thresholds.describe("per-genre", loaded.genres)
        in call("predict", result.run, partial_store.path, "--threshold", "per-genre").err
    )
    for choice in ("1.1", "nan", "best"):
        refused = call("predict", result.run, partial_store.path, "--threshold", choice)
        assert (refused.code, "Use overall, per-genre, or a number" in refused.err) == (2, True)


def test_blocks_equal_a_single_pass_and_interrupted_writing_leaves_no_file(
    result: TrainingResult, partial_store: FeatureStore, tmp_path: Path
) -> None:
    loaded = load_run(result.run)
    reports: list[tuple[int, int]] = []
    blocks = list(
        predict_blocks(
            loaded,
            partial_store,
            PredictOptions(),
            block_tracks=7,
            on_progress=lambda step, *done: reports.append(done[:2]),
        )
    )
    assert [block.tracks.num_rows for block in blocks] == [7, 7, 7, 7, 7, 5]
    scores = np.concatenate([block.scores[block.has_scores] for block in blocks])
    np.testing.assert_allclose(scores, score_store(loaded, partial_store).scores, atol=1e-5)
    assert reports == sorted(reports)
    assert reports[-1] == (38, 38)

    def interrupted() -> Any:
        yield blocks[0]
        raise RuntimeError("power failure")

    for name in ("s.parquet", "s.csv", "s.jsonl"):
        with pytest.raises(RuntimeError, match="power failure"):
            write_predictions(tmp_path / name, interrupted())
    assert list(tmp_path.iterdir()) == []


def test_retried_track_is_predicted_once_and_pending_track_is_listed(
    result: TrainingResult, make_world: MakeWorld, tmp_path: Path
) -> None:
    world = make_world(n_tracks=16)
    world.failed |= {2}
    store = world.write(tmp_path / "s.zarr")
    retried = store.tracks.select(PLAN_SCHEMA.names).slice(2, 1)
    store.close()
    append_generation(tmp_path / "s.zarr", read_plan(tmp_path / "s.zarr"), "retry", retried)
    (block,) = predict_blocks(load_run(result.run), FeatureStore.open(tmp_path / "s.zarr"), PredictOptions())
    rows = {row["id"]: row["reason"] for row in block.tracks.to_pylist()}
    assert len(rows) == block.tracks.num_rows == 16
    assert {name: reason for name, reason in rows.items() if reason} == {"t0002": "PENDING"}


def test_unsupported_format_of_predictions_is_a_usage_error(
    result: TrainingResult, partial_store: FeatureStore, call: Callable[..., Any], tmp_path: Path
) -> None:
    refused = call("predict", result.run, partial_store.path, "-o", tmp_path / "scores.xlsx")
    assert (refused.code, ".parquet, .csv, .jsonl" in refused.err) == (2, True)


def test_copy_of_best_gives_equal_predictions_and_holds_no_paths(
    result: TrainingResult,
    partial_store: FeatureStore,
    call: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Model and store are copied to another folder, which is the working directory."""
    before = call("predict", result.run, partial_store.path, "--json").json["predictions"]
    shutil.copytree(result.run / "best", tmp_path / "elsewhere" / "model")
    shutil.copytree(partial_store.path, tmp_path / "elsewhere" / "songs.zarr")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("predict", "model", "songs.zarr", "--json").json["predictions"] == before
    content = b"".join(path.read_bytes() for path in Path("model").iterdir())
    assert str(result.run.parent).encode() not in content
    assert str(partial_store.path.parent).encode() not in content
