"""Zarr group, arrays and metadata of a plan, which zarr itself creates from the schema."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import uuid
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr
from zarr.abc.store import ByteRequest
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.indexing import morton_order_iter
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore, MemoryStore, StorePath

from ..distribution import __version__
from ..durable import fsync_dir, inside, make_folders, open_regular, write_durable
from ..errors import StoreCorruptError, StoreError
from .recipe import FeatureSetRecipe, Recipe, TextRecipe, added_fingerprints, recipe_document
from .schema import (
    ABSENT,
    FAILED,
    FIRST_FLAGS,
    FORMAT_VERSION,
    OK,
    ArraySpec,
    Flag,
    added_arrays,
    array_name,
    is_fill,
    track_arrays,
)

RECORDED_LIBRARIES = (
    *("numpy", "zarr", "pyarrow"),
    *("torch", "transformers", "tokenizers"),
    *("librosa", "soundfile", "av", "soxr", "scipy"),
)
"""Libraries that shape features, in the order in which a store lists their versions, after that of mgc."""


def library_versions() -> dict[str, str]:
    """Return the versions of mgc and of those :data:`RECORDED_LIBRARIES` that are installed."""
    versions = {"mgc": __version__}
    for name in RECORDED_LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def object_key(spec: ArraySpec, part: int) -> str:
    """Return the Zarr key of the object that holds a part of an array: a shard, or a chunk as long as a part."""
    return "/".join([spec.name, "c", str(part), *("0" for _ in spec.tail)])


def genre_spec(width: int, feature_set: str | None = None) -> ArraySpec:
    """Return the array with one row per genre; `width` is the hidden size of the text encoder."""
    return ArraySpec(
        name=array_name("genre_embedding", feature_set),
        dims=("genre", array_name("text_dim", feature_set)),
        tail=(width,),
        dtype="float32",
        fill=float("nan"),
        unit="1",
        description="mean hidden state over the non-special tokens of each genre name; names in genres/*.parquet",
    )


def create_array(group: zarr.Group, spec: ArraySpec, n_rows: int, part_rows: int) -> zarr.Array[Any]:
    """Write the metadata of one array, and no chunk."""
    part = (part_rows, *spec.tail)
    return group.create_array(
        spec.name,
        shape=(n_rows, *spec.tail),
        chunks=spec.inner if spec.sharded else part,
        shards=part if spec.sharded else None,
        dtype=spec.dtype,
        fill_value=spec.fill,
        filters=None,
        compressors=[Crc32cCodec()] if spec.sharded else [ZstdCodec(level=3), Crc32cCodec()],
        dimension_names=spec.dims,
        attributes={"units": spec.unit, "description": spec.description},
        config={"write_empty_chunks": False},
    )


def encode(spec: ArraySpec, values: npt.NDArray[Any], part_rows: int) -> list[bytes]:
    """Encode rows of an array, from row 0 on; return one object for every `part_rows` of them, the bytes of zarr."""
    parts = (values[i : i + part_rows] for i in range(0, len(values), part_rows))
    return [b"".join(encode_part(spec, rows, part_rows)) for rows in parts]


def encode_part(spec: ArraySpec, values: npt.NDArray[Any], part_rows: int) -> list[Any]:
    """Encode at most `part_rows` rows as one object; return its bytes in pieces, which may be views of `values`.

    Notes
    -----
    Shards are written here, since zarr takes several times as long for plain bytes with a checksum
    (benchmarks/speed/commit.py). Joining the pieces would take as long as all else. Zarr encodes the other arrays.
    """
    return _encode_shard(spec, values, part_rows) if spec.sharded else encode_with_zarr(spec, values, part_rows)


def _encode_shard(spec: ArraySpec, values: npt.NDArray[Any], part_rows: int) -> list[Any]:
    """Return one shard of ``bytes, crc32c`` chunks, index at its end (Zarr v3 sharding codec), in pieces."""
    step, dtype = spec.inner[1], np.dtype(spec.dtype).newbyteorder("<")
    index = np.full((part_rows, spec.tail[0] // step, 2), 2**64 - 1, dtype="<u8")  # of a chunk that is not there
    pieces: list[Any] = []
    start = 0
    for row, k in morton_order_iter((part_rows, index.shape[1])):
        if row >= len(values) or is_fill(chunk := values[row, k * step : (k + 1) * step], spec.fill):
            continue
        data = np.ascontiguousarray(chunk, dtype).reshape(-1).view(np.uint8)
        pieces += [data, _crc32c(data)]
        index[row, k] = start, len(data) + 4
        start += len(data) + 4
    indexed = index.tobytes()
    return [*pieces, indexed, _crc32c(indexed)]


def _crc32c(data: Any) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def encode_with_zarr(spec: ArraySpec, values: npt.NDArray[Any], part_rows: int) -> list[bytes]:
    """Encode rows with zarr, as :func:`encode` does."""
    memory: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(memory), zarr_format=3)
    n_parts = -(-len(values) // part_rows)
    create_array(group, spec, n_parts * part_rows, part_rows)[: len(values)] = values
    return [memory[object_key(spec, part)].to_bytes() for part in range(n_parts)]


class _StoreFiles(LocalStore):
    """Files of a store for zarr: only regular files inside the store."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        with contextlib.suppress(FileNotFoundError):
            open_regular(inside(self.root, key)).close()
        return await super().get(key, prototype, byte_range)


