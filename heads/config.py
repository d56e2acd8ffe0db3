"""Options of a training run: a frozen dataclass with its checks, presets and YAML form."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import yaml

from ..cache.bounds import Between, Count, check_options
from ..cache.errors import ConfigError
from ..cache.messages import did_you_mean
from .model.config import (
    BASELINE_MODALITIES,
    MEL,
    EmbeddingShape,
    EncoderName,
    HeadName,
    Loss,
    Modalities,
    ModelConfig,
    SystemName,
    audio_names,
    upgrade_options,
)

PresetName = Literal["default", "paper", "paper-tuned", "plus"]
"""``plus`` is a preset of mgc 0.1. Its runs can be read, but no new run can use it."""
SplitPolicy = Literal["auto", "manifest", "artist", "stratified", "random"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
PlacementName = Literal["auto", "device", "host", "mapped"]
Reduction = Literal["mean", "sum"]
Optimizer = Literal["adam", "adamw"]
Schedule = Literal["halving", "cosine"]

_TUNED: Mapping[str, Any] = {
    "bce_reduction": "sum",
    "lambda_": 0.05,
    "prior_bias": True,
    "lr": None,
    "epochs": None,
    "model_options": {"graph_normalisation": "reweighted", "tau_scale": "log"},
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {**_TUNED, "head": "linear"},
    "paper": {"split": "random"},
    "paper-tuned": _TUNED,
}
"""Changes of each preset to the fields of :class:`TrainConfig`, whose defaults follow the paper.

