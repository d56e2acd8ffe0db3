"""The systems by name: what each is, and how to make the one that a configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy.typing as npt
from torch import Tensor

from .baselines import Pandeya, Santana
from .config import ModelConfig
from .model import GenreModel
from .system import System

ABOUT: Mapping[str, str] = {
    "ours": "the model of Ru et al. 2023, with the deviations that docs/model.md names",
    "santana": "the audio baseline of Ru et al. 2023 after Santana et al. 2020, reconstructed: five convolutional "
    "blocks, global average, one linear layer",
    "pandeya": "the audio and lyrics baseline of Ru et al. 2023 after Pandeya and Lee 2021, reconstructed: a dense "
    "CNN, concatenated with the mean of the lyrics",
}
"""One line for people on each system."""


def build_system(
    config: ModelConfig,
    *,
    adjacency: npt.ArrayLike | Tensor | None = None,
    genre_embedding: npt.ArrayLike | Tensor | None = None,
    mel_mean: float = 0.0,
    mel_std: float = 1.0,
) -> System:
    """A system with fresh weights; `adjacency` and `genre_embedding` are for those with a genre graph."""
    if config.model == "santana":
        return Santana(config, mel_mean=mel_mean, mel_std=mel_std)
    if config.model == "pandeya":
        return Pandeya(config, mel_mean=mel_mean, mel_std=mel_std)
    return GenreModel(config, adjacency=adjacency, genre_embedding=genre_embedding, mel_mean=mel_mean, mel_std=mel_std)
