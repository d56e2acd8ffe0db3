"""Define and check the options of a system.

Commands check options before they import torch, so this module does not import it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from ...cache.bounds import Between, Count, check_options
from ...cache.errors import ConfigError

SystemName = Literal["ru2023", "santana", "pandeya"]
Modalities = Literal["both", "audio", "lyrics"]
HeadName = Literal["graph", "linear", "query"]
EncoderName = Literal["base", "lite", "tiny"]
Reference = Literal["one", "max"]
LyricsPooling = Literal["mean", "cls"]
Conditional = Literal["rhs", "lhs"]
Similarity = Literal["centred", "raw"]
Normalisation = Literal["symmetric", "row", "ml-gcn", "reweighted"]
TemperatureScale = Literal["linear", "log"]
TAU_MIN, TAU_MAX = 0.001, 0.5
Loss = Literal["bce", "asymmetric"]

BASELINE_MODALITIES: Mapping[str, Modalities] = {"santana": "audio", "pandeya": "both"}
"""Modalities of the baselines, which have no attention, graph or contrastive loss."""


MEL = "mel"
"""Name of the audio input that the audio CNN encodes; every other name is an added feature set."""


def audio_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of audio inputs in the order of the model: ``mel`` first, then the others sorted.

    Parameters
    ----------
    names : names, or one text with commas between them.

    Raises
    ------
    ConfigError
        If there is no name, or a duplicate.
    """
    listed = names.split(",") if isinstance(names, str) else list(names) if isinstance(names, Iterable) else [names]
    listed = [str(name).strip() for name in listed]
    if not all(listed) or not listed or len(set(listed)) != len(listed):
        raise ConfigError(f"audio={','.join(listed)!r}: empty, or with duplicates. Give names such as mel,musicnn.")
    return tuple(sorted(listed, key=lambda name: (name != MEL, name)))


OLD_SYSTEM_NAMES: Mapping[object, SystemName] = {"ours": "ru2023"}


