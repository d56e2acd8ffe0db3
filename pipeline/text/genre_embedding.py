"""Genre names -> vectors of the same frozen encoder: the nodes of the genre graph (paper.md section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...cache.format.recipe import Recipe
from .encoder import TextEncoder, TextSource, load_encoder


def embed_genres(encoder: TextEncoder, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embed genre names, each as a text of its own.

    Parameters
    ----------
    encoder : the encoder of the lyrics.
    names : G genre names.

    Returns
    -------
    (G, hidden_size) float32
        Rows in the order of `names`: the mean of the non-special tokens' states, neither centred nor normalised (that
        is the reader's choice).
    """
    embedding = np.zeros((len(names), encoder.recipe.hidden_size), dtype=np.float32)
    for row, name in zip(embedding, names, strict=True):
        row[:] = encoder.encode(name).pooled
    return embedding


def embed_prompts(genres: Sequence[str], recipe: Recipe, text: TextSource) -> npt.NDArray[np.float32]:
    """Embed the genre name prompts of `recipe` by its encoder: (genre, text_dim) float32."""
    assert recipe.lyrics is not None
    if not genres:
        return np.zeros((0, recipe.lyrics.hidden_size), dtype=np.float32)
    return embed_genres(load_encoder(text, recipe.lyrics), [recipe.genre_names.get(genre, genre) for genre in genres])
