"""Test published models from untrusted sources: sealed but invalid files are refused before use."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from mgc.cache.durable import seal, unseal
from mgc.cache.errors import MgcError, RunError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.data.splits import Split
from mgc.heads.runs.checkpoint import find_state
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.train import train


@pytest.fixture
def run(evaluated_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated_run, tmp_path / "run"))


def rewrite(run: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a document of ``best/``, and seal it and the config that lists it."""
    path = run / "best" / name
    document = unseal(path)
    change(document)
    path.write_bytes(seal(document))
    name_part(run, name)


def name_part(run: Path, name: str) -> None:
    config = unseal(run / "best/config.json")
    if name in config.get("parts", {}):
        config["parts"][name] = hashlib.sha256((run / "best" / name).read_bytes()).hexdigest()
        (run / "best/config.json").write_bytes(seal(config))


HOSTILE: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("config.json", lambda d: d.update(more=1), "'more' is not a documented key"),
    ("config.json", lambda d: d.pop("epoch"), "epoch is missing"),
    ("config.json", lambda d: d["parts"].update({"../../secret": "0" * 64}), "parts is '../../secret'"),
    ("config.json", lambda d: d["parts"].pop("labels.json"), "labels.json is not listed"),
    ("config.json", lambda d: d["model"].update(n_genres=10**9), "different genres"),
    ("config.json", lambda d: d["model"].update(text_dim=10**9), "no weights for 5 genres"),
    ("config.json", lambda d: d["model"].update(width=10**12), "not the weights of this model|invalid shape"),
    ("config.json", lambda d: d["model"].update(heads=7), "invalid shape|heads"),
    ("config.json", lambda d: d["model"].update(encoder="huge"), "model.encoder is 'huge'"),
    ("config.json", lambda d: d["training"].update(epochs="x"), "training.epochs is 'x'"),
    ("labels.json", lambda d: d["genres"].append("more"), "different genres"),
    ("labels.json", lambda d: d.update(train_counts=[-1] * 5), r"train_counts\[0\] is -1"),
    ("labels.json", lambda d: d.update(genres=[["rock"]] * 5), r"genres\[0\] is \['rock'\]"),
    ("thresholds.json", lambda d: d["per_genre"].pop(), "different genres"),
    ("thresholds.json", lambda d: d.update(overall=2), "overall is 2"),
    ("preprocessor.json", lambda d: d["recipe"]["mel"].update(hop_length=0), "hop_length is 0"),
    ("preprocessor.json", lambda d: d.update(fingerprints={}), "fingerprints"),
]


@pytest.mark.parametrize(("name", "change", "message"), HOSTILE)
def test_sealed_document_that_breaks_the_format_is_refused(
    run: Path, name: str, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    rewrite(run, name, change)
    with pytest.raises(MgcError, match=message):
        load_run(run)


def test_weights_of_other_shapes_are_refused_from_their_header(run: Path) -> None:
    path = run / "best/model.safetensors"
    weights = safetensors.torch.load_file(path)
    for name, value in [
        ("mel_mean", torch.zeros(3)),
        ("smuggled", torch.zeros(1)),
        ("mel_std", torch.tensor(torch.nan)),
    ]:
        path.write_bytes(safetensors.torch.save({**weights, name: value}))
        name_part(run, path.name)
        with pytest.raises(RunError, match=f"{name} differ|not finite"):
            load_run(run)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    name_part(run, path.name)
    with pytest.raises(RunError, match="not a valid safetensors file"):
        load_run(run)


MODEL_0_1 = (
    "n_genres text_dim n_mels model encoder mel_reference mel_top_db width heads dropout ffn attention "
    "uniform_attention lyrics_pooling graph graph_conditional graph_similarity graph_normalisation graph_threshold "
    "graph_reweight graph_hidden logit_scale bias contrastive projection_dim normalise tau_init modalities"
)
TRAINING_0_1 = (
    "preset model seed split split_seed genres top_genres min_genre_count min_labels epochs batch_size lr optimizer "
    "schedule lr_halve_every warmup_epochs weight_decay grad_clip patience lambda_ loss bce_reduction prior_bias "
    "modality_dropout spec_augment encoder attention graph contrastive modalities model_options device precision home "
    "compile deterministic"
)
"""Keys of mgc 0.1."""


def as_in_0_1(options: dict[str, Any], keys: str) -> dict[str, Any]:
    """Return the options in the form of mgc 0.1."""
    assert options["model"] == "ru2023"
    options = {**options, "graph": options["head"] == "graph", "model": "ours", "home": options.get("placement")}
    return {key: options[key] for key in keys.split()}


def test_run_of_mgc_0_1_is_loaded_and_resumed(run: Path, small_store: FeatureStore) -> None:
    expected = load_run(run)
    rewrite(run, "config.json", lambda d: d.update(model=as_in_0_1(d["model"], MODEL_0_1)))
    rewrite(run, "config.json", lambda d: d.update(training=as_in_0_1(d["training"], TRAINING_0_1)))
    for path in (run / "last").glob("state-*.json"):
        document = unseal(path)
        document["config"] = as_in_0_1(document["config"], TRAINING_0_1)
        path.write_bytes(seal(document))
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in history:
        del record["gradient_contrastive"], record["gradient_classification"]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in history))
    loaded = load_run(run)
    assert loaded.model.config == expected.model.config
    assert loaded.training == expected.training
    longer = dataclasses.replace(loaded.training, epochs=loaded.training.epochs + 1)
    assert [record.epoch for record in train(small_store, run, longer, resume=True).history][-1] == longer.epochs


CHECKPOINTS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda d: d["files"]["weights"].update(name="../best/model.safetensors"), "files.weights.name"),
    (lambda d: d["files"].pop("optimizer"), "files.optimizer is missing"),
    (lambda d: d.update(epoch="1"), "epoch is '1'"),
    (lambda d: d.update(epoch=7), "content does not match the name"),
    (lambda d: d.update(within={"steps": None}), "within"),
    (lambda d: d.update(config={"epochs": -1}), "config.epochs is -1"),
]


@pytest.mark.parametrize(("change", "message"), CHECKPOINTS)
def test_checkpoint_that_breaks_the_format_is_refused(
    run: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    for path in (run / "last").glob("state-*.json"):
        document = unseal(path)
        change(document)
        path.write_bytes(seal(document))
    with pytest.raises(RunError, match=message):
        find_state(run)


def test_split_that_breaks_the_format_is_refused(run: Path) -> None:
    document = unseal(run / "splits.json")
    for change in ({"ids": {"train": []}}, {"ids": None}, {"notes": [1]}, {"seed": -1}, {"more": 1}):
        (run / "splits.json").write_bytes(seal({**document, **change}))
        with pytest.raises(RunError, match=next(iter(change))):
            Split.load(run / "splits.json")
