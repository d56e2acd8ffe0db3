"""From a source to a store: freeze the plan, build what no one has committed yet, count what came out.

Resuming is plan minus commits; a source or recipe that differs from the store's plan is refused with the differences.
Tracks are added as new generations of a plan: appended ones, and failed ones to be tried again. A feature set is
added to a store that exists, then built for every part that lacks it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from ...cache.durable import atomic_write, fsync_dir
from ...cache.errors import ConfigError
from ...cache.format.plan import PLAN_FILE, is_store, read_plan
from ...cache.format.recipe import FeatureSetRecipe, Recipe, TextRecipe
from ...cache.format.records import committed
from ...cache.steps import Progress, silent
from ...cache.writing.commits import finish
from ..extractors.extractor import NAME
from ..extractors.registry import extractor_names, load_extractor
from ..sources.manifest import Source
from ..text.encoder import TextSource, encoder_recipe
from ..text.lyrics import CLEANING_RULE
from . import reconcile
from .added_builders import extractor_cleaning
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
        reconcile.plan_store(path, tracks, recipe, text, options)
    with contextlib.suppress(PermissionError):
        fsync_dir(path.parent)  # the process that created the store may have been killed before it did this
    plan = read_plan(path)
    reconcile.refuse_other_recipe(path, plan, recipe, options)
    finish(path)
    retry_is_due = options.retry_failed and not reconcile.has_unfinished_retry(path, plan)
    plan = reconcile.plan_source(
        path, plan, tracks, text, append=options.append, may_change=options.retry_failed, uses_tags=source.uses_tags
    )
    if source.provenance:
        _note_provenance(path, source, len(plan.generations) - 1)
    pending = PendingParts(
        source=source, path=path, text=text, options=options, on_progress=on_progress, starts_s=starts_s or {}
    )
    parts_built = pending.build(plan)
    if retry_is_due and (retry := reconcile.plan_retry(path, plan, tracks, text)) is not None:
        parts_built += pending.build(retry)
    finish(path)
    return ExtractReport.of_store(path, parts_built=parts_built, seconds=time.monotonic() - started)


def add_features(
    source: Source,
    path: Path,
    options: ExtractOptions,
    *,
    on_progress: Progress = silent,
) -> ExtractReport:
    """Add the features of another text encoder, or of an extractor, to a store; nothing that is written is touched.

    Parts that are extracted get them; parts that are extracted later get them when this is run again. Tracks that
    failed when the store was made have none, and are not counted: not as planned, nor as failed.

    Parameters
    ----------
    options : ``add`` is the name of the feature set, ``text_model`` its encoder; without one it is an extractor's.

    Raises
    ------
    ConfigError
        If the name will not do, or the store or the source is not the one.
    RecipeMismatchError
        If the store has features of that name, by another recipe.
    """
    started, name = time.monotonic(), options.add
    assert name is not None
    if not (path.is_dir() and is_store(path)) or options.append:
        raise ConfigError(f"--add {name}: features join a Zarr store that is there, in a run of their own")
    model = options.text_model
    text = None if model is None else TextSource(model=model, device=options.text_device)
    recipe = _added_recipe(path, name, text, options.text_precision)
    if not NAME.fullmatch(name):
        raise ConfigError(f"--add {name!r}: want a short name of lower-case letters, digits and _, such as minilm")
    plan = read_plan(path)
    if isinstance(recipe, TextRecipe) and plan.recipe.lyrics is None:
        raise ConfigError(f"{path}: no text feature set to add another one to. Extract a store with lyrics instead.")
    finish(path)
    tracks = reconcile.source_table(source)
    plan = reconcile.plan_source(path, plan, tracks, text, append=False, may_change=False, uses_tags=source.uses_tags)
    if name in plan.added:
        reconcile.refuse(
            path,
            reconcile.recipe_differences(plan.added[name].recipe, recipe),
            f"Use the same to continue {name!r}, or another name; `mgc store drop {path} --feature {name}` takes out "
            "what there is, and then it can join anew.",
        )
    pending = PendingParts(
        source=source, path=path, text=text, options=options, on_progress=on_progress, feature_set=name
    )
    plan = pending.plan_feature_set(plan, recipe)
    reconcile.refuse(path, reconcile.recipe_differences(plan.added[name].recipe, recipe), "Name another.")
    without_base = set(range(plan.n_parts)) - committed(path).keys()
    retries = pending.records_to_retry(plan) if options.retry_failed else {}
    built = pending.build(plan, skip=without_base) + pending.build(plan, retries=retries)
    finish(path)
    return ExtractReport.of_store(path, name, parts_built=built, seconds=time.monotonic() - started)


def _added_recipe(path: Path, name: str, text: TextSource | None, precision: str) -> FeatureSetRecipe:
    """Return the recipe of the text encoder that the user named, else of the extractor of that name."""
    plan = read_plan(path)
    if text is not None:
        if name in extractor_names():
            raise ConfigError(
                f"--add {name}: an extractor's name, but a text encoder is named too. Leave --text-model out for the "
                "extractor's features, or call the text features something else"
            )
        cleaning = CLEANING_RULE if plan.recipe.lyrics is None else plan.recipe.lyrics.cleaning
        return encoder_recipe(text, precision, cleaning=cleaning)
    try:
        return load_extractor(name).recipe(plan.recipe.mel, extractor_cleaning(plan, name))
    except ConfigError as error:
        raise ConfigError(f"--add {name}: {error}; or name a text encoder with --text-model") from error


def _note_provenance(path: Path, source: Source, generation: int) -> None:
    """Write where the columns of a source come from into the log, which is no part of the store's content."""
    with contextlib.suppress(OSError), atomic_write(path / "log" / f"source-{generation}.json") as draft:
        draft.write_text(json.dumps(source.provenance, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
