"""Add a feature set to a store that exists: plan it, then build every part for which it is missing."""

from __future__ import annotations

import time
from pathlib import Path

from ...cache.errors import ConfigError
from ...cache.format.plan import read_plan
from ...cache.format.recipe import FeatureSetRecipe, TextRecipe
from ...cache.format.records import committed
from ...cache.format.tables import plan_table
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ...cache.writing.commits import finish
from ..extractors.extractor import NAME
from ..sources.manifest import Source
from ..text.encoder import TextSource
from .cluster import Scheduler
from .pending import ExtractReport, PendingParts, join_set, retry_failed_rows
from .reconcile import joined, plan_row, refuse, set_differences


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
    on_progress: Progress = silent,
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
    plan = join_set(path, plan, name, recipe, text)
    refuse(path, set_differences(plan.added[name].recipe, recipe), "Name another.")
    pending = set(range(plan.n_parts)) - committed(path).keys()
    again = retry_failed_rows(path, plan, name) if retry_failed else {}
    run = PendingParts(source, path, text, workers, shard, on_progress, feature_set=name)
    built = run.build(plan, without=pending) + run.build(plan, again=again)
    finish(path)
    with FeatureStore.open(path) as store:
        counts = store.counts(name)
    seconds = round(time.monotonic() - started, 2)
    return ExtractReport(store=str(path), parts_built=built, seconds=seconds, **vars(counts))
