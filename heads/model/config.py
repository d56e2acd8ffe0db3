"""The options that decide a system's shape, checked when they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ...cache.errors import ConfigError
from .audio_cnn import EncoderName
from .contrastive import TAU_MAX, TAU_MIN
from .fusion import LyricsPooling
from .graph import Conditional, GraphOptions, Normalisation, Similarity
from .mel_level import MelLevel, Reference

SystemName = Literal["ours", "santana", "pandeya"]
Modalities = Literal["both", "audio", "lyrics"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides a system's shape. ``dataclasses.asdict`` and :meth:`from_dict` go to JSON and back.

    Attributes
    ----------
    n_genres, text_dim, n_mels : C, D and M, from the store and the labels.
    model : which system (:mod:`mgc.heads.model.systems`). Of what follows, ``santana`` has encoder, mel and bias, and
        ``pandeya`` also width and dropout, of its dense layer.
    encoder : audio encoder; ``base`` is the paper's size.
    mel_reference, mel_top_db : level of the spectrogram as read; see :class:`mgc.heads.model.mel_level.MelLevel`.
    width, heads, dropout, ffn, attention, uniform_attention : fusion; ``heads=1`` is Eq. 1 to the letter,
        ``attention=False`` the ablation, ``uniform_attention`` a control.
    lyrics_pooling : mean over the non-special tokens, or the [CLS] token, for fusion and for ``E_l``.
    graph : classifiers from the genre graph; False is the ablation ``Linear(width, C)``.
    graph_conditional, graph_similarity, graph_normalisation, graph_threshold, graph_reweight : see
        :class:`GraphOptions`; the last two are ML-GCN's.
    graph_hidden : inner width of the graph convolution.
    logit_scale, bias : ``logits = f W^T [/ sqrt(width of f)] [+ b]``.
    contrastive, projection_dim, normalise, tau_init : audio-lyrics contrastive part.
    modalities : ``audio`` or ``lyrics`` alone need ``attention=False`` and ``contrastive=False``.
    """

    n_genres: int
    text_dim: int
    n_mels: int = 128
    model: SystemName = "ours"
    encoder: EncoderName = "base"
    mel_reference: Reference = "one"
    mel_top_db: float | None = None
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
    graph_threshold: float = 0.4
    graph_reweight: float = 0.25
    graph_hidden: int = 1024
    logit_scale: bool = False
    bias: bool = True
    contrastive: bool = True
    projection_dim: int = 256
    normalise: bool = True
    tau_init: float = 0.07
    modalities: Modalities = "both"

    def __post_init__(self) -> None:
        self._check_types()
        for name in ("n_genres", "text_dim", "n_mels", "width", "heads", "graph_hidden", "projection_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, known in (
            ("model", get_args(SystemName)),
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
        if self.model != "ours" and (self.attention or self.contrastive or self.graph):
            raise ConfigError(f"model={self.model!r} has no attention, graph or contrastive part; set them to False")
        fixed = {"santana": "audio", "pandeya": "both"}.get(self.model, self.modalities)
        if self.modalities != fixed:
            raise ConfigError(f"model={self.model!r} works on modalities={fixed!r}, not {self.modalities!r}")
        _ = self.graph_options, self.mel_level

    def _check_types(self) -> None:
        for item in dataclasses.fields(self):
            value, kind = getattr(self, item.name), type(item.default)
            if kind is bool and not isinstance(value, bool):
                raise ConfigError(f"{item.name} is {value!r}; want true or false")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if kind is int and not (number and isinstance(value, int)):
                raise ConfigError(f"{item.name} is {value!r}; want a whole number")
            if kind is float and not number:
                raise ConfigError(f"{item.name} is {value!r}; want a number")
        if self.mel_top_db is not None and type(self.mel_top_db) not in (int, float):
            raise ConfigError(f"mel_top_db is {self.mel_top_db!r}; want dB, or none")

    @property
    def graph_options(self) -> GraphOptions:
        """How the trainer is to build the adjacency of this model."""
        return GraphOptions(
            conditional=self.graph_conditional,
            similarity=self.graph_similarity,
            normalisation=self.graph_normalisation,
            threshold=self.graph_threshold,
            reweight=self.graph_reweight,
        )

    @property
    def mel_level(self) -> MelLevel:
        """How stored spectrograms are read."""
        return MelLevel(reference=self.mel_reference, top_db=self.mel_top_db)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """From ``dataclasses.asdict``; unknown keys are refused."""
        unknown = sorted(set(data) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"model configuration has unknown keys {', '.join(unknown)}; is it of a newer mgc?")
        return cls(**data)
