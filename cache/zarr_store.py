"""Writing a Zarr store: lay it out once, then publish each part in three steps.

1. Build the part under ``staging/<part>-<digest>`` (same filesystem), files and folders fsynced.
2. Create ``commits/<part>.json`` exclusively. That is the decision: one winner a part, whoever else built it.
3. Roll forward, idempotently and by anyone: link the winner's objects to their Zarr keys, remove the staging folder.

A process killed at any instant leaves either no commit (the part is built again) or a commit that rolls forward.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import uuid
import warnings
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from .durable import file_sha256, fsync_dir, fsync_tree, seal, unseal, write_durable
from .errors import StoreCorruptError, StoreFormatError, StoreNotFoundError
from .schema import ABSENT, FAILED, FORMAT_VERSION, OK, ArraySpec, Flag, Recipe, fingerprint, track_arrays
from .tracks import GENRE_SCHEMA, PLAN_SCHEMA, write_table

_COMMIT_NAME = re.compile(r"(\d+)\.json")
_STAGED_NAME = re.compile(r"(\d+)-")

RECORDED_LIBRARIES = (
    "numpy", "zarr", "pyarrow", "torch", "transformers", "tokenizers", "librosa", "soundfile", "av", "soxr", "scipy",
)  # fmt: skip


def create_store(
    path: Path,
    *,
    tracks: pa.Table,
    recipe: Recipe,
    part_rows: int,
    genres: list[str],
    genre_embedding: npt.NDArray[np.float32] | None,
) -> bool:
    """Lay out an empty store for a plan; appears at `path` in one rename.

    Parameters
    ----------
    tracks : the plan, columns of :data:`mgc.cache.tracks.PLAN_SCHEMA`, rows numbered from 0.
    part_rows : rows a part; frozen from here on.
    genre_embedding : (genre, text_dim) float32, or None where the recipe has no text.

    Returns
    -------
    bool
        False if another process published a store at `path` first; nothing was changed then.
    """
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex}.partial"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir()
    try:
        _lay_out(partial, tracks, recipe, part_rows, genres, genre_embedding)
        fsync_tree(partial)
        try:
            partial.rename(path)
        except OSError:
            if not (path / "plan.json").is_file():
                raise
            return False
        fsync_dir(path.parent)
        return True
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_plan(path: Path) -> dict[str, Any]:
    """The plan of the store at `path`: format version, recipe, part size, generations with the hashes of their tables.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, StoreCorruptError
    """
    if not (path / "plan.json").is_file():
        raise StoreNotFoundError(f"{path}: no feature store here (plan.json is missing); `mgc extract` makes one")
    plan = unseal(path / "plan.json")
    if plan["format_version"] != FORMAT_VERSION:
        raise StoreFormatError(
            f"{path}: store format {plan['format_version']}, but this mgc reads format {FORMAT_VERSION}; "
            "install a matching version of mgc"
        )
    return plan


def commit_part(path: Path, part: int, arrays: Mapping[str, npt.NDArray[Any]], outcomes: pa.Table) -> dict[str, Any]:
    """Publish a part: its rows of every track array, and what extraction found.

    Parameters
    ----------
    arrays : name -> rows of the part, in row order; fewer rows than a full part in the last one.
    outcomes : table of :data:`mgc.cache.tracks.OUTCOME_SCHEMA`, one row a track of the part.

    Returns
    -------
    dict
        The commit record that counts; another process's, with equal content, if that one came first.
    """
    plan = read_plan(path)
    commit = path / "commits" / f"{part}.json"
    building = path / "staging" / f"{part}-{uuid.uuid4().hex}.building"
    building.mkdir(parents=True, exist_ok=True)
    try:
        _build_part(building, part, plan, arrays, outcomes)
        record = _describe_part(building, part, plan, outcomes)
        staged = path / "staging" / f"{part}-{record['digest']}"
        fsync_tree(building)
        try:
            building.rename(staged)
        except OSError:
            # Fine where someone else has staged the same bytes, or committed; else nothing may be decided.
            if not staged.is_dir() and not commit.exists():
                raise
        fsync_dir(path / "staging")
        draft = path / "staging" / f"{part}-{uuid.uuid4().hex}.commit"
        write_durable(draft, seal(record))
        with contextlib.suppress(FileExistsError):
            os.link(draft, commit)
        draft.unlink(missing_ok=True)
        fsync_dir(path / "commits")
    except FileNotFoundError:
        if not commit.exists():  # else another process committed the part and swept our staging away
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    roll_forward(path, part)
    return unseal(commit)


def roll_forward(path: Path, part: int) -> None:
    """Link a committed part's objects to their Zarr keys and clear what is staged for it; does nothing when done.

    Raises
    ------
    StoreCorruptError
        If the commit record belongs to another plan.
    """
    record = unseal(path / "commits" / f"{part}.json")
    if record["plan"] != fingerprint(read_plan(path)):
        raise StoreCorruptError(f"{path}: commits/{part}.json belongs to another plan; remove it and extract again")
    staged = path / "staging" / f"{part}-{record['digest']}"
    if staged.is_dir():
        folders = set()
        for item in record["objects"]:
            target = path / item["key"]
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    os.link(staged / item["key"], target)
            folders.update([target.parent, *(p for p in target.parent.parents if p.is_relative_to(path))])
        for folder in sorted(folders, reverse=True):
            fsync_dir(folder)
    for leftover in (path / "staging").glob(f"{part}-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def finish(path: Path) -> None:
    """Roll every committed part forward; once all parts are committed, nothing staged remains."""
    committed = committed_parts(path)
    for part in sorted(staged_parts(path) & committed):
        roll_forward(path, part)
    if len(committed) == n_parts(read_plan(path)):
        with contextlib.suppress(OSError):
            (path / "staging").rmdir()


def committed_parts(path: Path) -> set[int]:
    """Numbers of the parts that have a commit record; other names, such as a file manager's, are passed over."""
    return {int(found[1]) for name in os.listdir(path / "commits") if (found := _COMMIT_NAME.fullmatch(name))}


