"""Prediction: the published model alone gives the scores of training, whoever else is in the batch."""

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


def test_best_alone_is_all_that_prediction_needs(
    result: TrainingResult, small_store: FeatureStore, tmp_path: Path
) -> None:
    shutil.copytree(result.run / "best", tmp_path / "model")
    scored = score_store(load_run(tmp_path / "model"), small_store)
    ids, scores = scored.examples.ids, scored.scores
    assert list(ids) == small_store.tracks.column("id").to_pylist()
    assert scores.shape == (40, 5)
    assert ((scores > 0) & (scores < 1)).all()
    assert np.array_equal(scores, score_store(load_run(result.run), small_store).scores)


def test_scores_are_those_that_training_chose_the_epoch_by(result: TrainingResult, small_store: FeatureStore) -> None:
    loaded = load_run(result.run)
    wanted = Split.load(result.run / "splits.json").ids["validation"]
    rows = np.flatnonzero(np.isin(small_store.tracks.column("id").to_pylist(), wanted))
    scores = score_store(loaded, small_store, rows).scores
    truth = np.array(
        [
            [name in genres for name in loaded.genres]
            for genres in small_store.tracks.column("genres").take(rows).to_pylist()
        ]
    )
    found = jaccard_per_track(truth, decide(scores, 0.5)).mean()
    assert found == pytest.approx(result.history[result.best_epoch - 1].val_jaccard)
    assert loaded.validation["map"] == result.best_map
    assert loaded.thresholds == result.thresholds


def test_scores_do_not_depend_on_order_batch_or_company(result: TrainingResult, small_store: FeatureStore) -> None:
    loaded = load_run(result.run)
    scores = score_store(loaded, small_store).scores
    order = np.random.default_rng(0).permutation(40)
    shuffled = score_store(loaded, small_store, order, batch_size=7).scores
    alone = [score_store(loaded, small_store, np.array([row])).scores[0] for row in (0, 1, 23)]
    assert np.allclose(shuffled, scores[order], atol=1e-5)
    assert np.allclose(alone, scores[[0, 1, 23]], atol=1e-5)


def test_progress_counts_tracks(result: TrainingResult, small_store: FeatureStore) -> None:
    told: list[tuple[int, int]] = []
    score_store(load_run(result.run), small_store, batch_size=16, on_progress=lambda step, *done: told.append(done[:2]))
    assert told == [(16, 40), (32, 40), (40, 40)]


def world_of(make_world: MakeWorld, **text: Any) -> Any:
    world = make_world(n_tracks=4)
    world.recipe = dataclasses.replace(world.recipe, lyrics=dataclasses.replace(world.recipe.lyrics, **text))
    return world


def test_features_of_another_recipe_are_refused_with_every_difference(
    result: TrainingResult, make_world: MakeWorld, tmp_path: Path
) -> None:
    world = world_of(make_world, weights_sha256="c" * 64)
    world.recipe = dataclasses.replace(world.recipe, mel=dataclasses.replace(world.recipe.mel, fmax_hz=8000.0))
    with pytest.raises(RecipeMismatchError) as refused:
        score_store(load_run(result.run), world.write(tmp_path / "s.zarr"))
    assert "lyrics.weights_sha256: " + "a" * 64 in str(refused.value)
    assert "mel.fmax_hz: 11025.0 in the model, 8000.0 in the store" in str(refused.value)


def test_a_text_encoder_by_another_name_or_in_another_precision_will_do(
    result: TrainingResult, make_world: MakeWorld, tmp_path: Path
) -> None:
    store = world_of(make_world, model="/some/where/tiny", precision="bf16").write(tmp_path / "s.zarr")
    assert len(score_store(load_run(result.run), store).examples.ids) == 4


