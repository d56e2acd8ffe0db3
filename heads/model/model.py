"""Define the paper's model from audio encoder, fusion, head and projections, and build systems by name.

Shapes: B batch, M mel bands, T mel frames, L lyrics tokens, D text width, C genres, P projection width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .audio_cnn import CHANNELS, AudioEncoder
from .baselines import Pandeya, Santana
from .batch import Batch, Outputs
from .config import MEL, ModelConfig
from .contrastive import ContrastiveProjection
from .embeddings import EmbeddingEncoder
from .fusion import Fusion, masked_mean
from .graph import CROWDED_COSINE, GenreGraph, centre
from .query import QueryHead
from .system import System

ABOUT: Mapping[str, str] = {
    "ru2023": "the model of Ru et al. 2023, with the deviations in docs/model.md",
    "santana": "the audio baseline of Ru et al. 2023 after Santana et al. 2020, reconstructed: five convolutional "
    "blocks, global average, one linear layer",
    "pandeya": "the audio and lyrics baseline of Ru et al. 2023 after Pandeya and Lee 2021, reconstructed: a dense "
    "CNN, concatenated with the mean of the lyrics",
}
"""One-line descriptions of the systems, for model cards and help."""


EmbeddingStatistics = Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]


class GenreModel(System):
    """The system ``ru2023``: multi-label genre classifier over cached features.

    Parameters
    ----------
    config : shape and options.
    adjacency : (C, C) A_hat (:func:`mgc.heads.model.graph.build_adjacency`). Like the next three, it is a buffer that
        is saved with the weights; the defaults are placeholders for loaded weights.
    genre_embedding : (C, D) genre-name embeddings as stored; centred here if the configuration requires it.
    mel_mean, mel_std : dB, over the valid frames of the training split.
    embedding_statistics : name of an added feature set -> mean and standard deviation, (L, D) each; see
        :class:`mgc.heads.model.embeddings.EmbeddingEncoder`.

    Notes
    -----
    Ru et al. 2023. With ``text_dim`` 768 and the default options 4 063 457 + 768 + C parameters.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        adjacency: npt.ArrayLike | Tensor | None = None,
        genre_embedding: npt.ArrayLike | Tensor | None = None,
        mel_mean: float = 0.0,
        mel_std: float = 1.0,
        embedding_statistics: EmbeddingStatistics | None = None,
    ) -> None:
        super().__init__(config, mel_mean=mel_mean, mel_std=mel_std)
        audio, lyrics = config.modalities != "lyrics", config.modalities != "audio"
        has_mel, width = MEL in config.audio, CHANNELS[config.encoder][-1]
        self.encoder = AudioEncoder(config.encoder, n_mels=config.n_mels) if audio and has_mel else None
        statistics = embedding_statistics or {}
        self.embeddings = nn.ModuleList(
            EmbeddingEncoder(config.embeddings[name], width, statistics=statistics.get(name))
            for name in config.audio
            if audio and name != MEL
        )
        self.no_lyrics = nn.Parameter(torch.zeros(config.text_dim)) if lyrics else None
        self.fusion = Fusion(
            audio_dim=width if audio else None,
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
        self.query: QueryHead | None = None
        self.classifier: nn.Linear | None = None
        self.bias: nn.Parameter | None = None
        if config.head == "graph":
            self.graph = GenreGraph(
                _checked("adjacency", adjacency, np.eye(config.n_genres)),
                _nodes(config, genre_embedding),
                hidden=config.graph_hidden,
                out_width=self.fusion.out_width,
            )
            self.bias = nn.Parameter(torch.zeros(config.n_genres)) if config.bias else None
        elif config.head == "query":
            self.query = QueryHead(
                _nodes(config, genre_embedding),
                width=config.width,
                heads=config.heads,
                dropout=config.dropout,
                ffn=config.ffn,
                uniform=config.uniform_attention,
                bias=config.bias,
            )
        else:
            self.classifier = nn.Linear(self.fusion.out_width, config.n_genres, bias=config.bias)
        self.projection: ContrastiveProjection | None = None
        if config.contrastive and audio:
            self.projection = ContrastiveProjection(
                width,
                config.text_dim,
                config.projection_dim,
                normalise=config.normalise,
                tau_init=config.tau_init,
                tau_scale=config.tau_scale,
            )

    @property
    def output_bias(self) -> Tensor | None:
        """Bias of the logits, (C,); None with ``bias=False``."""
        if self.query is not None:
            return self.query.bias
        return self.bias if self.classifier is None else self.classifier.bias

    @property
    def tau(self) -> Tensor | None:
        """Learned temperature, (); None without projections."""
        return self.projection.temperature if self.projection is not None else None

    def clamp_temperature(self) -> None:
        """Clamp tau to its range; call after each optimizer step."""
        if self.projection is not None:
            self.projection.clamp_temperature()

    def start_warnings(self) -> list[str]:
        """Return a warning if all classifiers start with nearly the same direction, so that the model cannot learn."""
        row_cosine = self.graph.row_cosine() if self.graph is not None else math.nan
        if not row_cosine > CROWDED_COSINE:
            return []
        return [
            f"the initial classifiers of the genre graph have mean cosine {row_cosine:.4f}, so every genre gets nearly "
            "the same score. Use --set graph_similarity=centred or --set graph_normalisation=ml-gcn."
        ]

    def forward(self, batch: Batch) -> Outputs:
        """Score every genre for each track of `batch`, on the model's device."""
        audio = self._encode_audio(batch) if self.config.modalities != "lyrics" else None
        lyrics = self._lyrics(batch) if self.no_lyrics is not None else None
        fused = self.fusion(audio, lyrics)
        if self.query is not None:
            # Training does not use the vector.
            outputs = Outputs(logits=self.query(*fused.memory), fused=None if self.training else fused.vector)
        else:
            vector = fused.vector
            outputs = Outputs(logits=self._classify(vector), fused=vector)
        if self.projection is not None and audio is not None:
            outputs.audio_embedding, outputs.lyrics_embedding = self.projection(
                masked_mean(*audio), self._pooled_lyrics(batch)
            )
            outputs.tau = self.projection.temperature
            outputs.frames = audio[0]
        return outputs

    def attention_maps(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Return the cross-modal attention weights of `batch`, as of :meth:`Fusion.attention_maps`."""
        if self.config.modalities != "both":
            return None
        return self.fusion.attention_maps(self._encode_audio(batch), self._lyrics(batch))

    def _encode_audio(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the audio frames (B, K, E) and their mask, or weights, (B, K).

        The frames of several inputs follow each other. The weights give each input the same share of a mean, whatever
        its number of frames.
        """
        inputs = []
        if self.encoder is not None:
            mel, valid = self.normalise_mel(batch)
            inputs.append(self.encoder.encode(mel, valid, padded=batch.padded))
        added = (name for name in self.config.audio if name != MEL)
        inputs += [encoder(*batch.embeddings[name]) for name, encoder in zip(added, self.embeddings, strict=True)]
        if len(inputs) == 1:
            return inputs[0]
        frames, masks = zip(*inputs, strict=True)
        return torch.cat(frames, dim=1), torch.cat([mask / mask.sum(dim=1, keepdim=True) for mask in masks], dim=1)

    def _lyrics(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the token states and their mask. The learned token replaces padding; it is valid without lyrics."""
        assert self.no_lyrics is not None
        states = batch.lyrics if batch.lyrics.shape[1] else batch.lyrics.new_zeros(len(batch), 1, self.config.text_dim)
        n_tokens = states.shape[1]
        steps, lengths = torch.arange(n_tokens, device=states.device), batch.lyrics_tokens[:, None]
        return torch.where((steps < lengths)[..., None], states, self.no_lyrics), steps < lengths.clamp(min=1)

    def _pooled_lyrics(self, batch: Batch) -> Tensor:
        """Return E_l, (B, D); 0 without lyrics, since gradients must be finite even for rows that the loss ignores."""
        states = batch.lyrics_pooled if self.config.lyrics_pooling == "mean" else self._lyrics(batch)[0][:, 0]
        return states.masked_fill((batch.lyrics_tokens == 0)[:, None], 0.0)

    def _classify(self, vector: Tensor) -> Tensor:
        with torch.autocast(vector.device.type, enabled=False):
            if self.graph is None:
                assert self.classifier is not None
                plain: Tensor = self.classifier(vector)
                return plain
            logits: Tensor = vector @ self.graph().T
            if self.config.logit_scale:
                logits = logits / math.sqrt(vector.shape[-1])
            return logits if self.bias is None else logits + self.bias


def _nodes(config: ModelConfig, genre_embedding: npt.ArrayLike | Tensor | None) -> Tensor:
    """Return (C, D) name vectors as the head uses them; zeros if there are none yet."""
    nodes = _checked("genre_embedding", genre_embedding, np.zeros((config.n_genres, config.text_dim)))
    return torch.from_numpy(centre(nodes)) if config.graph_similarity == "centred" else nodes


def _checked(name: str, array: npt.ArrayLike | Tensor | None, default: npt.NDArray[np.float64]) -> Tensor:
    """Return `array`, or `default` if it is None, as float64; raise ``ValueError`` for another shape or NaN."""
    values = default if array is None else _float64(array)
    if values.shape != default.shape:
        raise ValueError(f"{name} has shape {values.shape}, expected {default.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinity")
    return torch.from_numpy(values)


def _float64(array: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
    if isinstance(array, Tensor):
        return array.detach().cpu().double().numpy()
    return np.asarray(array, dtype=np.float64)


def build_system(
    config: ModelConfig,
    *,
    adjacency: npt.ArrayLike | Tensor | None = None,
    genre_embedding: npt.ArrayLike | Tensor | None = None,
    mel_mean: float = 0.0,
    mel_std: float = 1.0,
    embedding_statistics: EmbeddingStatistics | None = None,
) -> System:
    """Build a system with initial weights; parameters as those of :class:`GenreModel`, if the system uses them."""
    if config.model == "santana":
        return Santana(config, mel_mean=mel_mean, mel_std=mel_std)
    if config.model == "pandeya":
        return Pandeya(config, mel_mean=mel_mean, mel_std=mel_std)
    return GenreModel(
        config,
        adjacency=adjacency,
        genre_embedding=genre_embedding,
        mel_mean=mel_mean,
        mel_std=mel_std,
        embedding_statistics=embedding_statistics,
    )
