"""Prediction: scores of a trained model for tracks of a feature store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..cache.errors import RecipeMismatchError
from ..cache.store import FeatureStore
from .bundle import LoadedModel, load_run
from .data import Examples, FeatureBatches, Home
from .device import resolve_device
from .scoring import probabilities, score_logits

__all__ = ["LoadedModel", "load_run", "lyrics_warnings", "predict_store", "recipe_differences", "refuse_other_recipe"]

_HARMLESS = ("lyrics.model:", "lyrics.precision:")
"""The name tells people only (hashes decide); fp32 and bf16 states agree within cosine 0.999 a token."""


def predict_store(
    loaded: LoadedModel,
    store: FeatureStore,
    rows: npt.NDArray[np.int64] | None = None,
    *,
    batch_size: int = 16,
    device: str = "auto",
    on_track: Callable[[int, int], None] | None = None,
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Score tracks; a track's scores do not depend on which others are asked for.

    Parameters
    ----------
    rows : array rows with status ok; all of them by default.
    on_track : called with tracks done and tracks in all.

    Returns
    -------
    ids : of the tracks, in the order of `rows`.
    scores : (n, C) float32 in [0, 1], columns as ``loaded.genres``.

    Raises
    ------
    RecipeMismatchError
        If the store's features are made by another recipe than the model's; lists the differences.
    TrackUnavailableError
        If a row has no features.
    """
    refuse_other_recipe(loaded, store)
    rows = store.ok_rows if rows is None else np.asarray(rows, dtype=np.int64)
    examples = Examples.of(store, rows, np.zeros((len(rows), len(loaded.genres)), dtype=np.bool_))
    place = resolve_device(device)
    model = loaded.model.to(place)
    # A track is read once, so nothing is gained by keeping it.
    batches = FeatureBatches(
        store,
        examples,
        home=Home(name="mapped", n_bytes=0, free_bytes=0),
        device=place,
        text_dim=model.config.text_dim,
    )
    logits = score_logits(
        model,
        batches,
        np.arange(len(rows), dtype=np.int64),
        batch_size=batch_size,
        on_batch=None if on_track is None else lambda done: on_track(done, len(rows)),
    )
    return list(examples.ids), probabilities(logits)


def recipe_differences(loaded: LoadedModel, store: FeatureStore) -> list[str]:
    """What makes the store's features unfit for the model, one line each: ``mel.hop_length: 512 here, 256 there``.

    Only features the model uses count. A store without any text will do: every track then counts as one without
    lyrics.
    """
    unused = {"audio": ("lyrics.",), "lyrics": ("mel.",)}.get(loaded.model.config.modalities, ())
    if store.recipe.lyrics is None and loaded.model.config.modalities == "both":
        unused = ("lyrics.",)
    return [line for line in loaded.recipe.differences(store.recipe) if not line.startswith((*_HARMLESS, *unused))]


def refuse_other_recipe(loaded: LoadedModel, store: FeatureStore) -> None:
    """Raise :class:`RecipeMismatchError` where :func:`recipe_differences` finds any."""
    differences = recipe_differences(loaded, store)
    if differences:
        raise RecipeMismatchError(
            f"{store.path}: its features are not of the recipe the model in {loaded.folder} was trained on (model "
            f"here, store there): {'; '.join(differences)}; extract with the model's recipe"
        )


def lyrics_warnings(loaded: LoadedModel, store: FeatureStore, rows: npt.NDArray[np.int64]) -> list[str]:
    """What to know before trusting scores of tracks without lyrics; empty where there is nothing to say."""
    if loaded.model.config.modalities == "audio" or loaded.n_without_lyrics:
        return []
    has_text = store.recipe.lyrics is not None
    without = int((store.read("lyrics_tokens", rows) == 0).sum()) if has_text else len(rows)
    if not without:
        return []
    return [f"{without} of {len(rows)} tracks have no lyrics, but the model was trained on tracks with lyrics only: "
            "their scores are a guess"]  # fmt: skip
