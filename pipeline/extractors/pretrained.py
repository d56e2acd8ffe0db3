"""Extractors of pretrained audio encoders (``--audio-model``): settings, recipe, and the encoder of this process."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeGuard

from ...cache.distribution import explain_missing_extra
from ...cache.errors import ConfigError, MissingExtraError
from ...cache.format.recipe import ExtractorRecipe, FeatureSetRecipe, MelRecipe
from ..text.encoder import computes_in
from .audio_models import AudioModelFiles, find_audio_model
from .extractor import Extractor, forget_prepared

if TYPE_CHECKING:
    from .audio_encoders import Layers

VERSION = "1"
"""Increase it whenever values change."""

_BATCH = {"cuda": 8}
"""Tracks per batch; 1 on other devices, where batches are not faster, and values do not depend on failed tracks."""


@dataclass(frozen=True, kw_only=True)
class AudioSource:
    """Location of an audio encoder on this machine, ``hf:FOLDER`` or ``hf:OWNER/NAME``, and its device.

    Attributes
    ----------
    model : None takes the name in the recipe.
    """

    model: str | None = None
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class AudioSettings:
    """What to store of an audio encoder.

    Attributes
    ----------
    layers : ``last`` (the output), ``all``, or numbers separated by commas: 0 is the input of the first layer.
    pooling : ``mean`` over time, or ``frames``, a sequence.
    precision : ``fp32`` or ``bf16``.
    """

    layers: str = "last"
    pooling: Literal["mean", "frames"] = "mean"
    precision: Literal["fp32", "bf16"] = "fp32"


def is_pretrained(recipe: FeatureSetRecipe) -> TypeGuard[ExtractorRecipe]:
    """Return whether a feature set is that of an audio encoder found by folder or name."""
    return isinstance(recipe, ExtractorRecipe) and "encoder" in recipe.parameters


def settings_of(recipe: ExtractorRecipe) -> AudioSettings:
    """Return the settings with which an audio encoder gives the features of `recipe`."""
    parameters = recipe.parameters
    layers = parameters["layers"]
    return AudioSettings(
        layers=layers if isinstance(layers, str) else ",".join(map(str, layers)),
        pooling=parameters["pooling"],
        precision=parameters["precision"],
    )


def find_source(recipe: ExtractorRecipe, source: AudioSource | None) -> AudioSource:
    """Return `source`, with the model of the recipe if none is given or its weights are others."""
    source = source or AudioSource()
    if source.model is None or find_audio_model(source.model).weights_sha256 != recipe.parameters["weights_sha256"]:
        source = AudioSource(model=str(recipe.parameters["model"]), device=source.device)
    return source


@functools.lru_cache(maxsize=1)
def pretrained_extractor(name: str, source: AudioSource, settings: AudioSettings, mel: MelRecipe) -> Extractor:
    """Return the extractor of an audio encoder, with the weights still to load; one is kept per process.

    Parameters
    ----------
    name : of the feature set.
    mel : recipe of the store's mels, whose clips are resampled for the encoder.

    Raises
    ------
    ConfigError
        If the model cannot be found or read, lacks a layer, or the device does not compute in the precision.
    """
    assert source.model is not None
    if not computes_in(settings.precision, source.device):
        raise ConfigError(
            f"audio precision {settings.precision}: {source.device} on this machine does not compute in it, and would "
            "make other features, slowly. Use --audio-precision fp32."
        )
    try:
        files = find_audio_model(source.model)
        from .audio_encoders import AudioEncoder, processor_settings, read_layout, window_starts
    except ImportError as error:
        raise MissingExtraError(explain_missing_extra("extract", error.name or str(error))) from error
    layout = read_layout(files)
    layers = _layers(settings.layers, layout.n_layers, files)
    encoder = AudioEncoder(
        files,
        layout,
        layers=layers,
        pooling=settings.pooling,
        precision=settings.precision,
        device=source.device,
    )
    batch_size = _BATCH.get(source.device.partition(":")[0], 1)
    n_samples = round(mel.clip_s * layout.sample_rate_hz)
    n_windows = len(window_starts(n_samples, layout.window))
    n_frames = layout.n_frames * n_windows if n_windows > 1 else layout.frames(min(n_samples, layout.window))
    shape = {f"{name}_layer": len(layers)} if isinstance(layers, tuple) and len(layers) > 1 else {}
    shape |= {f"{name}_frame": n_frames} if settings.pooling == "frames" else {}
    shape |= {f"{name}_dim": layout.width}
    of_layers = "the last layer" if layers == "last" else f"layers {', '.join(map(str, layers))}"
    return Extractor(
        name=name,
        version=VERSION,
        input="clip",
        sample_rate_hz=layout.sample_rate_hz,
        dims=tuple(shape),
        shape=tuple(shape.values()),
        length=f"{name}_frame" if settings.pooling == "frames" else None,
        dtype="float32" if settings.pooling == "mean" else "float16",
        unit="1",
        description=f"hidden states of {files.family}, {of_layers}"
        + (", mean over time" if settings.pooling == "mean" else ""),
        compute=encoder.compute,
        compute_batch=encoder.compute_batch if batch_size > 1 else None,
        batch_size=batch_size,
        prepare=encoder.load,
        parameters={
            "encoder": layout.network_class,
            "model": files.name,
            "weights_sha256": files.weights_sha256,
            "config_sha256": files.config_sha256,
            "processor": processor_settings(layout),
            "window_samples": layout.window,
            "layers": layers if layers == "last" else list(layers),
            "pooling": settings.pooling,
            "precision": settings.precision,
        },
    )


def release() -> None:
    """Free the encoder of this process."""
    pretrained_extractor.cache_clear()
    forget_prepared()


def with_stored_name(extractor: Extractor, stored: FeatureSetRecipe | None) -> Extractor:
    """Return the extractor with the name of the model as stored: hashes identify it, and its folder may be renamed."""
    if stored is None or not is_pretrained(stored):
        return extractor
    return replace(extractor, parameters={**extractor.parameters, "model": stored.parameters["model"]})


def _layers(text: str, n_layers: int, files: AudioModelFiles) -> Layers:
    if text == "last":
        return "last"
    numbers = list(range(n_layers + 1)) if text == "all" else [_number(part) for part in text.split(",")]
    if n_layers == 0:
        raise ConfigError(f"audio layers {text!r}: {files.family} has layers of different widths. Use last.")
    if not all(0 <= number <= n_layers for number in numbers) or len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"audio layers {text!r}: {files.name} has the layers 0 to {n_layers}. Use last, all, or different numbers "
            "separated by commas."
        )
    return tuple(numbers)


def _number(text: str) -> int:
    return int(text) if text.strip().isdecimal() else -1
