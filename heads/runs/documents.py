"""Find and check the files of a run and of a published model; define the keys, types and bounds of their documents.

A published model may come from an untrusted source. Its files are checked before use, and the shapes of its weights
before memory is allocated. Commands look for a run with this module before they import torch, so it does not import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from ...cache.bounds import Between, Matching, problem
from ...cache.durable import file_sha256, unseal
from ...cache.errors import RunError, StoreCorruptError
from ...cache.format.documents import Fingerprints, Name, RecipeDocument, Sha256
from ...cache.format.plan import is_store
from ...cache.format.recipe import ExtractorRecipe
from ..config import TrainConfig
from ..model.config import ModelConfig, upgrade_options

FORMAT_VERSION = 1

Number = Annotated[int, Between(0, 2**53)]
Share = Annotated[float, Between(0, 1)]
FileName = Annotated[str, Matching(r"[\w+-][\w.+-]*\.safetensors", "the name of a safetensors file")]
PartName = Literal["model.safetensors", "preprocessor.json", "labels.json", "thresholds.json", "graph.json"]


class DamagedError(RunError):
    """A file of a run is missing, truncated or altered."""


class ModelDocument(TypedDict):
    """``best/config.json``."""

    format_version: Literal[1]
    model: ModelConfig
    training: TrainConfig
    precision: NotRequired[str]
    epoch: Number
    validation: dict[str, Any]
    validation_intervals: NotRequired[dict[str, Any]]
    n_parameters: NotRequired[Number]
    n_without_lyrics: Number
    parts: dict[PartName, Sha256]


class LabelsDocument(TypedDict):
    """``best/labels.json``."""

    genres: list[str]
    train_counts: list[Number]
    n_train: Number
    majority: list[str]
    filters: NotRequired[list[str]]


class PreprocessorDocument(TypedDict):
    """``best/preprocessor.json``."""

    recipe: RecipeDocument
    fingerprints: Fingerprints
    mel_mean_db: float | None
    mel_std_db: float | None
    mel_values_seen: Number
    added: NotRequired[dict[Name, ExtractorRecipe]]


class ThresholdsDocument(TypedDict):
    """``best/thresholds.json``."""

    genres: list[str]
    overall: Share
    per_genre: list[Share]
    fallback: list[bool]
    min_support: Number
    n_tracks: Number
    shrinkage: NotRequired[float]


class TensorFile(TypedDict):
    """One file of a checkpoint."""

    name: FileName
    sha256: Sha256


class StateFiles(TypedDict):
    """Files of a checkpoint by role."""

    weights: TensorFile
    optimizer: TensorFile
    best: NotRequired[TensorFile]
    random: NotRequired[TensorFile]


class WithinDocument(TypedDict):
    """Progress within an epoch."""

    steps: Number
    sums: Any
    gradients: NotRequired[list[float] | None]
    seconds: float


class StateDocument(TypedDict):
    """``last/state-<epoch>.json``."""

    format_version: Literal[1]
    epoch: Number
    step: Number
    config: TrainConfig
    task: dict[str, Any]
    machine: NotRequired[dict[str, Any]]
    within: NotRequired[WithinDocument | None]
    best_epoch: NotRequired[Number]
    best_map: NotRequired[float | None]
    best: NotRequired[dict[str, Any]]
    stopped_early: NotRequired[bool]
    files: StateFiles


def find_model(folder: Path) -> Path:
    """Return the folder of a published model: ``best/`` itself, or that of the run folder around it.

    Raises
    ------
    RunError
        If there is none.
    """
    folder = folder / "best" if (folder / "best" / "config.json").is_file() else folder
    if (folder / "config.json").is_file():
        return folder
    refuse_store(folder)
    if not folder.exists():
        raise RunError(f"{folder}: no such folder. Give a run of `mgc train`, or its best/.")
    if (folder / "config.yaml").is_file():
        raise RunError(
            f"{folder}: no trained model: the training ended before its first epoch. Continue it with `mgc train STORE "
            f"-o {folder} --resume`."
        )
    raise RunError(f"{folder}: no trained model (config.json is missing). Give a run of `mgc train`, or its best/.")


def refuse_store(folder: Path) -> None:
    """Raise :class:`RunError` if there is a feature store where a run is expected."""
    if is_store(folder):
        raise RunError(
            f"{folder}: a feature store, where a run is expected. The run comes first, then the store or songs."
        )


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a sealed JSON file of a run.

    Raises
    ------
    DamagedError
        If the file is missing, truncated or altered.
    """
    try:
        return unseal(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: missing; not a complete run folder or best/") from error
    except (StoreCorruptError, OSError) as error:
        raise DamagedError(f"{path}: truncated or altered ({error})") from error


def check_file(path: Path, sha256: str) -> None:
    """Check a file against its recorded hash.

    Raises
    ------
    DamagedError
        If the file is missing, or its hash differs.
    """
    if not path.is_file():
        raise DamagedError(f"{path}: missing, but listed in the checkpoint")
    if file_sha256(path) != sha256:
        raise DamagedError(f"{path}: truncated or altered: its sha256 is not the recorded {sha256[:12]}...")


def check_document(path: Path, document: Mapping[str, Any], kind: Any) -> None:
    """Check a document against its format.

    Raises
    ------
    RunError
        If it has another format version, or breaks the format.
    """
    version = document.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise RunError(
            f"{path}: format {version!r:.20}, but this mgc reads {FORMAT_VERSION}. Install a matching version of mgc."
        )
    current = {key: upgrade_options(value) if isinstance(value, dict) else value for key, value in document.items()}
    if wrong := problem(current, kind):
        raise RunError(f"{path}: {wrong}. Restore the file from a copy.")