def upgrade_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of mgc 0.1 with the names of this version: ``head``, ``placement``, and the system ``ru2023``.

    They were ``graph`` (true or false), ``home`` and ``ours``.
    """
    current = {"placement" if name == "home" else name: value for name, value in options.items() if name != "graph"}
    if "graph" in options:
        current = {"head": "graph" if options["graph"] else "linear", **current}
    if isinstance(model := current.get("model"), str):
        current["model"] = OLD_SYSTEM_NAMES.get(model, model)
    return current


@dataclass(frozen=True, kw_only=True)
class MelLevel:
    """Reference level and dynamic range of spectrograms, applied on reading.

    Stores keep dB re 1.0 without clipping, so that one store supports every level.

    Attributes
    ----------
    reference : power at 0 dB: ``one`` is 1.0, as stored; ``max`` is the maximum of each track.
    top_db : dynamic range in dB: values further below the maximum are raised to its limit; None does not clip.
    """

    reference: Reference = "one"
    top_db: float | None = None

    def __post_init__(self) -> None:
        if self.reference not in get_args(Reference):
            raise ConfigError(
                f"mel_reference={self.reference!r}: unknown. Choose one of {', '.join(get_args(Reference))}."
            )
        if self.top_db is not None and not self.top_db > 0:
            raise ConfigError(f"mel_top_db={self.top_db}: out of range. Use a value above 0 dB, or null.")


@dataclass(frozen=True, kw_only=True)
class EmbeddingShape:
    """Widths of an added feature set as audio input: `layers`, which are averaged, of `dim` values."""

    dim: Count
    layers: Count = 1


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """Options of the adjacency matrix.

    Attributes
    ----------
    conditional : divide co-occurrence by ``N_j`` (``rhs``: the printed right-hand side of Eq. 2) or ``N_i`` (``lhs``).
    similarity : cosine of name vectors ``centred`` over genres and clipped at 0, or ``raw`` (Eq. 3 as printed).
    normalisation : ``symmetric``: D^-1/2 A D^-1/2. ``row``: D^-1 A. ``reweighted``: (1 - p) I + p R, where R is A
        without its diagonal and with rows that sum to 1. ``ml-gcn``: co-occurrence only, thresholded and re-weighted as
        in Chen et al. (CVPR 2019).
    threshold : ``t`` of ``ml-gcn``.
    reweight : ``p`` of ``ml-gcn`` and of ``reweighted``, from 0 (no graph) to 1.
    """

    conditional: Conditional = "rhs"
    similarity: Similarity = "centred"
    normalisation: Normalisation = "symmetric"
    threshold: float = 0.4
    reweight: float = 0.25

    def __post_init__(self) -> None:
        kinds = {"conditional": Conditional, "similarity": Similarity, "normalisation": Normalisation}
        for name, kind in kinds.items():
            value, choices = getattr(self, name), get_args(kind)
            if value not in choices:
                raise ConfigError(f"graph_{name}={value!r}: unknown. Choose one of {', '.join(choices)}.")
        if not 0 <= self.reweight <= 1:
            raise ConfigError(f"graph_reweight={self.reweight}: out of range. Use a number from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a system. ``dataclasses.asdict`` and :meth:`from_dict` convert to and from JSON values.

    Attributes
    ----------
    n_genres, text_dim, n_mels : C, D and M, from the store and the labels.
    model : name of the system; see :data:`mgc.heads.model.model.ABOUT`. Of the options below, ``santana`` uses encoder,
        mel and bias, and ``pandeya`` also width and dropout, for its dense layer.
    audio : audio inputs (:func:`audio_names`). The frames of all inputs are concatenated in time.
    embeddings : widths of the inputs that are added feature sets; see
        :class:`mgc.heads.model.embeddings.EmbeddingEncoder`.
    encoder : audio CNN; ``base`` has the size of the paper. Its width is that of all audio frames.
    mel_reference, mel_top_db : level of the spectrogram as read; see :class:`MelLevel`.
    width, heads, dropout, ffn, attention, uniform_attention : fusion. ``heads=1`` is exactly Eq. 1, ``attention=False``
        the ablation, ``uniform_attention`` a control.
    lyrics_pooling : mean over the non-special tokens, or the first token ([CLS] or <s>), for fusion and for ``E_l``.
    head : ``graph``: classifiers from the genre graph. ``linear``: its ablation, ``Linear(width of f, C)``. ``query``:
        :class:`mgc.heads.model.query.QueryHead`.
    graph_conditional, graph_similarity, graph_normalisation, graph_threshold, graph_reweight : see
        :class:`GraphOptions`.
    graph_hidden : inner width of the graph convolution.
    logit_scale, bias : ``logits = f W^T [/ sqrt(width of f)] [+ b]``.
    contrastive, projection_dim, normalise, tau_init, tau_scale : projections of the audio-lyrics loss; see
        :class:`mgc.heads.model.contrastive.ContrastiveProjection`.
    modalities : ``audio`` and ``lyrics`` need ``attention=False`` and ``contrastive=False``.
    """

    n_genres: Count
    text_dim: Count
    n_mels: Count = 128
    model: SystemName = "ru2023"
    audio: tuple[str, ...] = (MEL,)
    embeddings: Mapping[str, EmbeddingShape] = field(default_factory=dict)
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
        object.__setattr__(self, "audio", audio_names(self.audio))
        check_options(self)
        if self.embeddings.keys() != set(self.audio) - {MEL}:
            raise ConfigError(f"audio={','.join(self.audio)!r}: embeddings has {sorted(self.embeddings)} instead.")
        if self.modalities != "both" and (self.attention or self.contrastive):
            raise ConfigError(f"modalities={self.modalities!r}: needs attention=False and contrastive=False.")
        if self.model in BASELINE_MODALITIES:
            if self.attention or self.contrastive or self.head != "linear":
                raise ConfigError(f"model={self.model!r}: needs attention=False, contrastive=False and head='linear'.")
            if self.audio != (MEL,):
                raise ConfigError(f"model={self.model!r}: needs audio='mel', not {','.join(self.audio)!r}.")
            if self.modalities != (modalities := BASELINE_MODALITIES[self.model]):
                raise ConfigError(f"model={self.model!r}: needs modalities={modalities!r}, not {self.modalities!r}.")
        _ = self.mel_level  # raises for an invalid mel_top_db

    @property
    def graph_options(self) -> GraphOptions:
        """Options of the adjacency matrix of this model."""
        return GraphOptions(
            **{item.name: getattr(self, f"graph_{item.name}") for item in dataclasses.fields(GraphOptions)}
        )

    @property
    def mel_level(self) -> MelLevel:
        """Level at which stored spectrograms are read."""
        return MelLevel(reference=self.mel_reference, top_db=self.mel_top_db)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Return the config of values from ``dataclasses.asdict``, of this version of mgc or an older one.

        Raises
        ------
        ConfigError
            If a key is unknown, or a value is invalid.
        """
        data = upgrade_options(data)
        unknown = sorted(set(data) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"model configuration: unknown keys {', '.join(unknown)}. Update mgc, or remove them.")
        shapes = {name: EmbeddingShape(**shape) for name, shape in data.get("embeddings", {}).items()}
        return cls(**{**data, "embeddings": shapes})
