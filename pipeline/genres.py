"""Genre names -> vectors of the same frozen encoder: the nodes of the genre graph (paper.md section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .text import TextEncoder


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
