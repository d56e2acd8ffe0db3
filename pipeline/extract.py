"""From a source to a store: freeze the plan, build what no one has committed yet, count what came out.

Resuming is plan minus commits; a source or recipe that differs from the store's plan is refused with the differences.
Tracks join a store as new generations of its plan: appended ones, and failed ones to be tried again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from ..cache.errors import ConfigError
from ..cache.format.plan import PLAN_FILE, Plan, read_genres, read_plan
from ..cache.format.recipe import FeatureSetRecipe, Recipe, TextRecipe
from ..cache.format.records import committed
from ..cache.format.schema import FAILED, OK
from ..cache.format.tables import plan_table
from ..cache.reading.store import Counts, FeatureStore
from ..cache.writing.commits import finish
from ..cache.writing.creation import add_feature_set
from .extractors import NAME
from .manifest import Source
from .parts import TextSource
from .pending import PendingParts, Progress
from .planning import (
    create,
    embedded_genres,
    joined,
    plan_row,
    planned_tracks,
    refuse,
    refuse_other_content,
    refuse_other_recipe,
    retried,
    retry_is_under_way,
    set_differences,
    track_differences,
)
from .workers import Scheduler

if TYPE_CHECKING:
    from .forecast import Forecast

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExtractReport(Counts):
    """How an extraction ended, and what was predicted for it, if that was asked."""

    store: str
    parts_built: int
    seconds: float
    forecast: Forecast | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def extract(
    source: Source,
    path: Path,
    *,
    recipe: Recipe,
    text: TextSource | None,
    embed_genres: bool = True,
    part_rows: int | None = None,
    append: bool = False,
    retry_failed: bool = False,
    workers: int | Scheduler = 0,
    shard: tuple[int, int] | None = None,
    starts_s: Mapping[str, float] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ExtractReport:
    """Bring the store at `path` to hold every track of `source`, as ok or failed with a reason.

    Parameters
    ----------
    source : the tracks, and the root their paths are relative to.
    path : the store; made where there is none, continued where there is one.
    recipe : what to compute; must equal the recipe of a store that exists.
    text : where the text encoder of ``recipe.lyrics`` lies on this machine; loaded only when a text needs it.
    embed_genres : embed the names of all genres of the source when the store is made.
    part_rows : rows a part; None takes 128, or 16 below 2 048 tracks. Frozen when the store is made.
    append : let tracks of `source` that the store does not plan join it; those it holds may be missing from `source`.
    retry_failed : try failed tracks of `source` again, in new rows. A retry that was cut off is finished first, and
        is then all that is done.
    workers : local Dask worker processes, or a scheduler that has its own; 0 runs in this process.
    shard : (i, n), i from 1 to n: build only every n-th part, for job arrays.
    starts_s : by track id, where a clip begins, if not where the recipe says. The plan does not hold it: for stores
        that are thrown away.
    on_progress : told after each part.

    Raises
    ------
    RecipeMismatchError
        If the store was planned with another recipe, or from other tracks.
    """
    started = time.monotonic()
    if text is not None and recipe.lyrics is not None:
        log.info("text encoder %s, weights %s", recipe.lyrics.model, recipe.lyrics.weights_sha256[:12])
    wanted = plan_table(map(plan_row, source.tracks))
    if not (path / PLAN_FILE).is_file():
        refuse_other_content(path)
        create(path, wanted, recipe, text if embed_genres else None, part_rows)
    plan = read_plan(path)
    refuse_other_recipe(path, plan, recipe, part_rows, embed_genres)
    finish(path)
    retry_is_due = retry_failed and not retry_is_under_way(path, plan)
    plan = joined(path, plan, wanted, text, append=append, may_change=retry_failed)
    run = PendingParts(source, path, text, workers, shard, on_progress, starts_s=starts_s)
    parts_built = run.build(plan)
    if retry_is_due:
        again = retried(path, plan, wanted, text)
        parts_built += run.build(again) if again is not None else 0
    finish(path)
    with FeatureStore.open(path) as store:
        counts = store.counts()
    seconds = round(time.monotonic() - started, 2)
    return ExtractReport(store=str(path), parts_built=parts_built, seconds=seconds, **vars(counts))


def add_features(
    source: Source,
    path: Path,
    name: str,
    *,
    recipe: FeatureSetRecipe,
    text: TextSource | None = None,
    workers: int | Scheduler = 0,
    shard: tuple[int, int] | None = None,
    retry_failed: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> ExtractReport:
    """Let the features of another text encoder, or of an extractor, join a store; nothing that is written is touched.

    Parts that are extracted get them; parts that are extracted later get them when this is run again. Tracks that
    failed when the store was made have none, and are not counted: not as planned, nor as failed.

    Parameters
    ----------
    name : what the store calls them; of an extractor, its own name.
    text : where the text encoder of a :class:`~mgc.cache.format.recipe.TextRecipe` lies.
    retry_failed : try tracks again that lack these features because they failed on them; the others keep theirs.

    Raises
    ------
    ConfigError
        If the name will not do, or the store or the source is not the one.
    RecipeMismatchError
        If the store has features of that name, by another recipe.
    """
    started = time.monotonic()
    if not NAME.fullmatch(name):
        raise ConfigError(f"--add {name!r}: want a short name of lower-case letters, digits and _, such as minilm")
    plan = read_plan(path)
    if isinstance(recipe, TextRecipe) and plan.recipe.lyrics is None:
        raise ConfigError(f"{path}: a store without text features; other ones join those that are there")
    finish(path)
    wanted = plan_table(map(plan_row, source.tracks))
    plan = joined(path, plan, wanted, text, append=False, may_change=False)
    known = plan.added.get(name)
    if known is not None:
        refuse(
            path, set_differences(known.recipe, recipe),
            f"Use the same to continue {name!r}, or another name; `mgc store drop {path} --feature {name}` takes out "
            "what there is, and then it can join anew.",
        )  # fmt: skip
    plan = _with_set(path, plan, name, recipe, text)
    refuse(path, set_differences(plan.added[name].recipe, recipe), "Name another.")
    pending = set(range(plan.n_parts)) - committed(path).keys()
    again = _with_failed(path, plan, name) if retry_failed else {}
    run = PendingParts(source, path, text, workers, shard, on_progress, feature_set=name)
    built = run.build(plan, without=pending) + run.build(plan, again=again)
    finish(path)
    with FeatureStore.open(path) as store:
        counts = store.counts(name)
    seconds = round(time.monotonic() - started, 2)
    return ExtractReport(store=str(path), parts_built=built, seconds=seconds, **vars(counts))


def _with_set(path: Path, plan: Plan, name: str, recipe: FeatureSetRecipe, text: TextSource | None) -> Plan:
    """The plan with a feature set in it, and of a text encoder's with all genres embedded."""
    known = plan.added.get(name)
    n_genres = 0 if known is None else known.n_genres
    if known is not None and (not isinstance(recipe, TextRecipe) or n_genres == plan.n_genres):
        return plan
    embedding = None
    if isinstance(recipe, TextRecipe) and text is not None:
        named = Recipe(mel=None, lyrics=recipe, genre_names=plan.recipe.genre_names)
        embedding = embedded_genres(read_genres(path, plan)[n_genres:], named, text)
    return add_feature_set(path, plan, name, recipe, embedding)


