"""Write a small store with everything that a store can hold: a second generation, added feature sets, a takedown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.worlds.small_store import append_late_track, create, fill, part_content
from mgc.cache.format.plan import Plan, read_plan, read_tracks
from mgc.cache.format.recipe import ExtractorRecipe, TextRecipe
from mgc.cache.format.records import committed
from mgc.cache.format.schema import FAILED, OK, array_name
from mgc.cache.format.tables import ADDED_OUTCOME_SCHEMA
from mgc.cache.upkeep.compact import compact
from mgc.cache.writing.commits import commit_part, roll_forward
from mgc.cache.writing.creation import add_feature_set
from mgc.cache.writing.takedowns import drop, dropped_ids

OTHER = TextRecipe(model="other", weights_sha256="2" * 64, tokenizer_sha256="3" * 64, hidden_size=6, max_tokens=20)
TEMPO = ExtractorRecipe(
    extractor="tempo",
    version="1",
    input="clip",
    dims=("beat",),
    shape=(3,),
    dtype="float32",
    unit="s",
    description="times between beats",
    parameters={},
    clip={"clip_s": 0.5},
)
DOWN = {"status": FAILED, "reason": "DROPPED", "detail": "taken down with `mgc store drop`", "flags": 0}


def create_full(path: Path) -> Path:
    """Write two generations and two added feature sets; take a track down and compact."""
    create(path)
    fill(path)
    add_feature_set(path, read_plan(path), "other", OTHER, np.ones((2, 6), np.float32))
    add_feature_set(path, read_plan(path), "tempo", TEMPO)
    append_late_track(path)
    fill_pending(path)
    drop(path, ["t02"], planned=["t02"])
    compact(path)
    return path


def continue_full(path: Path) -> None:
    """Write two generations, two added feature sets and a second version of a part, or continue after a kill."""
    if not (path / "plan.json").is_file():
        create(path)
    roll_forward(path)
    fill(path)
    plan = read_plan(path)
    if "other" not in plan.added:
        plan = add_feature_set(path, plan, "other", OTHER, np.ones((2, 6), np.float32))
    if "tempo" not in plan.added:
        plan = add_feature_set(path, plan, "tempo", TEMPO)
    if len(plan.generations) == 1:
        append_late_track(path)
    fill_pending(path)
    if committed(path, "tempo")[0] == 0:
        arrays, outcomes = content(path, read_plan(path), 0, "tempo")
        arrays["tempo"] = arrays["tempo"] + 1
        commit_part(path, 0, arrays, outcomes, feature_set="tempo", new_version=True)
    roll_forward(path)


def fill_pending(path: Path) -> None:
    """Embed missing genres and commit missing parts, as an extraction does; takedowns stay empty."""
    plan = read_plan(path)
    if plan.added["other"].n_genres < plan.n_genres:
        late = np.full((plan.n_genres - plan.added["other"].n_genres, 6), 2, np.float32)
        plan = add_feature_set(path, plan, "other", OTHER, late)
    for feature_set in (None, *plan.added):
        for part in sorted(set(range(plan.n_parts)) - committed(path, feature_set).keys()):
            arrays, outcomes = content(path, plan, part, feature_set)
            commit_part(path, part, arrays, outcomes, feature_set=feature_set)
    roll_forward(path)


def content(path: Path, plan: Plan, part: int, feature_set: str | None) -> tuple[dict[str, Any], pa.Table]:
    """Return arrays and outcomes of a part, as an extraction makes them; takedowns stay empty."""
    rows, generation = plan.part_range(part), plan.generation_of(part)
    tracks = read_tracks(path, generation).slice(rows.start - generation.rows.start, len(rows))
    hidden = np.isin(tracks.column("id").to_pylist(), list(dropped_ids(path)))
    if feature_set is None:
        arrays, outcomes = part_content(rows)
    else:
        rng = np.random.default_rng(part)
        arrays = {
            spec.name: np.full(len(rows), OK, np.uint8)
            if spec.name.startswith("status")
            else rng.integers(1, 20, (len(rows), *spec.tail)).astype(spec.dtype)
            for spec in plan.arrays(feature_set)
        }
        text = "0" * 64 if array_name("lyrics", feature_set) in arrays else None
        lines = [{"row": row, "status": OK, "lyrics_sha256": text} for row in rows]
        outcomes = pa.Table.from_pylist(lines, schema=ADDED_OUTCOME_SCHEMA)
    for spec in plan.arrays(feature_set):
        arrays[spec.name][hidden] = FAILED if spec.name.startswith("status") else spec.fill
    lines = outcomes.to_pylist()
    for i in np.flatnonzero(hidden):
        lines[i] = {"row": lines[i]["row"], **DOWN}
    return arrays, pa.Table.from_pylist(lines, schema=outcomes.schema)