def open_array(store: Path, spec: ArraySpec, n_rows: int, part_rows: int) -> zarr.Array[Any]:
    """Open an array by its description: its ``zarr.json`` may have been altered, or lag behind the plan."""
    files = _StoreFiles(store, read_only=True)
    metadata = _array_metadata(spec, n_rows, part_rows)
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=StorePath(files, spec.name)))


@functools.lru_cache(maxsize=256)
def _array_metadata(spec: ArraySpec, n_rows: int, part_rows: int) -> Any:
    return create_array(zarr.create_group(MemoryStore(), zarr_format=3), spec, n_rows, part_rows).metadata


def read_rows(store: Path, spec: ArraySpec, rows: range, part_rows: int) -> npt.NDArray[Any]:
    """Read consecutive rows of an array, (len(rows), *tail); a missing object reads as fill.

    Raises
    ------
    StoreCorruptError
        If an object is damaged, or does not match the array's description.
    StoreError
        If there is not enough memory.
    """
    try:
        if spec.sharded:
            array = open_array(store, spec, -(-rows.stop // part_rows) * part_rows, part_rows)
            return np.asarray(array[rows.start : rows.stop])
        values = np.full((len(rows), *spec.tail), spec.fill, np.dtype(spec.dtype))
        for part in range(rows.start // part_rows, -(-rows.stop // part_rows)):
            path, first = inside(store, object_key(spec, part)), part * part_rows
            span = range(max(first, rows.start), min(first + part_rows, rows.stop))
            with contextlib.suppress(FileNotFoundError):
                chunk = _decode_chunk(path, spec, part_rows)
                values[span.start - rows.start : span.stop - rows.start] = chunk[span.start - first : span.stop - first]
        return values
    except MemoryError as error:
        raise StoreError(
            f"{store}: {spec.name} needs more memory than is available. Read fewer tracks at once."
        ) from error
    except (ValueError, RuntimeError, TypeError, OSError, pa.ArrowException) as error:
        if isinstance(error, StoreError) or getattr(error, "errno", None) is not None:  # of the disk
            raise
        raise StoreCorruptError(
            f"{store}: {spec.name} does not match its checksum or cannot be decoded ({error}); "
            "`mgc store verify --full` names the part"
        ) from error


def _decode_chunk(path: Path, spec: ArraySpec, part_rows: int) -> npt.NDArray[Any]:
    """Decode a chunk of an array that is not sharded, (part_rows, *tail): crc32c of a zstd frame of plain values.

    zarr would allocate the size that the frame declares before comparing it with the array.
    """
    with open_regular(path) as file:
        data = file.read()
    shape, dtype = (part_rows, *spec.tail), np.dtype(spec.dtype)
    n_bytes, frame = math.prod(shape) * dtype.itemsize, data[:-4]
    if len(data) < 4 or int(google_crc32c.value(frame)) != int.from_bytes(data[-4:], "little"):
        raise StoreCorruptError(f"{path}: does not match its checksum; `mgc store repair` makes the part again")
    if _frame_bytes(frame) != n_bytes:
        raise StoreCorruptError(f"{path}: does not hold {n_bytes} bytes of {spec.name}. Do not use this store.")
    return np.frombuffer(pa.decompress(frame, n_bytes, codec="zstd"), dtype.newbyteorder("<")).reshape(shape)


def _frame_bytes(frame: bytes) -> int | None:
    """Return the content size that a zstd frame declares (RFC 8878, 3.1.1.1); None if it is not such a frame."""
    if len(frame) < 6 or frame[:4] != b"\x28\xb5\x2f\xfd":
        return None
    single, size_flag, dictionary = frame[4] >> 5 & 1, frame[4] >> 6, (0, 1, 2, 4)[frame[4] & 3]
    start, length = 6 - single + dictionary, (single, 2, 4, 8)[size_flag]
    return int.from_bytes(frame[start : start + length], "little") + 256 * (length == 2) if length else None


def metadata_documents(
    plan: Mapping[str, Any], added: Mapping[str, FeatureSetRecipe], *, n_rows: int, n_genres: int
) -> dict[str, bytes]:
    """Return key -> bytes of every ``zarr.json`` of a store; that of the root has them all, consolidated.

    Parameters
    ----------
    plan : the document of ``plan.json``.
    added : name -> recipe of the added feature sets.
    n_rows, n_genres : lengths of the arrays.
    """
    recipe, part_rows = Recipe.from_dict(plan["recipe"]), plan["part_rows"]
    attributes = {
        "mgc_format_version": FORMAT_VERSION,
        "recipe": plan["recipe"],
        "fingerprints": plan["fingerprints"],
        "library_versions": plan["library_versions"],
        "part_rows": part_rows,
        "flag_bits": {flag.name: flag.value for flag in Flag},
        "status_codes": {"absent": ABSENT, "ok": OK, "failed": FAILED},
    }
    if added:
        attributes["added"] = {
            name: {
                "recipe": recipe_document(added_set),
                "fingerprints": added_fingerprints(added_set, recipe.genre_names),
            }
            for name, added_set in sorted(added.items())
        }
    objects: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(objects), zarr_format=3, attributes=attributes)
    for spec in track_arrays(recipe):
        create_array(group, spec, n_rows, part_rows)
    if plan["embeds_genres"]:
        assert recipe.lyrics is not None
        create_array(group, genre_spec(recipe.lyrics.hidden_size), n_genres, 1)
    for name, added_set in sorted(added.items()):
        for spec in added_arrays(name, added_set):
            create_array(group, spec, n_rows, part_rows)
        if isinstance(added_set, TextRecipe):
            create_array(group, genre_spec(added_set.hidden_size, name), n_genres, 1)
    with warnings.catch_warnings():
        # Consolidated metadata is an extension that zarr-python and xarray both read; others ignore it.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=ZarrUserWarning)
        zarr.consolidate_metadata(group.store)
    return {key: objects[key].to_bytes() for key in sorted(objects)}


def install_metadata(store: Path, documents: Mapping[str, bytes], drafts: Path) -> None:
    """Write every ``zarr.json``, each by one rename, that of the root last.

    Parameters
    ----------
    drafts : folder on the store's filesystem in which new texts are written first; created if missing.
    """
    for key in sorted(documents, key=lambda key: (key == "zarr.json", key)):
        target = store / key
        while not _is_document(target, documents[key]):
            with contextlib.suppress(FileExistsError):
                drafts.mkdir()
            make_folders(store, key)
            draft = drafts / f"metadata~{uuid.uuid4().hex}"
            with contextlib.suppress(FileNotFoundError):  # another process removed the drafts: retry
                write_durable(draft, documents[key])
                draft.replace(target)
            with contextlib.suppress(FileNotFoundError):
                fsync_dir(target.parent)


def _is_document(file: Path, document: bytes) -> bool:
    if file.is_symlink():
        return False
    try:
        with open_regular(file) as opened:
            return same_document(opened.read(), document)
    except FileNotFoundError:
        return False


def same_document(text: bytes, other: bytes) -> bool:
    """Return whether two JSON texts have equal content; other releases of zarr may format them differently."""
    try:
        return bool(json.loads(text) == json.loads(other))
    except (ValueError, RecursionError):
        return False


def same_metadata(text: bytes, document: bytes) -> bool:
    """Return whether `text` is the metadata `document`, also as an earlier version wrote it, which had fewer flags."""
    expected = json.loads(document)
    flags = list(expected.get("attributes", {}).get("flag_bits", {}).items())
    for n_flags in range(FIRST_FLAGS, len(flags) + 1):
        expected["attributes"]["flag_bits"] = dict(flags[:n_flags])
        if same_document(text, json.dumps(expected).encode()):
            return True
    return same_document(text, document)
