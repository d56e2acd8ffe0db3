"""The half of a repair that needs the source: tables of the plan and genre embeddings, made again and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from ...cache.durable import replace_file
from ...cache.errors import StoreError
from ...cache.format.layout import create_array, genre_spec, object_key
from ...cache.format.plan import Generation, Plan, read_genres, read_plan, read_tracks
from ...cache.format.tables import GENRE_SCHEMA, PLAN_SCHEMA, plan_table, table_bytes
from ...cache.upkeep.verify import Damage
from ..sources.manifest import Source
from ..text.encoder import TextSource, load_encoder
from .reconcile import plan_row


def write_again(store: Path, damages: Iterable[Damage], source: Source, text: TextSource | None) -> list[Damage]:
    """Write hurt objects of the plan again, where `source` and the text encoder give the very bytes recorded.

    Returns
    -------
    list of Damage
        What is left.
    """
    plan = read_plan(store)
    left = []
    for damage in sorted(damages, key=lambda damage: not damage.key.startswith("tracks/")):  # genres follow from tracks
        found = _object(plan, damage.key)
        if found is None:
            left.append(damage)
            continue
        generation, wanted = found
        for data in _candidates(store, plan, generation, damage.key, source, text):
            if hashlib.sha256(data).hexdigest() == wanted:
                replace_file(store / damage.key, data)
                break
        else:
            left.append(damage)
    return left


def _object(plan: Plan, key: str) -> tuple[Generation, str] | None:
    for generation in plan.generations:
        for item in generation.record["objects"]:
            if item["key"] == key:
                return generation, item["sha256"]
    return None


def _candidates(
    store: Path, plan: Plan, generation: Generation, key: str, source: Source, text: TextSource | None
) -> Iterator[bytes]:
    kind = key.split("/")[0]
    if kind == "tracks":
        yield from _track_tables(store, plan, generation, source)
    elif kind == "genres":
        yield _genre_table(store, plan, generation)
    elif text is not None and plan.recipe.lyrics is not None:
        row = int(key.split("/")[2])
        name = read_genres(store, plan)[row]
        read_aloud = plan.recipe.genre_names.get(name, name)
        yield _genre_chunk(load_encoder(text, plan.recipe.lyrics).encode(read_aloud).pooled)


def _track_tables(store: Path, plan: Plan, generation: Generation, source: Source) -> Iterator[bytes]:
    """The source's tracks; those of them that no other generation plans; those that other generations plan."""
    wanted = plan_table(map(plan_row, source.tracks))
    others: set[str] = set()
    for other in plan.generations:
        if other.number != generation.number:
            try:
                others |= set(read_tracks(store, other).column("id").to_pylist())
            except StoreError:
                continue
    ids = wanted.column("id").to_pylist()
    for chosen in (range(len(ids)), [i for i, name in enumerate(ids) if name not in others],
                   [i for i, name in enumerate(ids) if name in others]):  # fmt: skip
        if len(chosen) == len(generation.rows):
            yield table_bytes(_numbered(wanted.take(pa.array(chosen, pa.int64())), generation.rows))


def _numbered(tracks: pa.Table, rows: Sequence[int]) -> pa.Table:
    place = tracks.schema.get_field_index("row")
    return tracks.set_column(place, PLAN_SCHEMA.field("row"), pa.array(rows, pa.int64()))


def _genre_table(store: Path, plan: Plan, generation: Generation) -> bytes:
    def genres_of(number: int) -> set[str]:
        tracks = read_tracks(store, plan.generations[number])
        return {genre for genres in tracks.column("genres").to_pylist() for genre in genres}

    before = {name for number in range(generation.number) for name in genres_of(number)}
    names = sorted(genres_of(generation.number) - before)
    rows = [{"row": generation.genres.start + i, "name": name} for i, name in enumerate(names)]
    return table_bytes(pa.Table.from_pylist(rows, schema=GENRE_SCHEMA))


def _genre_chunk(embedding: npt.NDArray[np.float32]) -> bytes:
    objects: dict[str, Buffer] = {}
    spec = genre_spec(len(embedding))
    group = zarr.create_group(MemoryStore(objects), zarr_format=3)
    create_array(group, spec, 1, 1)[:] = embedding[None]
    return objects[object_key(spec, 0)].to_bytes()
