"""Scores of genres from their names only: marked in every output, never predicted, refused for other models."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_world import World

from mgc.cache.errors import ConfigError, TextModelError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.evaluation.predict import score_store
from mgc.heads.evaluation.zero_shot import with_zero_shot
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.train import train
from mgc.pipeline.text import encoder


def embed(names: Sequence[str], *_: object) -> np.ndarray:
    return np.stack([World.name_vector(name) for name in names])


@pytest.fixture(scope="module")
def run(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zero") / "run"
    options = {"encoder": "tiny", "epochs": 1, "modalities": "lyrics", "attention": False, "contrastive": False}
    train(
        small_store, path, TrainConfig(head="query", genres=("blues", "folk", "jazz", "metal"), device="cpu", **options)
    )
    return path


def test_scores_of_trained_genres_stay_and_an_unseen_one_is_computed_from_its_name(
    run: Path, small_store: FeatureStore
) -> None:
    loaded = load_run(run)
    extended = with_zero_shot(loaded, ["rock", "blues"], embed)
    assert (extended.genres, extended.n_zero_shot) == ((*loaded.genres, "rock"), 1)
    scores, before = score_store(extended, small_store).scores, score_store(loaded, small_store).scores
    np.testing.assert_allclose(scores[:, :4], before, atol=1e-6)
    head, query = loaded.model.query, extended.model.query
    node = World.name_vector("rock") - embed(loaded.genres).mean(axis=0)
    np.testing.assert_allclose(query.nodes[4].numpy(), node, atol=1e-5)
    for name in ("query", "output", "bias"):
        np.testing.assert_allclose(
            getattr(query, name)[4].detach().numpy(), getattr(head, name).detach().numpy().mean(axis=0), atol=1e-6
        )
    assert np.isinf(extended.cuts("overall")[4])
    assert load_run(run).model.query.nodes.shape == (4, 12), "the model itself is unchanged"


def test_every_output_marks_zero_shot_scores(
    run: Path, small_store: FeatureStore, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "embed_prompts", embed)
    command = ("predict", run, small_store.path, "--genres", "rock, shoegaze", "--threshold", "0")
    result = call(*command, "--json").json
    first = result["predictions"][0]
    assert list(first["zero_shot"]) == ["rock", "shoegaze"]
    assert list(first["scores"]) == ["blues", "folk", "jazz", "metal"]
    assert sorted(first["genres"]) == ["blues", "folk", "jazz", "metal"], "at threshold 0 all but the unseen genres"
    assert "zero-shot, from the name only: rock, shoegaze. These scores have no threshold." in result["remarks"]
    assert call(*command).out.count("zero-shot") == 80
    for suffix in ("csv", "parquet", "jsonl"):
        call(*command, "-o", tmp_path / f"s.{suffix}")
    columns = [f"score: {name}" for name in ("blues", "folk", "jazz", "metal")]
    columns += ["zero-shot score: rock", "zero-shot score: shoegaze"]
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.column_names[-6:] == columns
    assert table.column(columns[-1])[0].as_py() == pytest.approx(first["zero_shot"]["shoegaze"])
    assert next(csv.reader((tmp_path / "s.csv").read_text().splitlines()))[-6:] == columns
    row = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])
    assert row["zero_shot"] == pytest.approx(first["zero_shot"])


def test_models_and_names_that_cannot_be_scored_are_refused(run: Path, evaluated_run: Path) -> None:
    with pytest.raises(ConfigError, match=r"no vector for the name of a genre .head graph.. Train a"):
        with_zero_shot(load_run(evaluated_run), ["rock"], embed)
    for names in (["rock", "rock"], ["rock", " "]):
        with pytest.raises(ConfigError, match="empty or given twice"):
            with_zero_shot(load_run(run), names, embed)
    with pytest.raises(TextModelError, match="other vectors for the trained genres"):
        with_zero_shot(load_run(run), ["rock"], lambda names: embed([f"{name} music" for name in names]))
