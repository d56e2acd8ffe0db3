"""The model: audio encoder, fusion, genre graph and contrastive projections, put together from one configuration.

Shapes: B batch, M mel bands, T mel frames, L lyric tokens, D text width, C genres, P projection width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..cache.errors import ConfigError
from .audio_cnn import AudioEncoder, EncoderName, encoder_frames, valid_mask
from .fusion import Fusion, LyricsPooling, masked_mean
from .graph import CROWDED_COSINE, Conditional, GenreGraph, GraphOptions, Normalisation, Similarity, centre
from .projection import TAU_MAX, TAU_MIN, ContrastiveProjection

Modalities = Literal["both", "audio", "lyrics"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides the model's shape. ``dataclasses.asdict`` and :meth:`from_dict` go to JSON and back.

    Attributes
    ----------
    n_genres, text_dim, n_mels : C, D and M, from the store and the labels.
    encoder : audio encoder; ``base`` is the paper's size.
    width, heads, dropout, ffn, attention, uniform_attention : fusion; ``heads=1`` is Eq. 1 to the letter,
        ``attention=False`` the ablation, ``uniform_attention`` a control.
    lyrics_pooling : mean over the non-special tokens, or the [CLS] token, for fusion and for ``E_l``.
    graph : classifiers from the genre graph; False is the ablation ``Linear(width, C)``.
    graph_conditional, graph_similarity, graph_normalisation, graph_hidden : see :class:`GraphOptions`.
    logit_scale, bias : ``logits = f W^T [/ sqrt(width of f)] [+ b]``.
    contrastive, projection_dim, normalise, tau_init : audio-lyrics contrastive part.
    modalities : ``audio`` or ``lyrics`` alone need ``attention=False`` and ``contrastive=False``.
    """

    n_genres: int
    text_dim: int
    n_mels: int = 128
    encoder: EncoderName = "base"
    width: int = 256
    heads: int = 4
    dropout: float = 0.1
    ffn: bool = False
    attention: bool = True
    uniform_attention: bool = False
    lyrics_pooling: LyricsPooling = "mean"
    graph: bool = True
    graph_conditional: Conditional = "rhs"
    graph_similarity: Similarity = "centred"
    graph_normalisation: Normalisation = "symmetric"
    graph_hidden: int = 1024
    logit_scale: bool = False
    bias: bool = True
    contrastive: bool = True
    projection_dim: int = 256
    normalise: bool = True
    tau_init: float = 0.07
    modalities: Modalities = "both"

    def __post_init__(self) -> None:
        for name in ("n_genres", "text_dim", "n_mels", "width", "heads", "graph_hidden", "projection_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, known in (
            ("encoder", get_args(EncoderName)),
            ("lyrics_pooling", get_args(LyricsPooling)),
            ("modalities", get_args(Modalities)),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is {self.dropout}; it must be in [0, 1)")
        if not TAU_MIN <= self.tau_init <= TAU_MAX:
            raise ConfigError(f"tau_init is {self.tau_init}; tau is kept in [{TAU_MIN}, {TAU_MAX}]")
        if self.modalities != "both" and (self.attention or self.contrastive):
            raise ConfigError(f"modalities={self.modalities!r} needs attention=False and contrastive=False")
        _ = self.graph_options

    @property
    def graph_options(self) -> GraphOptions:
        """How the trainer is to build the adjacency of this model."""
        return GraphOptions(
            conditional=self.graph_conditional,
            similarity=self.graph_similarity,
            normalisation=self.graph_normalisation,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """From ``dataclasses.asdict``; unknown keys are refused."""
        unknown = sorted(set(data) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"model configuration has unknown keys {', '.join(unknown)}; is it of a newer mgc?")
        return cls(**data)


@dataclass(kw_only=True)
class Batch:
    """Cached features and labels of B tracks.

    Attributes
    ----------
    mel : (B, M, T) float, dB as stored; not normalised.
    mel_frames : (B,) int64, frames that hold sound.
    lyrics : (B, L, D) float, token states, anything beyond the length.
    lyrics_tokens : (B,) int64, tokens with [CLS] and [SEP]; 0 without lyrics.
    lyrics_pooled : (B, D) float, mean over non-special tokens; 0 without lyrics.
    labels : (B, C) float 0/1.
    track_key, lyrics_key : (B,) int64; equal keys mean the same track, the same lyrics; ``lyrics_key`` -1: none.
    rows : (B,) int64, rows of the store.
    """

    mel: Tensor
    mel_frames: Tensor
    lyrics: Tensor
    lyrics_tokens: Tensor
    lyrics_pooled: Tensor
    labels: Tensor
    track_key: Tensor
    lyrics_key: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return Batch(
            **{
                field.name: getattr(self, field.name).to(device, non_blocking=non_blocking)
                for field in dataclasses.fields(self)
            }
        )


@dataclass(kw_only=True)
class Outputs:
    """What the model gives: logits (B, C) float32 and, with the contrastive part, two (B, P) embeddings and tau ()."""

    logits: Tensor
    audio_embedding: Tensor | None = None
    lyrics_embedding: Tensor | None = None
    tau: Tensor | None = None


class GenreModel(nn.Module):
    """Multi-label genre classifier over cached features.

    Parameters
    ----------
    config : shape and options.
    adjacency : (C, C) A_hat of :func:`mgc.heads.graph.build_adjacency`. Like the next three a buffer, saved with the
        weights; the defaults are placeholders for weights loaded afterwards.
    genre_embedding : (C, D) genre-name embeddings as stored; centred here where the configuration says so.
    mel_mean, mel_std : dB, over the valid frames of the training split.

    Notes
    -----
    Ru et al. 2023. With ``text_dim`` 768 and the default options 4 063 457 + 768 + C parameters.
    """

    mel_mean: Tensor
    mel_std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        *,
        adjacency: npt.ArrayLike | Tensor | None = None,
        genre_embedding: npt.ArrayLike | Tensor | None = None,
        mel_mean: float = 0.0,
        mel_std: float = 1.0,
    ) -> None:
        super().__init__()
        if not (math.isfinite(mel_mean) and math.isfinite(mel_std) and mel_std > 0):
            raise ValueError(f"mel mean {mel_mean} and standard deviation {mel_std} cannot normalise a spectrogram")
        self.config = config
        self.register_buffer("mel_mean", torch.tensor(float(mel_mean)))
        self.register_buffer("mel_std", torch.tensor(float(mel_std)))
        audio, lyrics = config.modalities != "lyrics", config.modalities != "audio"
        self.encoder = AudioEncoder(config.encoder, n_mels=config.n_mels) if audio else None
        self.no_lyrics = nn.Parameter(torch.zeros(config.text_dim)) if lyrics else None
        self.fusion = Fusion(
            audio_dim=self.encoder.out_channels if self.encoder is not None else None,
            text_dim=config.text_dim if lyrics else None,
            width=config.width,
            heads=config.heads,
            dropout=config.dropout,
            attention=config.attention,
            ffn=config.ffn,
            uniform=config.uniform_attention,
            lyrics_pooling=config.lyrics_pooling,
        )
        self.graph: GenreGraph | None = None
        self.classifier: nn.Linear | None = None
        self.bias: nn.Parameter | None = None
        if config.graph:
            self.graph = _genre_graph(config, adjacency, genre_embedding, self.fusion.out_width)
            self.bias = nn.Parameter(torch.zeros(config.n_genres)) if config.bias else None
        else:
            self.classifier = nn.Linear(self.fusion.out_width, config.n_genres, bias=config.bias)
        self.projection: ContrastiveProjection | None = None
        if config.contrastive and self.encoder is not None:
            self.projection = ContrastiveProjection(
                self.encoder.out_channels,
                config.text_dim,
                config.projection_dim,
                normalise=config.normalise,
                tau_init=config.tau_init,
            )

    @property
    def tau(self) -> Tensor | None:
        """The learned temperature, (); None without the contrastive part."""
        return self.projection.tau if self.projection is not None else None

    def clamp_temperature(self) -> None:
        """Keep tau in [0.001, 0.5]; call after each optimizer step."""
        if self.projection is not None:
            self.projection.clamp_temperature()

    def start_warnings(self) -> list[str]:
        """What is wrong before the first step: classifier rows that all point one way (then nothing is learnt)."""
        row_cosine = self.graph.row_cosine() if self.graph is not None else math.nan
        if not row_cosine > CROWDED_COSINE:
            return []
        return [
            f"the genre graph starts with classifiers at mean cosine {row_cosine:.4f}, so every genre gets the same "
            "score; use graph_similarity 'centred' or graph_normalisation 'ml-gcn'"
        ]

    def forward(self, batch: Batch) -> Outputs:
        """Score every genre for each track of `batch`, on the model's device."""
        audio = self._encode_audio(batch) if self.encoder is not None else None
        lyrics = self._lyrics(batch) if self.no_lyrics is not None else None
        fused = self.fusion(audio, lyrics)
        outputs = Outputs(logits=self._classify(fused))
        if self.projection is not None and audio is not None:
            frames, n_frames = audio
            e_a = masked_mean(frames, valid_mask(n_frames, frames.shape[1]))
            outputs.audio_embedding, outputs.lyrics_embedding = self.projection(e_a, self._pooled_lyrics(batch))
            outputs.tau = self.projection.tau
        return outputs

    def normalise_mel(self, mel_BMT: Tensor, mel_frames: Tensor) -> Tensor:
        """``(mel - mean) / std``, and 0 in frames at or beyond `mel_frames`, whatever they hold."""
        normalised = (mel_BMT.to(self.mel_mean.dtype) - self.mel_mean) / self.mel_std
        valid = valid_mask(mel_frames.clamp(min=1), mel_BMT.shape[-1])
        return normalised.masked_fill(~valid[:, None, :], 0.0)

    def _encode_audio(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert self.encoder is not None
        mel = self.normalise_mel(batch.mel, batch.mel_frames)
        return self.encoder(mel, batch.mel_frames), encoder_frames(batch.mel_frames, mel.shape[-1])

    def _lyrics(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Token states, the learned token where there are none, and lengths of at least 1."""
        assert self.no_lyrics is not None
        states = batch.lyrics.to(self.no_lyrics.dtype)
        if states.shape[1] == 0:
            states = states.new_zeros(len(states), 1, self.config.text_dim)
        absent = batch.lyrics_tokens == 0
        first = torch.where(absent[:, None], self.no_lyrics, states[:, 0])
        states = torch.cat([first[:, None], states[:, 1:]], dim=1)
        return states, batch.lyrics_tokens.clamp(min=1)

    def _pooled_lyrics(self, batch: Batch) -> Tensor:
        """E_l (B, D); 0 without lyrics, where the loss leaves the row out but its gradient must be finite."""
        states = batch.lyrics_pooled if self.config.lyrics_pooling == "mean" else self._lyrics(batch)[0][:, 0]
        return states.masked_fill((batch.lyrics_tokens == 0)[:, None], 0.0)

    def _classify(self, fused: Tensor) -> Tensor:
        with torch.autocast(fused.device.type, enabled=False):
            if self.graph is None:
                assert self.classifier is not None
                plain: Tensor = self.classifier(fused)
                return plain
            logits: Tensor = fused @ self.graph().T
            if self.config.logit_scale:
                logits = logits / math.sqrt(fused.shape[-1])
            return logits if self.bias is None else logits + self.bias


def _genre_graph(
    config: ModelConfig,
    adjacency: npt.ArrayLike | Tensor | None,
    genre_embedding: npt.ArrayLike | Tensor | None,
    out_width: int,
) -> GenreGraph:
    n_genres, text_dim = config.n_genres, config.text_dim
    a_hat = _float64(adjacency) if adjacency is not None else np.eye(n_genres)
    nodes = _float64(genre_embedding) if genre_embedding is not None else np.zeros((n_genres, text_dim))
    for name, array, shape in (
        ("adjacency", a_hat, (n_genres, n_genres)),
        ("genre_embedding", nodes, (n_genres, text_dim)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; {n_genres} genres of width {text_dim} need {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity")
    if config.graph_similarity == "centred":
        nodes = centre(nodes)
    return GenreGraph(torch.from_numpy(a_hat), torch.from_numpy(nodes), hidden=config.graph_hidden, out_width=out_width)


def _float64(array: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
    if isinstance(array, Tensor):
        return array.detach().cpu().double().numpy()
    return np.asarray(array, dtype=np.float64)