``paper``: Eq. 1 to 7 and the random split of the paper. ``paper-tuned``: the same components, with the options that the
paper leaves open set so that the model learns. ``default``: ``paper-tuned`` with a linear head in place of the genre
graph (docs/design/014-presets-and-heads.md).
"""

SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "prior bias": {"prior_bias": True},
    "summed cross-entropy": {"bce_reduction": "sum"},
    "lambda 0.05": {"lambda_": 0.05},
    "tau on a log scale": {"model_options": {"tau_scale": "log"}},
    "rising lambda": {"lambda_warmup_epochs": 3},
    "graph reweighted": {"model_options": {"graph_normalisation": "reweighted"}},
    "graph of ML-GCN": {"model_options": {"graph_normalisation": "ml-gcn"}},
    "genre vectors not centred": {"model_options": {"graph_similarity": "raw"}},
    "asymmetric loss": {"loss": "asymmetric"},
    "AdamW": {"optimizer": "adamw", "weight_decay": 0.01},
    "cosine schedule": {"schedule": "cosine", "warmup_epochs": 2},
    "modality dropout": {"modality_dropout": 0.2},
    "SpecAugment": {"spec_augment": True},
}
"""Changes to a preset that `mgc ablate` tests one at a time. Genre name prompts belong to a store, so not to these."""


def switched_on(*names: str) -> dict[str, Any]:
    """Return the merged options of some of `SWITCHES`."""
    options: dict[str, Any] = {}
    for name in names:
        options = merge_options(options, SWITCHES[name])
    return options


STEPS_BY_RULE, MAX_LR, MIN_LR = 10_000, 1e-3, 1e-4
MIN_EPOCHS, MAX_EPOCHS = 10, 100

MAY_CHANGE_ON_RESUME = frozenset({"epochs"})
"""Options that may differ from those of a resumed run. The name of the preset is not compared."""

_FROM_STORE = ("n_genres", "text_dim", "n_mels", "embeddings")
_SHARED = ("model", "audio", "encoder", "attention", "head", "contrastive", "modalities")
MODEL_OPTIONS = tuple(
    item.name for item in dataclasses.fields(ModelConfig) if item.name not in (*_FROM_STORE, *_SHARED)
)
"""Fields of ``ModelConfig`` that ``model_options`` may hold. The others come from the store or are training options."""

_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")

Seed = Annotated[int, Between(0)]
Share = Annotated[float, Between(0, 1)]
Rate = Annotated[float, Between(0, 1e30)]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of one training run. Defaults follow Ru et al. 2023, except for the split, which separates artists.

    `mgc train` uses :meth:`from_preset`.

    Attributes
    ----------
    preset : name of the preset that the other options come from; None without a preset.
    model : system to train; ``santana`` and ``pandeya`` are the paper's baselines, reconstructed.
    seed : seed of initial weights, dropout and batch order.
    split, split_seed : policy and seed of the split. The seed is separate from `seed`, so that runs with several seeds
        share a test split and can be compared per track.
    genres : genres to learn, in this order; None for all.
    top_genres : keep this many of them, those with most training tracks.
    min_genre_count : keep genres with at least this many training tracks.
    min_labels : leave out tracks with fewer of the kept genres.
    epochs, lr : None for the rule of :meth:`settled`.
    batch_size : tracks per step.
    optimizer, weight_decay : ``adam``, or ``adamw`` (decoupled weight decay). Biases, norms, tau and the vector of
        missing lyrics do not decay.
    grad_clip : maximum norm of the gradient.
    schedule, lr_halve_every, warmup_epochs : ``halving`` the rate at regular intervals, or ``cosine`` to 0 over all
        epochs, after a warm-up with equal steps.
    patience : stop after this many epochs without a better validation mAP; None never stops early.
    lambda_, lambda_warmup_epochs : weight of the contrastive loss (Eq. 7), and its warm-up with equal steps. No effect
        with ``contrastive=False``.
    loss, bce_reduction : classification loss, and its reduction over genres. A sum changes the meaning of `lambda_`.
    prior_bias : initialise the biases of genres with their log odds among training tracks.
    modality_dropout : probability of training a track with lyrics as one without, drawn per epoch.
    spec_augment : mask frequency bands and time spans of spectrograms in training.
    audio : audio inputs: ``mel`` (spectrogram and CNN), names of added feature sets of the store, or both.
    encoder, attention, head, contrastive, modalities : components of the model; see ``ModelConfig``. A component that
        the system or a single modality cannot have is switched off.
    model_options : further fields of ``ModelConfig`` by name (`MODEL_OPTIONS`), such as ``{"heads": 1}``.
    device, precision, placement : device, precision and feature placement; ``auto`` selects the fastest available.
    compile : compile training steps with ``torch.compile``, on CUDA as CUDA graphs, which takes about a minute. None:
        on CUDA only, after a few steps; slower on CPUs (docs/design/008-speed.md).
    deterministic : use only deterministic operations (bit-identical results), and refuse to resume where bits would
        differ.
    """

    preset: PresetName | None = None
    model: SystemName = "ru2023"
    seed: Seed = 0
    split: SplitPolicy = "auto"
    split_seed: Seed = 0
    genres: tuple[str, ...] | None = None
    top_genres: Count | None = None
    min_genre_count: Annotated[int, Between(0)] = 1
    min_labels: Count = 1
    epochs: Count | None = 100
    batch_size: Annotated[int, Between(2)] = 16
    lr: Rate | None = 1e-4
    optimizer: Optimizer = "adam"
    schedule: Schedule = "halving"
    lr_halve_every: Count = 50
    warmup_epochs: Annotated[int, Between(0)] = 0
    weight_decay: Share = 0.0
    grad_clip: Rate = 1.0
    patience: Count | None = None
    lambda_: Share = 0.3
    lambda_warmup_epochs: Annotated[int, Between(0)] = 0
    loss: Loss = "bce"
    bce_reduction: Reduction = "mean"
    prior_bias: bool = False
    modality_dropout: Share = 0.0
    spec_augment: bool = False
    audio: tuple[str, ...] = (MEL,)
    encoder: EncoderName = "base"
    attention: bool = True
    head: HeadName = "graph"
    contrastive: bool = True
    modalities: Modalities = "both"
    model_options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    device: Device = "auto"
    precision: Precision = "auto"
    placement: PlacementName = "auto"
    compile: bool | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.genres is not None:
            object.__setattr__(self, "genres", tuple(self.genres))
        object.__setattr__(self, "audio", audio_names(self.audio))
        object.__setattr__(self, "model_options", dict(self.model_options))
        check_options(self)
        self._settle_parts()
        self._check_together()

    @classmethod
    def from_preset(cls, preset: str | None, **options: Any) -> TrainConfig:
        """Return the config of a preset with `options` applied.

        Raises
        ------
        ConfigError
            If there is no such preset or option, or a value is invalid.
        """
        if preset is not None and preset not in PRESETS:
            raise ConfigError(f"preset={preset!r}: unknown choice. Choose one of {', '.join(PRESETS)}.")
        return cls.from_dict({**merge_options(PRESETS.get(preset or "", {}), options), "preset": preset})

    def settled(self, n_train: int) -> TrainConfig:
        """Return the config with `epochs` and `lr` computed by a rule where they are None.

        The number of epochs gives about 10 000 steps, but is at least 10 and at most 100. The rate is 1e-3 for up to
        10 000 steps and falls in inverse proportion to their number, down to 1e-4, the paper's rate for its 190 000
        steps.
        """
        steps = self.steps_per_epoch(n_train)
        epochs = self.epochs or min(max(-(-STEPS_BY_RULE // steps), MIN_EPOCHS), MAX_EPOCHS)
        rate = MAX_LR * min(1.0, max(STEPS_BY_RULE / (epochs * steps), MIN_LR / MAX_LR))
        return dataclasses.replace(self, epochs=epochs, lr=rate if self.lr is None else self.lr)

    def steps_per_epoch(self, n_train: int) -> int:
        return -(-n_train // self.batch_size)

    @property
    def n_epochs(self) -> int:
        """Number of epochs of a settled config."""
        assert self.epochs is not None
        return self.epochs

    @property
    def learning_rate(self) -> float:
        """Learning rate of a settled config, before its schedule."""
        assert self.lr is not None
        return self.lr

    @property
    def added_audio(self) -> tuple[str, ...]:
        """Names of the added feature sets among the audio inputs."""
        return tuple(name for name in self.audio if name != MEL)

    def model_config(
        self, *, n_genres: int, text_dim: int, n_mels: int, embeddings: Mapping[str, EmbeddingShape] | None = None
    ) -> ModelConfig:
        """Return the config of the model for a store and labels of these widths."""
        shared = {name: getattr(self, name) for name in _SHARED}
        widths = {"n_genres": n_genres, "text_dim": text_dim, "n_mels": n_mels, "embeddings": embeddings or {}}
        return ModelConfig(**{**widths, **shared, **self.model_options})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON and YAML hold them."""
        values = dataclasses.asdict(self)
        values |= {"genres": None if self.genres is None else list(self.genres), "audio": list(self.audio)}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Return the config of values from :meth:`to_dict`, of this version of mgc or of 0.1.

        Raises
        ------
        ConfigError
            If a key is unknown. The message names the nearest option.
        """
        values = upgrade_options(values)
        names = [item.name for item in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                raise ConfigError(f"unknown training option {key!r}; {did_you_mean(key, names)}")
        return cls(**values)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def differences(self, other: TrainConfig) -> list[str]:
        """Return one line per option that differs from `other`, except those that may change on resume."""
        now, before = self.to_dict(), other.to_dict()
        # A cosine schedule depends on the number of epochs, so that number must not change.
        free = MAY_CHANGE_ON_RESUME if self.schedule == "halving" else frozenset()
        return [
            f"{key}: {now[key]!r}, was {before[key]!r}"
            for key in now
            if key != "preset"
            and now[key] != before[key]
            and key not in free
            and not (key in ("lr", "epochs", "compile") and now[key] is None)
        ]

    def lr_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch (counted from 0).

        Notes
        -----
        In the first w = `warmup_epochs` epochs: ``lr (epoch + 1) / (w + 1)``. Then, for ``halving``:
        ``lr / 2 ** (epoch // lr_halve_every)``; for ``cosine``: ``lr (1 + cos(pi (epoch - w) / (epochs - w))) / 2``.
        """
        if epoch < self.warmup_epochs:
            return float(self.learning_rate * (epoch + 1) / (self.warmup_epochs + 1))
        if self.schedule == "halving":
            return float(self.learning_rate * 0.5 ** (epoch // self.lr_halve_every))
        share = (epoch - self.warmup_epochs) / (self.n_epochs - self.warmup_epochs)
        return float(self.learning_rate * (1 + math.cos(math.pi * share)) / 2)

    def lambda_at(self, epoch: int) -> float:
        """Return the weight of the contrastive loss in an epoch (counted from 0).

        In the first w = `lambda_warmup_epochs` epochs: ``lambda (epoch + 1) / (w + 1)``.
        """
        return self.lambda_ * min(1.0, (epoch + 1) / (self.lambda_warmup_epochs + 1))

    def _settle_parts(self) -> None:
        """Switch off components that the system or a single modality cannot have."""
        fixed = BASELINE_MODALITIES.get(self.model)
        if fixed is not None:
            if self.modalities not in ("both", fixed):
                raise ConfigError(f"modalities={self.modalities!r}: model={self.model!r} needs {fixed!r}.")
            object.__setattr__(self, "modalities", fixed)
            object.__setattr__(self, "head", "linear")
        if self.modalities == "lyrics":
            object.__setattr__(self, "audio", (MEL,))
        if MEL not in self.audio:
            object.__setattr__(self, "spec_augment", False)
        if self.modalities != "both" or fixed is not None:
            for name in ("attention", "contrastive"):
                object.__setattr__(self, name, False)

    def _check_together(self) -> None:
        if self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise ConfigError(
                f"warmup_epochs={self.warmup_epochs}: too many. Use fewer than the {self.epochs} epochs of the run."
            )
        if self.genres is not None and (not self.genres or len(set(self.genres)) != len(self.genres)):
            raise ConfigError("genres: empty, or with duplicates. Give at least one, each once.")
        for name in self.model_options:
            if name not in MODEL_OPTIONS:
                raise ConfigError(f"model_options: unknown option {name!r}; {did_you_mean(name, MODEL_OPTIONS)}")
        shapes = {name: EmbeddingShape(dim=1) for name in self.added_audio}
        self.model_config(n_genres=1, text_dim=1, n_mels=128, embeddings=shapes)  # raises for invalid model options


def merge_options(options: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` with `overrides` applied, also within ``model_options``."""
    merged = {**options, **overrides}
    if "model_options" in merged:
        merged["model_options"] = {**(options.get("model_options") or {}), **(overrides.get("model_options") or {})}
    return merged


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return the options of ``key=value`` settings; options of the model are in ``model_options``.

    Parameters
    ----------
    settings : such as ``["graph_similarity=raw", "warmup_epochs=3"]``; values are parsed as YAML.

    Raises
    ------
    ConfigError
        If a setting has no ``=``, or its key is not an option.
    """
    own = [item.name for item in dataclasses.fields(TrainConfig) if item.name not in ("preset", "model_options")]
    options: dict[str, Any] = {}
    model_options: dict[str, Any] = {}
    for line in settings:
        key, equals, value = line.partition("=")
        key = {"lambda": "lambda_", "home": "placement"}.get(key.strip(), key.strip())
        if not equals:
            raise ConfigError(f"setting {line!r}: no value. Write key=value, such as --set graph_similarity=raw.")
        if key not in (*own, *MODEL_OPTIONS):
            raise ConfigError(f"setting {line!r}: unknown option {key!r}; {did_you_mean(key, [*own, *MODEL_OPTIONS])}")
        (model_options if key in MODEL_OPTIONS else options)[key] = _value(line, value)
    return {**options, "model_options": model_options} if model_options else options


def _value(line: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"setting {line!r}: the value is not valid YAML: {error}") from error
    # YAML 1.1 reads 1e-4 as a string.
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value
