"""The options that decide a system's shape, checked when they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ...cache.bounds import Between, Count, check_options
from ...cache.errors import ConfigError
from .audio_cnn import EncoderName, MelLevel, Reference
from .contrastive import TAU_MAX, TAU_MIN, TemperatureScale
from .fusion import LyricsPooling
from .graph import Conditional, GraphOptions, Normalisation, Similarity

SystemName = Literal["ours", "santana", "pandeya"]
Modalities = Literal["both", "audio", "lyrics"]
HeadName = Literal["graph", "linear", "query"]

BASELINE_MODALITIES: Mapping[str, Modalities] = {"santana": "audio", "pandeya": "both"}
"""The modalities of the baselines, which have no attention, graph or contrastive part."""


def with_head(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of 0.1, which had ``graph: true`` or ``false`` in the place of ``head``, as they are now."""
    others = {name: value for name, value in options.items() if name != "graph"}
    return others if len(others) == len(options) else {"head": "graph" if options["graph"] else "linear", **others}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides a system's shape. ``dataclasses.asdict`` and :meth:`from_dict` go to JSON and back.

    Attributes
    ----------
    n_genres, text_dim, n_mels : C, D and M, from the store and the labels.
    model : which system, as :data:`mgc.heads.model.model.ABOUT` describes them. Of what follows, ``santana`` has
        encoder, mel and bias, and ``pandeya`` also width and dropout, of its dense layer.
    encoder : audio encoder; ``base`` is the paper's size.
    mel_reference, mel_top_db : level of the spectrogram as read; see :class:`mgc.heads.model.audio_cnn.MelLevel`.
    width, heads, dropout, ffn, attention, uniform_attention : fusion; ``heads=1`` is Eq. 1 to the letter,
        ``attention=False`` the ablation, ``uniform_attention`` a control.
    lyrics_pooling : mean over the non-special tokens, or the [CLS] token, for fusion and for ``E_l``.
    head : ``graph``: classifiers from the genre graph; ``linear``: its ablation, ``Linear(width of f, C)``; ``query``:
        :class:`mgc.heads.model.query.QueryHead`.
    graph_conditional, graph_similarity, graph_normalisation, graph_threshold, graph_reweight : see
        :class:`GraphOptions`; the last two are ML-GCN's.
    graph_hidden : inner width of the graph convolution.
    logit_scale, bias : ``logits = f W^T [/ sqrt(width of f)] [+ b]``.
    contrastive, projection_dim, normalise, tau_init, tau_scale : audio-lyrics contrastive part; see
        :class:`mgc.heads.model.contrastive.ContrastiveProjection`.
    modalities : ``audio`` or ``lyrics`` alone need ``attention=False`` and ``contrastive=False``.
    """

    n_genres: Count
    text_dim: Count
    n_mels: Count = 128
    model: SystemName = "ours"
    encoder: EncoderName = "base"
    mel_reference: Reference = "one"
    mel_top_db: float | None = None
    width: Count = 256
    heads: Count = 4
    dropout: Annotated[float, Between(0, 1, below=True)] = 0.1
    ffn: bool = False
    attention: bool = True
    uniform_attention: bool = False
    lyrics_pooling: LyricsPooling = "mean"
    head: HeadName = "graph"
    graph_conditional: Conditional = "rhs"
    graph_similarity: Similarity = "centred"
    graph_normalisation: Normalisation = "symmetric"
    graph_threshold: float = 0.4
    graph_reweight: float = 0.25
    graph_hidden: Count = 1024
    logit_scale: bool = False
    bias: bool = True
    contrastive: bool = True
    projection_dim: Count = 256
    normalise: bool = True
    tau_init: Annotated[float, Between(TAU_MIN, TAU_MAX)] = 0.07
    tau_scale: TemperatureScale = "linear"
    modalities: Modalities = "both"

    def __post_init__(self) -> None:
        check_options(self)
        if self.modalities != "both" and (self.attention or self.contrastive):
            raise ConfigError(f"modalities={self.modalities!r} needs attention=False and contrastive=False")
        if self.model in BASELINE_MODALITIES:
            if self.attention or self.contrastive or self.head != "linear":
                raise ConfigError(
                    f"model={self.model!r} has no attention, contrastive part or head but a linear one; set them so"
                )
            if self.modalities != (works_on := BASELINE_MODALITIES[self.model]):
                raise ConfigError(f"model={self.model!r} works on modalities={works_on!r}, not {self.modalities!r}")
        _ = self.mel_level  # checks mel_top_db

    @property
    def graph_options(self) -> GraphOptions:
        """How the trainer is to build the adjacency of this model."""
        return GraphOptions(
            **{item.name: getattr(self, f"graph_{item.name}") for item in dataclasses.fields(GraphOptions)}
        )

    @property
    def mel_level(self) -> MelLevel:
        """How stored spectrograms are read."""
        return MelLevel(reference=self.mel_reference, top_db=self.mel_top_db)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """From ``dataclasses.asdict``, of this mgc or an older one; unknown keys are refused."""
        data = with_head(data)
        unknown = sorted(set(data) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"model configuration has unknown keys {', '.join(unknown)}; is it of a newer mgc?")
        return cls(**data)
