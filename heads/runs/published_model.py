"""Write and load the published model, ``best/``: all that prediction needs, independent of test tracks.

It contains no path, time, machine or hash of a whole store, so equal runs publish equal bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch.overrides import TorchFunctionMode

from ...cache.durable import seal
from ...cache.errors import MgcError, RunError
from ...cache.format.recipe import ExtractorRecipe, Recipe, extractor_recipe, recipe_document
from ...cache.messages import join_names
from ...cache.reading.store import FeatureStore
from ..config import TrainConfig
from ..data.labels import LabelMatrix, left_out
from ..data.task import Task
from ..metrics.thresholds import Thresholds
from ..metrics.trivial_baselines import majority_set
from ..model.config import ModelConfig
from ..model.graph import graph_document
from ..model.model import build_system
from ..model.system import System
from .checkpoint import WEIGHTS
from .documents import (
    FORMAT_VERSION,
    DamagedError,
    LabelsDocument,
    ModelDocument,
    PartName,
    PreprocessorDocument,
    ThresholdsDocument,
    check_document,
    check_file,
    find_model,
    read_sealed,
)
from .model_card import CardFacts, model_card
from .tensor_files import load_weights, tensor_shapes


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A trained model with its genres, thresholds and recipe.

    Attributes
    ----------
    model : in evaluation mode, on the CPU.
    genres : names of the C outputs.
    thresholds : tuned on the validation split.
    recipe : recipe of the features it was trained on; features for prediction must match it.
    added : name -> recipe of the added feature sets of its audio input, which must match likewise.
    train_counts, n_train : training tracks per genre, (C,), and in total.
    majority : (C,) bool, the label set that fits the training tracks best.
    n_without_lyrics : training tracks without lyrics. With 0, scores of tracks without lyrics are unreliable.
    n_zero_shot : number of genres at the end without training; see :mod:`mgc.heads.evaluation.zero_shot`.
    """

    folder: Path
    model: System
    genres: tuple[str, ...]
    thresholds: Thresholds
    recipe: Recipe
    added: Mapping[str, ExtractorRecipe]
    fingerprints: dict[str, str]
    training: TrainConfig
    train_counts: npt.NDArray[np.int64]
    n_train: int
    majority: LabelMatrix
    n_without_lyrics: int
    epoch: int
    validation: dict[str, Any]
    n_zero_shot: int = 0

    def cuts(self, choice: str) -> npt.NDArray[np.float64]:
        """Return the thresholds of all outputs, (C,); infinite for genres without training, which have none."""
        return np.append(self.thresholds.cuts(choice), np.full(self.n_zero_shot, np.inf))

    @property
    def label_prior(self) -> npt.NDArray[np.float64]:
        """Share of the training tracks with each genre, (C,): the scores of a baseline without features."""
        return self.train_counts / max(1, self.n_train)


def bundle_files(
    task: Task, config: TrainConfig, store: FeatureStore, facts: CardFacts, *, weights: bytes
) -> dict[str, bytes]:
    """Return the files of ``best/`` by name, from the safetensors bytes `weights` and the `facts` of the best epoch."""
    recipe, added = store.recipe, {name: store.extractors[name] for name in config.added_audio}
    names, majority = list(task.genres.names), majority_set(task.train_labels)
    preprocessor: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "fingerprints": recipe.fingerprints(),
        "mel_mean_db": task.statistics.mean_db,
        "mel_std_db": task.statistics.std_db,
        "mel_values_seen": task.statistics.n_values,
    }
    if added:
        preprocessor["added"] = {name: recipe_document(extractor) for name, extractor in added.items()}
    labels = {
        "genres": names,
        "train_counts": task.train_labels.sum(axis=0).tolist(),
        "n_train": task.n_train,
        "majority": list(itertools.compress(names, majority)),
        "filters": left_out(task.genres.steps),
    }
    graph: dict[str, Any] = {"genres": names, "used": False}
    if task.graph is not None and task.graph_summary is not None:
        graph = graph_document(task.graph, task.graph_summary, names, task.model.graph_options)
    files = {
        WEIGHTS: weights,
        "preprocessor.json": seal(preprocessor),
        "labels.json": seal(labels),
        "thresholds.json": seal({"genres": names, **facts.thresholds.to_dict()}),
        "graph.json": seal(graph),
    }
    parts = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    document = {
        "format_version": FORMAT_VERSION,
        "model": dataclasses.asdict(task.model),
        "training": config.to_dict(),
        "precision": facts.precision,
        "epoch": facts.epoch,
        "validation": dict(facts.validation),
        "n_parameters": facts.n_parameters,
        "n_without_lyrics": task.n_without_lyrics,
        "parts": parts,
    }
    if facts.finished:
        document["validation_intervals"] = {name: dict(value) for name, value in facts.estimates.items()}
    card = model_card(task, config, recipe, facts, added).encode()
    return {**files, "README.md": card, "config.json": seal(document)}


