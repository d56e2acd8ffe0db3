"""Rebuild damaged tables and genre embeddings of a plan from the source, the part of a repair that needs the source."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ...cache.durable import replace_file
from ...cache.errors import StoreError
from ...cache.format.layout import encode, genre_spec
from ...cache.format.plan import Generation, Plan, read_genres, read_plan, read_tracks
from ...cache.format.tables import genre_table, table_bytes, with_rows
from ...cache.upkeep.verify import Damage
from ..sources.manifest import Source
from ..text.encoder import TextSource, embed_prompts
from .reconcile import source_table


def restore_plan_objects(
    store: Path, damages: Iterable[Damage], source: Source, text: TextSource | None
) -> list[Damage]:
    """Rebuild damaged objects of the plan from `source` and the text encoder; write those that match the recorded hash.

    Returns
    -------
    list of Damage
        The damage that remains.
    """
    plan = read_plan(store)
    recorded = {
        item["key"]: (generation, item["sha256"])
        for generation in plan.generations
        for item in generation.record["objects"]
    }
    left = []
    for damage in sorted(damages, key=lambda damage: not damage.key.startswith("tracks/")):  # genres follow from tracks
        generation, sha256 = recorded.get(damage.key, (None, None))
        for data in _candidates(store, plan, generation, damage.key, source, text):
            if hashlib.sha256(data).hexdigest() == sha256:
                replace_file(store / damage.key, data)
                break
        else:
            left.append(damage)
    return left


def _candidates(
    store: Path, plan: Plan, generation: Generation | None, key: str, source: Source, text: TextSource | None
) -> Iterator[bytes]:
    """Yield possible contents of an object of a generation."""
    kind, _, name = key.partition("/")
    if generation is None:
        return
    if kind == "tracks":
        yield from _track_tables(store, plan, generation, source)
    elif kind == "genres":
        yield _genre_table(store, plan, generation)
    elif text is not None and plan.recipe.lyrics is not None:
        genre = read_genres(store, plan)[int(name.split("/")[1])]
        yield from encode(genre_spec(plan.recipe.lyrics.hidden_size), embed_prompts([genre], plan.recipe, text), 1)


def _track_tables(store: Path, plan: Plan, generation: Generation, source: Source) -> Iterator[bytes]:
    """Yield candidate tables: all tracks of the source, those in no other generation, those in other generations."""
    tracks = source_table(source)
    others: set[str] = set()
    for other in plan.generations:
        if other.number != generation.number:
            with contextlib.suppress(StoreError):
                others |= set(read_tracks(store, other).column("id").to_pylist())
    in_others = pc.is_in(tracks.column("id"), pa.array(sorted(others), pa.string()))
    for chosen in (tracks, tracks.filter(pc.invert(in_others)), tracks.filter(in_others)):
        if chosen.num_rows == len(generation.rows):
            yield table_bytes(with_rows(chosen, generation.rows))


def _genre_table(store: Path, plan: Plan, generation: Generation) -> bytes:
    def genres_of(number: int) -> set[str]:
        tracks = read_tracks(store, plan.generations[number])
        return {genre for genres in tracks.column("genres").to_pylist() for genre in genres}

    before = {name for number in range(generation.number) for name in genres_of(number)}
    names = sorted(genres_of(generation.number) - before)
    return table_bytes(genre_table(range(generation.genres.start, generation.genres.start + len(names)), names))