def staged_parts(path: Path) -> set[int]:
    """Numbers of the parts that something is staged for."""
    try:
        names = os.listdir(path / "staging")
    except FileNotFoundError:
        return set()
    return {int(found[1]) for name in names if (found := _STAGED_NAME.match(name))}


def read_commit(path: Path, part: int) -> dict[str, Any] | None:
    """The commit record of a part; None where there is none."""
    commit = path / "commits" / f"{part}.json"
    return unseal(commit) if commit.exists() else None


def committed_objects(path: Path, part: int) -> set[str]:
    """Keys of the objects that a committed part must have."""
    return {item["key"] for item in unseal(path / "commits" / f"{part}.json")["objects"]}


def n_tracks(plan: Mapping[str, Any]) -> int:
    return sum(int(generation["n_tracks"]) for generation in plan["generations"])


def n_parts(plan: Mapping[str, Any]) -> int:
    return math.ceil(n_tracks(plan) / int(plan["part_rows"]))


def part_range(plan: Mapping[str, Any], part: int) -> range:
    """Array rows of a part that hold planned tracks."""
    size = plan["part_rows"]
    return range(part * size, min((part + 1) * size, n_tracks(plan)))


def object_key(spec: ArraySpec, part: int) -> str:
    """Zarr key of the object that holds a part of an array: a shard, or a chunk as long as a part."""
    return "/".join([spec.name, "c", str(part), *("0" for _ in spec.tail)])


def _lay_out(
    folder: Path,
    tracks: pa.Table,
    recipe: Recipe,
    part_rows: int,
    genres: list[str],
    genre_embedding: npt.NDArray[np.float32] | None,
) -> None:
    _lay_out_arrays(folder, tracks.num_rows, recipe, part_rows, genre_embedding)
    for name in ("tracks", "genres", "rows", "commits", "log"):
        (folder / name).mkdir()
    write_table(tracks.select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA), folder / "tracks" / "0.parquet")
    genre_table = pa.Table.from_pylist([{"row": i, "name": name} for i, name in enumerate(genres)], schema=GENRE_SCHEMA)
    write_table(genre_table, folder / "genres" / "0.parquet")
    plan = {
        "format_version": FORMAT_VERSION,
        "recipe": recipe.to_dict(),
        "fingerprints": recipe.fingerprints(),
        "part_rows": part_rows,
        "generations": [
            {
                "n_tracks": tracks.num_rows,
                "n_genres": len(genres),
                "tracks_sha256": file_sha256(folder / "tracks" / "0.parquet"),
                "genres_sha256": file_sha256(folder / "genres" / "0.parquet"),
            }
        ],
    }
    write_durable(folder / "plan.json", seal(plan))


