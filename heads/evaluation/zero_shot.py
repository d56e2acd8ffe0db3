"""Score genres that a model has not seen, from their names: for models with the genre-query head."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from ...cache.errors import ConfigError, TextModelError
from ...cache.messages import join_names
from ..model.graph import cosine
from ..model.query import QueryHead
from ..runs.published_model import LoadedModel

MIN_COSINE = 0.99
"""Least cosine between a stored name vector and the one computed again: bf16 and fp32 differ by less."""


def check_zero_shot(loaded: LoadedModel) -> QueryHead:
    """Return the head of a model that can score unseen genres; raise :class:`ConfigError` for another model."""
    head = getattr(loaded.model, "query", None)
    if head is None or loaded.recipe.lyrics is None:
        raise ConfigError(
            f"--genres: {loaded.folder} has no vector for the name of a genre (head {loaded.training.head}). Train a "
            "model with --head query."
        )
    if not isinstance(head, QueryHead):
        raise TypeError(type(head))
    return head


def with_zero_shot(
    loaded: LoadedModel, names: Sequence[str], embed: Callable[[Sequence[str]], npt.NDArray[np.float32]]
) -> LoadedModel:
    """Return a model with untrained genres after its own: `names` without those that it has.

    Parameters
    ----------
    embed : names of genres -> (n, D) vectors, by the text encoder and the genre name prompts of the model.

    Raises
    ------
    ConfigError
        If the model has another head, or a name is empty or given twice.
    TextModelError
        If the encoder does not give the name vectors of the trained genres.

    Notes
    -----
    A name vector is centred with the mean of the trained ones, as in training. The free vectors and the bias of an
    unseen genre are the means of the trained ones.
    """
    check_zero_shot(loaded)
    if not all(name.strip() for name in names) or len(set(names)) < len(names):
        raise ConfigError(f"--genres: a name is empty or given twice: {join_names(names)}. Give each name once.")
    new = [name for name in names if name not in loaded.genres]
    model = copy.deepcopy(loaded.model)
    head = check_zero_shot(dataclasses.replace(loaded, model=model))
    vectors = embed([*loaded.genres, *new]).astype(np.float64)
    if loaded.model.config.graph_similarity == "centred" and len(loaded.genres) > 1:
        vectors -= vectors[: len(loaded.genres)].mean(axis=0)
    trained, unseen = vectors[: len(loaded.genres)], vectors[len(loaded.genres) :]
    same = [cosine(np.stack(pair))[0, 1] for pair in zip(trained, head.nodes.numpy(), strict=True)]
    if min(same) < MIN_COSINE:
        raise TextModelError(
            f"{loaded.folder}: the text encoder gives other vectors for the trained genres (least cosine "
            f"{min(same):.3f}). Use the encoder and the genre name prompts of the training."
        )
    head.add_untrained(torch.from_numpy(unseen).float())
    return dataclasses.replace(loaded, model=model, genres=(*loaded.genres, *new), n_zero_shot=len(new))