def _with_failed(path: Path, plan: Plan, name: str) -> dict[int, int]:
    """Part -> n of its record, of every part with a track that failed on features that joined."""
    with FeatureStore.open(path) as store:
        found = store.added_outcomes(name)
        failed = np.asarray(found.filter(pc.equal(found.column("status"), FAILED)).column("row"))
        parts = np.unique(failed[store.status[failed] == OK] // plan.part_rows)
    newest = committed(path, name)
    return {part: newest[part] for part in parts.tolist()}


def build_pending(
    source: Source,
    path: Path,
    *,
    text: TextSource | None,
    workers: int | Scheduler = 0,
    feature_set: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> int:
    """Build those pending parts whose tracks are all in `source`; returns how many were built.

    Parameters
    ----------
    feature_set : features that joined the store, by name: their parts, of those that the store itself has.
    """
    plan = read_plan(path)
    known, wanted = planned_tracks(path, plan), plan_table(map(plan_row, source.tracks))
    is_wanted = pc.is_in(known.column("id"), wanted.column("id"))
    here = wanted.filter(pc.is_in(wanted.column("id"), known.column("id")))
    refuse(path, track_differences(known.filter(is_wanted), here), "Name the source that the store was made from.")
    missing = known.filter(pc.invert(is_wanted))
    elsewhere = set((np.asarray(missing.column("row")) // plan.part_rows).tolist())
    finish(path)
    if feature_set is not None:
        elsewhere |= set(range(plan.n_parts)) - committed(path).keys()
        plan = _with_set(path, plan, feature_set, plan.added[feature_set].recipe, text)
    built = PendingParts(source, path, text, workers, None, on_progress, feature_set).build(plan, without=elsewhere)
    finish(path)
    return built
