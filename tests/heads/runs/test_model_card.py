"""Test the model card: its content, its format for the Hugging Face hub, and figures of the validation split."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import mgc
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.evaluation.evaluate import evaluate
from mgc.heads.metrics import bootstrap
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.train import TrainingResult, train

SMALL = {"encoder": "tiny", "model_options": {"width": 32, "graph_hidden": 32, "projection_dim": 16}}
CONFIG = TrainConfig(lr=2e-3, epochs=2, precision="fp32", **SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """Let two artists be enough for an interval."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "FEW_GROUPS", 2)
        yield


@pytest.fixture(scope="module")
def result(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(small_store, tmp_path_factory.mktemp("card") / "run", CONFIG)


def card_of(run: Path) -> tuple[dict[str, Any], str]:
    card = ModelCard.load(run / "best" / "README.md")
    return card.data.to_dict(), card.text


def test_front_matter_is_read_by_the_hub_and_leaves_the_licence_open(result: TrainingResult) -> None:
    data, text = card_of(result.run)
    assert (data["library_name"], data["pipeline_tag"]) == ("mgc", "audio-classification")
    assert (data["license"], data["license_name"]) == ("other", "to-be-filled-in")
    assert {"music", "multi-label-classification", "lyrics"} <= set(data["tags"])
    assert "Licence of these weights: [to be filled in" in text


def test_figures_and_intervals_equal_those_of_the_validation_split(
    result: TrainingResult, small_store: FeatureStore
) -> None:
    metrics = evaluate(result.run, small_store, split="validation", n_replicates=200, save=False).metrics.to_dict()
    text = card_of(result.run)[1]
    estimates = {"mAP": metrics["mean_average_precision"]}
    for column, name in (
        ("fixed", "at threshold 0.5"),
        ("tuned", "at the overall threshold"),
        ("tuned_per_genre", "at per-genre thresholds"),
    ):
        estimates[f"Jaccard {name}"] = metrics["columns"][column]["jaccard"]
    for name, estimate in estimates.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {name}")]
        assert line.endswith(f"| {estimate['value']:.3f} | {estimate['low']:.3f} to {estimate['high']:.3f} |")


def test_model_index_has_the_figures_of_the_card(result: TrainingResult) -> None:
    """The model-index is read and written back by the classes of huggingface_hub."""
    card = ModelCard.load(result.run / "best" / "README.md")
    figures = {figure.metric_name: figure for figure in card.data.eval_results}
    (line,) = [line for line in card.text.splitlines() if line.startswith("| Jaccard at threshold 0.5")]
    assert float(line.split("|")[2]) == pytest.approx(figures["Jaccard at threshold 0.5"].metric_value, abs=6e-4)
    best = load_run(result.run).validation["map"]
    assert figures["mAP (macro, genres with a validation track)"].metric_value == pytest.approx(best, abs=6e-5)
    for figure in figures.values():
        assert (figure.dataset_split, figure.task_type) == ("validation", "audio-classification")
        assert figure.metric_type in ("mean_average_precision", "jaccard", "f1")
        assert figure.dataset_name.startswith("[to be filled in")
    assert ModelCard(card.content).data.to_dict()["model-index"] == card.data.to_dict()["model-index"]


def test_snapshot_of_the_hub_is_loaded_as_a_model(
    result: TrainingResult, small_store: FeatureStore, tmp_path: Path
) -> None:
    """Files by content under blobs/, links to them under snapshots/<revision>/, and a file that the hub adds."""
    blobs, snapshot = tmp_path / "models--me--genres" / "blobs", tmp_path / "models--me--genres" / "snapshots" / "1f0c"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in (result.run / "best").iterdir():
        (blobs / hashlib.sha256(path.read_bytes()).hexdigest()).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest())
    (snapshot / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    predictions = mgc.load_model(snapshot).predict_all(small_store.path)
    assert predictions == mgc.load_model(result.run).predict_all(small_store.path)


def test_card_has_data_thresholds_and_limits_but_no_paths(result: TrainingResult, small_store: FeatureStore) -> None:
    text, loaded = card_of(result.run)[1], load_run(result.run)
    artists = {
        small_store.tracks.column("artists")[int(row)].as_py()[0]
        for row in result.task.examples.rows[: result.task.n_train]
    }
    assert f"Trained on {result.task.n_train} tracks by {len(artists)} artists" in text
    assert "Split `artist`: no artist is in two splits" in text
    for genre, count, cut in zip(loaded.genres, loaded.train_counts, loaded.thresholds.per_genre, strict=True):
        assert f"| {genre} | {count} | {cut:.4f}" in text
    assert "Out-of-scope use" in text
    assert "tracks without lyrics are unreliable" not in text  # some training tracks had no lyrics
    assert str(result.run.parent) not in text
    assert str(small_store.path.parent) not in text


def test_card_of_a_baseline_states_reconstruction_and_escapes_genre_names(
    make_world: Callable[..., Any], tmp_path: Path
) -> None:
    world = make_world()
    for track in world.tracks:
        track["genres"] = ["a | b <script>" if name == "rock" else name for name in track["genres"]]
    store = world.write(tmp_path / "s.zarr")
    train(store, tmp_path / "run", dataclasses.replace(CONFIG, model="santana", epochs=1))
    data, text = card_of(tmp_path / "run")
    assert "reconstructed" in text
    assert "lyrics" not in data["tags"]
    assert "| a \\| b &lt;script> |" in text
    assert "text encoder" not in text


def test_card_counts_genre_name_prompts(result: TrainingResult, make_world: Callable[..., Any], tmp_path: Path) -> None:
    assert "genre name prompt" not in card_of(result.run)[1]
    world = make_world(n_tracks=24)
    world.recipe = dataclasses.replace(world.recipe, genre_names={"rock": "rock music", "polka": "polka dance"})
    prompted = train(world.write(tmp_path / "s.zarr"), tmp_path / "run", dataclasses.replace(CONFIG, epochs=1))
    assert "| head | genre graph; 1 of 5 genres have a genre name prompt |" in card_of(prompted.run)[1]