def _lay_out_arrays(
    folder: Path, n_tracks: int, recipe: Recipe, part_rows: int, genre_embedding: npt.NDArray[np.float32] | None
) -> None:
    attributes = {
        "mgc_format_version": FORMAT_VERSION,
        "mgc_version": _version("mgc") or "",
        "recipe": recipe.to_dict(),
        "fingerprints": recipe.fingerprints(),
        "library_versions": {name: version for name in RECORDED_LIBRARIES if (version := _version(name))},
        "part_rows": part_rows,
        "flag_bits": {flag.name: flag.value for flag in Flag},
        "status_codes": {"absent": ABSENT, "ok": OK, "failed": FAILED},
    }
    group = zarr.create_group(folder, zarr_format=3, attributes=attributes)
    for spec in track_arrays(recipe):
        _create_array(group, spec, math.ceil(n_tracks / part_rows) * part_rows, part_rows)
    if genre_embedding is not None:
        spec = ArraySpec(
            name="genre_embedding",
            dims=("genre", "text_dim"),
            tail=genre_embedding.shape[1:],
            dtype="float32",
            fill=float("nan"),
            unit="1",
            description="mean hidden state over the non-special tokens of each genre name; names in genres/*.parquet",
        )
        _create_array(group, spec, len(genre_embedding), 1)[:] = genre_embedding
    with warnings.catch_warnings():
        # Consolidated metadata is an extension that zarr-python and xarray both read; others ignore it.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=ZarrUserWarning)
        zarr.consolidate_metadata(folder)


def _create_array(group: zarr.Group, spec: ArraySpec, n_rows: int, part_rows: int) -> zarr.Array[Any]:
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


def _build_part(
    building: Path, part: int, plan: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], outcomes: pa.Table
) -> None:
    """Let zarr encode the part as part 0 of a scratch store, then move the objects to their keys in the real one."""
    recipe = Recipe.from_dict(plan["recipe"])
    rows = part_range(plan, part)
    scratch = building / "scratch"
    group = zarr.create_group(scratch, zarr_format=3)
    for spec in track_arrays(recipe):
        values = arrays[spec.name]
        if values.shape != (len(rows), *spec.tail):
            raise ValueError(f"{spec.name}: part {part} wants shape {(len(rows), *spec.tail)}, got {values.shape}")
        _create_array(group, spec, plan["part_rows"], plan["part_rows"])[: len(rows)] = values
        encoded = scratch / object_key(spec, 0)
        if encoded.exists():  # a part equal to fill throughout has no object
            target = building / object_key(spec, part)
            target.parent.mkdir(parents=True)
            encoded.rename(target)
    shutil.rmtree(scratch)
    if outcomes.column("row").to_pylist() != list(rows):
        raise ValueError(f"outcomes of part {part} are not its rows {rows.start} to {rows.stop - 1}")
    (building / "rows").mkdir()
    write_table(outcomes, building / "rows" / f"{part}.parquet")


def _describe_part(building: Path, part: int, plan: Mapping[str, Any], outcomes: pa.Table) -> dict[str, Any]:
    """The commit record: only what the plan and the sources' bytes determine."""
    files = sorted(file for file in building.rglob("*") if file.is_file())
    objects = [
        {"key": file.relative_to(building).as_posix(), "size": file.stat().st_size, "sha256": file_sha256(file)}
        for file in files
    ]
    status = np.asarray(outcomes.column("status"))
    reasons = Counter(reason for reason in outcomes.column("reason").to_pylist() if reason)
    return {
        "format_version": FORMAT_VERSION,
        "part": part,
        "plan": fingerprint(plan),
        "digest": fingerprint(objects),
        "objects": objects,
        "counts": {"ok": int((status == OK).sum()), "failed": int((status == FAILED).sum())},
        "reasons": dict(sorted(reasons.items())),
    }


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
