"""From a source to a store: freeze the plan, build what no one has committed yet, count what came out.

Resuming is plan minus commits; a source or recipe that differs from the store's plan is refused with the differences.
Tracks join a store as new generations of its plan: appended ones, and failed ones to be tried again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from ...cache.format.plan import PLAN_FILE, read_plan
from ...cache.format.recipe import Recipe
from ...cache.steps import Progress, silent
from ...cache.writing.commits import finish
from ..sources.manifest import Source
from ..text.encoder import TextSource
from . import reconcile
from .options import ExtractOptions
from .pending import ExtractReport, PendingParts

log = logging.getLogger(__name__)


def extract(
    source: Source,
    path: Path,
    options: ExtractOptions,
    *,
    recipe: Recipe,
    text: TextSource | None,
    starts_s: Mapping[str, float] | None = None,
    on_progress: Progress = silent,
) -> ExtractReport:
    """Bring the store at `path` to hold every track of `source`, as ok or failed with a reason.

    Parameters
    ----------
    source : the tracks, and the root their paths are relative to.
    path : the store; made where there is none, continued where there is one.
    options : how to do it. What to compute is in `recipe` and `text`, which
        :func:`mgc.pipeline.extraction.reconcile.choose_recipe` makes of the same options.
    recipe : what to compute; must equal the recipe of a store that exists.
    text : where the text encoder of ``recipe.lyrics`` lies on this machine; loaded only when a text needs it.
    starts_s : by track id, where a clip begins, if not where the recipe says. The plan does not hold it: for stores
        that are thrown away.
    on_progress : receives tracks done and planned, and how many failed, after each part.

    Raises
    ------
    RecipeMismatchError
        If the store was planned with another recipe, or from other tracks.
    """
    started = time.monotonic()
    if text is not None and recipe.lyrics is not None:
        log.info("text encoder %s, weights %s", recipe.lyrics.model, recipe.lyrics.weights_sha256[:12])
    tracks = reconcile.source_table(source)
    if not (path / PLAN_FILE).is_file():
        reconcile.refuse_other_content(path)
        reconcile.plan_store(path, tracks, recipe, text, options)
    plan = read_plan(path)
    reconcile.refuse_other_recipe(path, plan, recipe, options)
    finish(path)
    retry_is_due = options.retry_failed and not reconcile.has_unfinished_retry(path, plan)
    plan = reconcile.plan_source(path, plan, tracks, text, append=options.append, may_change=options.retry_failed)
    pending = PendingParts(
        source=source, path=path, text=text, options=options, on_progress=on_progress, starts_s=starts_s or {}
    )
    parts_built = pending.build(plan)
    if retry_is_due and (retry := reconcile.plan_retry(path, plan, tracks, text)) is not None:
        parts_built += pending.build(retry)
    finish(path)
    return ExtractReport.of_store(path, parts_built=parts_built, seconds=time.monotonic() - started)
