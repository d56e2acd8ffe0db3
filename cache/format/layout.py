"""How a plan looks in Zarr: the group, its arrays and their metadata, made by zarr itself from the schema."""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from ..durable import fsync_dir, write_durable
from .recipe import FeatureSetRecipe, Recipe, TextRecipe, added_fingerprints
from .schema import ABSENT, FAILED, FORMAT_VERSION, OK, ArraySpec, Flag, added_arrays, track_arrays

RECORDED_LIBRARIES = (
    "mgc", "numpy", "zarr", "pyarrow", "torch", "transformers", "tokenizers", "librosa", "soundfile", "av", "soxr",
    "scipy",
)  # fmt: skip


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape features, of those that are installed."""
    found = {}
    for name in RECORDED_LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def object_key(spec: ArraySpec, part: int) -> str:
    """Zarr key of the object that holds a part of an array: a shard, or a chunk as long as a part."""
    return "/".join([spec.name, "c", str(part), *("0" for _ in spec.tail)])


def genre_spec(width: int, name: str | None = None) -> ArraySpec:
    """The array with one row a genre; `width` is the encoder's hidden size, `name` that of an added feature set."""
    suffix = "" if name is None else f"_{name}"
    return ArraySpec(
        name=f"genre_embedding{suffix}",
        dims=("genre", f"text_dim{suffix}"),
        tail=(width,),
        dtype="float32",
        fill=float("nan"),
        unit="1",
        description="mean hidden state over the non-special tokens of each genre name; names in genres/*.parquet",
    )


def create_array(group: zarr.Group, spec: ArraySpec, n_rows: int, part_rows: int) -> zarr.Array[Any]:
    """Metadata of one array; no chunk is written."""
    part = (part_rows, *spec.tail)
    return group.create_array(
        spec.name,
        shape=(n_rows, *spec.tail),
        chunks=spec.inner if spec.sharded else part,
        shards=part if spec.sharded else None,
        dtype=spec.dtype,
        fill_value=spec.fill,
        filters=None,
        compressors=[Crc32cCodec()] if spec.plain else [ZstdCodec(level=3), Crc32cCodec()],
        dimension_names=spec.dims,
        attributes={"units": spec.unit, "description": spec.description},
        config={"write_empty_chunks": False},
    )


def write_metadata(
    folder: Path, plan: Mapping[str, Any], added: Mapping[str, FeatureSetRecipe], *, n_rows: int, n_genres: int
) -> None:
    """Write every ``zarr.json`` of a store of that many array rows and genres; consolidated in the root's.

    Parameters
    ----------
    plan : the document of ``plan.json``.
    added : name -> recipe of feature sets that joined later.
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
            name: {"recipe": asdict(one), "fingerprints": added_fingerprints(one, recipe.genre_names)}
            for name, one in sorted(added.items())
        }
    group = zarr.create_group(folder, zarr_format=3, attributes=attributes)
    for spec in track_arrays(recipe):
        create_array(group, spec, n_rows, part_rows)
    if plan["embeds_genres"]:
        assert recipe.lyrics is not None
        create_array(group, genre_spec(recipe.lyrics.hidden_size), n_genres, 1)
    for name, one in sorted(added.items()):
        for spec in added_arrays(name, one):
            create_array(group, spec, n_rows, part_rows)
        if isinstance(one, TextRecipe):
            create_array(group, genre_spec(one.hidden_size, name), n_genres, 1)
    with warnings.catch_warnings():
        # Consolidated metadata is an extension that zarr-python and xarray both read; others ignore it.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=ZarrUserWarning)
        zarr.consolidate_metadata(folder)


def metadata_documents(
    plan: Mapping[str, Any], added: Mapping[str, FeatureSetRecipe], *, n_rows: int, n_genres: int
) -> dict[str, bytes]:
    """Key -> bytes of every ``zarr.json``, as :func:`write_metadata` would write them."""
    with tempfile.TemporaryDirectory(prefix="mgc-") as scratch:
        folder = Path(scratch)
        write_metadata(folder, plan, added, n_rows=n_rows, n_genres=n_genres)
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("zarr.json"))}


def install_metadata(store: Path, documents: Mapping[str, bytes], drafts: Path) -> None:
    """Bring every ``zarr.json`` to what it should be, each by one rename, the root's last.

    Parameters
    ----------
    drafts : folder on the store's filesystem that new texts are written in first; made where missing.
    """
    for key in sorted(documents, key=lambda key: (key == "zarr.json", key)):
        target = store / key
        while not (target.is_file() and same_document(target.read_bytes(), documents[key])):
            with contextlib.suppress(FileExistsError):
                drafts.mkdir()
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = drafts / f"metadata~{uuid.uuid4().hex}"
            with contextlib.suppress(FileNotFoundError):  # swept away by another process: try again
                write_durable(draft, documents[key])
                draft.replace(target)
            fsync_dir(target.parent)


def same_document(mine: bytes, theirs: bytes) -> bool:
    """Whether two JSON texts say the same; another release of zarr may order or indent them otherwise."""
    try:
        return bool(json.loads(mine) == json.loads(theirs))
    except ValueError:
        return False
