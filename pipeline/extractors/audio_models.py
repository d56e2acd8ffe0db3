"""Find pretrained audio encoders by name or folder, and identify them by the hashes of their files.

A model is a folder as transformers saves it, or OWNER/NAME of the Hugging Face hub: from the local cache, else from the
hub if it answers. Only safetensors weights are read, and code in a model's folder is never run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...cache.durable import file_sha256
from ...cache.errors import ConfigError, TextModelError
from ..text.models import hub_folder, hub_repository, json_object, weights_sha256

PREFIX = "hf:"
FAMILIES = {
    "audio-spectrogram-transformer": "AST",
    "clap": "CLAP",
    "clap_audio_model": "CLAP",
    "hubert": "HuBERT",
    "wav2vec2": "wav2vec 2.0",
    "wavlm": "WavLM",
    "whisper": "Whisper",
}
"""``model_type`` of the configuration -> name of the layout."""

_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"
_FILES = (_CONFIG, _PROCESSOR, "*.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, kw_only=True)
class AudioModelFiles:
    """Folder of a pretrained audio encoder, and the hashes that identify it.

    Attributes
    ----------
    name : the folder's name, or OWNER/NAME on the hub.
    family : a value of :data:`FAMILIES`.
    weights_sha256 : as of :class:`~mgc.pipeline.text.models.TextModelFiles`.
    config_sha256, config : of ``config.json``, and its content.
    """

    name: str
    folder: Path
    family: str
    weights_sha256: str
    config_sha256: str
    config: dict[str, Any] = field(repr=False)


def find_audio_model(model: str) -> AudioModelFiles:
    """Find an audio encoder on this machine.

    Parameters
    ----------
    model : ``hf:FOLDER``, or ``hf:OWNER/NAME`` (also ``hf://OWNER/NAME``) of the hub. ``HF_HUB_OFFLINE`` is respected;
        requests to the hub time out after seconds.

    Raises
    ------
    ConfigError
        If the model is not on this machine, lacks a file, or has a layout that mgc does not read.
    """
    name = model.removeprefix(PREFIX)
    if os.path.isdir(name):  # noqa: PTH112 - false for a name that no path can have
        return _describe(Path(name).resolve().name, Path(name))
    repository = hub_repository(f"{PREFIX}{name}")
    if repository is None:
        raise ConfigError(f"audio model {model!r}: no such folder. Use hf:FOLDER, or hf:OWNER/NAME for one of the hub.")
    try:
        return _describe(repository, hub_folder(repository, _FILES, needed=(_CONFIG, _PROCESSOR)))
    except TextModelError as error:
        raise ConfigError(f"audio model {model!r}: no such folder, {error}") from error


def _describe(name: str, folder: Path) -> AudioModelFiles:
    try:
        config = json_object(folder / _CONFIG)
        weights = weights_sha256(folder)
    except TextModelError as error:
        raise ConfigError(f"audio model: {error}") from error
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ConfigError(
            f"audio model {folder}: its layout {family!r} is not supported. Use one of {', '.join(FAMILIES)}."
        )
    if not (folder / _PROCESSOR).is_file():
        raise ConfigError(
            f"audio model {folder}: no {_PROCESSOR}, which has the sample rate. Save it with the feature extractor of "
            "the model: AutoFeatureExtractor.from_pretrained(...).save_pretrained(...)."
        )
    return AudioModelFiles(
        name=name,
        folder=folder,
        family=FAMILIES[family],
        weights_sha256=weights,
        config_sha256=file_sha256(folder / _CONFIG),
        config=config,
    )