def test_genres_read_aloud_otherwise_matter_to_training_and_not_to_a_trained_model(
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


def test_a_store_without_text_is_scored_as_tracks_without_lyrics(
    result: TrainingResult, make_world: MakeWorld, tmp_path: Path
) -> None:
    silent = make_world(n_tracks=4)
    silent.lyrics_tokens[:] = 0
    expected = score_store(load_run(result.run), silent.write(tmp_path / "silent.zarr")).scores
    silent.recipe = dataclasses.replace(silent.recipe, lyrics=None)
    scores = score_store(load_run(result.run), silent.write(tmp_path / "textless.zarr")).scores
    assert np.array_equal(scores, expected)


def test_missing_lyrics_are_warned_of_only_if_training_never_saw_any(
    result: TrainingResult, small_store: FeatureStore, make_world: MakeWorld, tmp_path: Path
) -> None:
    words = tracks_with_lyrics(small_store, np.array([0, 1, 7]))
    assert words.tolist() == [False, True, False]
    assert lyrics_warnings(load_run(result.run), words) == []
    wordy = make_world()
    wordy.lyrics_tokens[:] = 9
    train(wordy.write(tmp_path / "wordy.zarr"), tmp_path / "run", dataclasses.replace(CONFIG, epochs=1))
    loaded = load_run(tmp_path / "run")
    assert "2 of 3 tracks have no lyrics" in lyrics_warnings(loaded, words)[0]
    assert lyrics_warnings(loaded, words[1:2]) == []
    dropped = dataclasses.replace(CONFIG, epochs=1, modality_dropout=0.2)  # some were trained as ones without
    train(FeatureStore.open(tmp_path / "wordy.zarr"), tmp_path / "dropped", dropped)
    assert lyrics_warnings(load_run(tmp_path / "dropped"), words) == []


def test_a_track_that_failed_is_named(result: TrainingResult, make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(n_tracks=4)
    world.failed.add(2)
    with pytest.raises(TrackUnavailableError, match="t0002"):
        score_store(load_run(result.run), world.write(tmp_path / "s.zarr"), np.array([1, 2]))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "labels.json", "preprocessor.json", "thresholds.json", "graph.json"]
)
def test_an_altered_model_is_refused_by_name(result: TrainingResult, tmp_path: Path, name: str) -> None:
    shutil.copytree(result.run / "best", tmp_path / "best")
    data = bytearray((tmp_path / "best" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "best" / name).write_bytes(data)
    with pytest.raises(RunError, match=name):
        load_run(tmp_path / "best")


def test_a_folder_without_a_model_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no trained model"):
        load_run(tmp_path)


def test_loaded_recipe_is_the_stores(result: TrainingResult, small_store: FeatureStore) -> None:
    loaded = load_run(result.run)
    assert loaded.recipe == small_store.recipe
    assert loaded.fingerprints == small_store.fingerprints
    assert isinstance(loaded.recipe.lyrics, TextRecipe)


@pytest.fixture(scope="module")
def patchy(make_world: MakeWorld, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """40 tracks, two of them failed."""
    world = make_world()
    world.failed |= {3, 17}
    store: FeatureStore = world.write(tmp_path_factory.mktemp("patchy") / "patchy.zarr")
    return store


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_catalogue_becomes_a_file_with_a_row_a_track(
    result: TrainingResult, patchy: FeatureStore, call: Callable[..., Any], tmp_path: Path, form: str
) -> None:
    loaded = load_run(result.run)
    scores = score_store(loaded, patchy).scores
    done = call(
        "predict", result.run, patchy.path, "-o", tmp_path / f"scores.{form}", "--threshold", "per-genre", "--json"
    ).json
    assert (done["tracks"], done["failed"], done["reasons"]) == (40, 2, {"NOT_AUDIO": 2})
    assert [path.name for path in tmp_path.iterdir()] == [f"scores.{form}"]
    rows = _read(tmp_path / f"scores.{form}", loaded.genres)
    assert [row["id"] for row in rows] == patchy.tracks.column("id").to_pylist()
    assert [(row["id"], row["reason"]) for row in rows if not row["scores"]] == [
        ("t0003", "NOT_AUDIO"),
        ("t0017", "NOT_AUDIO"),
    ]
    good = [row for row in rows if row["scores"]]
    np.testing.assert_allclose([[row["scores"][name] for name in loaded.genres] for row in good], scores, rtol=1e-6)
    for row, values in zip(good, scores, strict=True):
        cuts = zip(loaded.genres, values, loaded.thresholds.per_genre, strict=True)
        assert row["genres"] == [name for name, value, cut in cuts if value >= cut]


def _read(path: Path, genres: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of each form in one form."""
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


def test_thresholds_can_be_chosen(result: TrainingResult, patchy: FeatureStore, call: Callable[..., Any]) -> None:
    loaded = load_run(result.run)
    by_itself = call("predict", result.run, patchy.path, "--json").json
    for choice, cut in (("overall", loaded.thresholds.overall), ("0.5", 0.5), ("0", 0.0), ("1", 1.0)):
        done = call("predict", result.run, patchy.path, "--threshold", choice, "--json").json
        assert [row["genres"] for row in done["predictions"]] == [
            [name for name in loaded.genres if row["scores"] and row["scores"][name] >= cut]
            for row in done["predictions"]
        ]
        assert done["remarks"][0] == loaded.thresholds.describe(choice, loaded.genres)
        assert (done == by_itself) == (choice == "overall")
    assert (
        loaded.thresholds.describe("per-genre", loaded.genres)
        in call("predict", result.run, patchy.path, "--threshold", "per-genre").err
    )
    for choice in ("1.1", "nan", "best"):
        refused = call("predict", result.run, patchy.path, "--threshold", choice)
        assert (refused.code, "Use overall, per-genre, or a number" in refused.err) == (2, True)


def test_blocks_are_what_one_pass_gives_and_a_file_appears_whole_or_not_at_all(
    result: TrainingResult, patchy: FeatureStore, tmp_path: Path
) -> None:
    loaded = load_run(result.run)
    told: list[tuple[int, int]] = []
    blocks = list(
        predict_blocks(
            loaded, patchy, PredictOptions(), block_tracks=7, on_progress=lambda step, *done: told.append(done[:2])
        )
    )
    assert [block.tracks.num_rows for block in blocks] == [7, 7, 7, 7, 7, 5]
    scores = np.concatenate([block.scores[block.has_scores] for block in blocks])
    np.testing.assert_allclose(scores, score_store(loaded, patchy).scores, atol=1e-5)
    assert told == sorted(told)
    assert told[-1] == (38, 38)

    def cut_short() -> Any:
        yield blocks[0]
        raise RuntimeError("the machine went away")

    for name in ("s.parquet", "s.csv", "s.jsonl"):
        with pytest.raises(RuntimeError, match="went away"):
            write_predictions(tmp_path / name, cut_short())
    assert list(tmp_path.iterdir()) == []


def test_a_track_tried_again_is_predicted_once_and_one_not_extracted_yet_is_named(
    result: TrainingResult, make_world: MakeWorld, tmp_path: Path
) -> None:
    world = make_world(n_tracks=16)
    world.failed |= {2}
    store = world.write(tmp_path / "s.zarr")
    again = store.tracks.select(PLAN_SCHEMA.names).slice(2, 1)
    store.close()
    append_generation(tmp_path / "s.zarr", read_plan(tmp_path / "s.zarr"), "retry", again)
    (block,) = predict_blocks(load_run(result.run), FeatureStore.open(tmp_path / "s.zarr"), PredictOptions())
    rows = {row["id"]: row["reason"] for row in block.tracks.to_pylist()}
    assert len(rows) == block.tracks.num_rows == 16
    assert {name: reason for name, reason in rows.items() if reason} == {"t0002": "PENDING"}


def test_predictions_go_into_files_of_known_kinds(
    result: TrainingResult, patchy: FeatureStore, call: Callable[..., Any], tmp_path: Path
) -> None:
    refused = call("predict", result.run, patchy.path, "-o", tmp_path / "scores.xlsx")
    assert (refused.code, ".parquet, .csv, .jsonl" in refused.err) == (2, True)


def test_best_copied_elsewhere_predicts_the_same_numbers_from_there(
    result: TrainingResult,
    patchy: FeatureStore,
    call: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another folder, another working directory, the run gone."""
    before = call("predict", result.run, patchy.path, "--json").json["predictions"]
    shutil.copytree(result.run / "best", tmp_path / "elsewhere" / "model")
    shutil.copytree(patchy.path, tmp_path / "elsewhere" / "songs.zarr")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("predict", "model", "songs.zarr", "--json").json["predictions"] == before
    told = b"".join(path.read_bytes() for path in Path("model").iterdir())
    assert str(result.run.parent).encode() not in told
    assert str(patchy.path.parent).encode() not in told