def load_run(folder: Path) -> LoadedModel:
    """Load a published model from ``best/`` or its run folder.

    Raises
    ------
    RunError
        If a file is missing, truncated, altered or of another format. ``mgc train --resume`` repairs ``best/``.
    """
    folder = find_model(folder)
    config = _read(folder, "config.json", ModelDocument)
    try:
        _check_parts(folder, config)
    except DamagedError as error:
        raise RunError(f"{error}. Repair a run with `mgc train --resume`, or restore the file from a copy.") from error
    labels, preprocessor, thresholds = (_read(folder, name, kind) for name, kind in _DOCUMENTS.items())
    shape, names = ModelConfig.from_dict(config["model"]), labels["genres"]
    lengths = {shape.n_genres, len(set(names)), len(labels["train_counts"])}
    lengths |= {len(thresholds["per_genre"]), len(thresholds["fallback"])}
    if lengths != {len(names)} or thresholds.pop("genres") != names:
        raise RunError(
            f"{folder}: labels.json, thresholds.json and config.json have different genres. Restore them from a copy."
        )
    recipe = Recipe.from_dict(preprocessor["recipe"])
    if preprocessor["fingerprints"].keys() != recipe.fingerprints().keys():
        raise RunError(
            f"{folder / 'preprocessor.json'}: recipe and fingerprints have different features. Restore it from a copy."
        )
    added = {name: extractor_recipe(document) for name, document in preprocessor.get("added", {}).items()}
    if added.keys() != shape.embeddings.keys():
        raise RunError(
            f"{folder}: preprocessor.json and config.json have different audio features. Restore them from a copy."
        )
    with torch.random.fork_rng(devices=[]):  # building draws initial weights, which are then replaced
        model = _build(folder, shape)
    load_weights(model, folder / WEIGHTS)
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise RunError(f"{folder / WEIGHTS}: weights are not finite. Restore the file from a copy.")
    model.eval()
    return LoadedModel(
        folder=folder,
        model=model,
        genres=tuple(labels["genres"]),
        thresholds=Thresholds.from_dict(thresholds),
        recipe=recipe,
        added=added,
        fingerprints=preprocessor["fingerprints"],
        training=TrainConfig.from_dict(config["training"]),
        train_counts=np.asarray(labels["train_counts"], dtype=np.int64),
        n_train=labels["n_train"],
        majority=np.isin(np.asarray(labels["genres"]), labels["majority"]),
        n_without_lyrics=config["n_without_lyrics"],
        epoch=config["epoch"],
        validation=config["validation"],
    )


def weights_sha256(folder: Path) -> str | None:
    """Return the hash of the weights published in `folder`; None if a file of it is missing, truncated or altered."""
    try:
        config = _read(folder, "config.json", ModelDocument)
        _check_parts(folder, config)
    except RunError:
        return None
    return str(config["parts"][WEIGHTS]) if (folder / "README.md").is_file() else None


def has_intervals(folder: Path) -> bool:
    """Whether the model published in `folder` has confidence intervals, which come after the last epoch."""
    return "validation_intervals" in _read(folder, "config.json", ModelDocument)


_DOCUMENTS = {
    "labels.json": LabelsDocument,
    "preprocessor.json": PreprocessorDocument,
    "thresholds.json": ThresholdsDocument,
}


def _read(folder: Path, name: str, kind: Any) -> dict[str, Any]:
    document = read_sealed(folder / name)
    check_document(folder / name, document, kind)
    return document


class _NoNormals(TorchFunctionMode):
    """Leave out the draws of normal weights: on the meta device torch imports its whole compiler for them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ == "normal_":  # a tensor's, or that of nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _build(folder: Path, config: ModelConfig) -> System:
    """Build a system for the weights of a folder, after checking their shapes, so that no memory is wasted.

    Raises
    ------
    RunError
        If the weights do not have the shapes of the config.
    """
    stored = tensor_shapes(folder / WEIGHTS)
    n_values = sum(map(math.prod, stored.values()))
    if config.head != "linear" and config.n_genres * max(config.n_genres, config.text_dim) > n_values:
        raise RunError(f"{folder / WEIGHTS}: no weights for {config.n_genres} genres. Restore it from a copy.")
    try:
        with torch.device("meta"), _NoNormals():
            expected = {name: tuple(value.shape) for name, value in build_system(config).state_dict().items()}
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, MgcError):
            raise
        raise RunError(f"{folder / 'config.json'}: invalid shape ({error}). Restore it from a copy.") from error
    if expected != stored:
        names = sorted(name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name))
        raise RunError(
            f"{folder / WEIGHTS}: not the weights of this model: {join_names(names)} differ. Restore it from a copy."
        )
    return build_system(config)


def _check_parts(folder: Path, config: dict[str, Any]) -> None:
    if missing := sorted(set(get_args(PartName)) - config["parts"].keys()):
        raise RunError(f"{folder / 'config.json'}: {missing[0]} is not listed. Restore it from a copy.")
    for name, sha256 in config["parts"].items():
        check_file(folder / name, sha256)
