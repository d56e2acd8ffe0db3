"""Add a feature set to a store that exists: plan it, then build every part for which it is missing."""

from __future__ import annotations

import time
from pathlib import Path

from ...cache.errors import ConfigError
from ...cache.format.plan import is_store, read_plan
from ...cache.format.recipe import FeatureSetRecipe, TextRecipe
from ...cache.format.records import committed
from ...cache.steps import Progress, silent
from ...cache.writing.commits import finish
from ..extractors.extractor import NAME
from ..extractors.registry import extractor_names, load_extractor
from ..sources.manifest import Source
from ..text.encoder import TextSource, encoder_recipe
from .options import ExtractOptions
from .pending import ExtractReport, PendingParts, plan_feature_set, records_to_retry
from .reconcile import plan_source, recipe_differences, refuse, source_table


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
    text = None
    if options.text_model is not None:
        text = TextSource(model=options.text_model, device=options.text_device)
    recipe = _added_recipe(path, name, text, options.text_precision)
    if not NAME.fullmatch(name):
        raise ConfigError(f"--add {name!r}: want a short name of lower-case letters, digits and _, such as minilm")
    plan = read_plan(path)
    if isinstance(recipe, TextRecipe) and plan.recipe.lyrics is None:
        raise ConfigError(f"{path}: a store without text features; other ones join those that are there")
    finish(path)
    plan = plan_source(path, plan, source_table(source), text, append=False, may_change=False)
    if name in plan.added:
        refuse(
            path,
            recipe_differences(plan.added[name].recipe, recipe),
            f"Use the same to continue {name!r}, or another name; `mgc store drop {path} --feature {name}` takes out "
            "what there is, and then it can join anew.",
        )
    plan = plan_feature_set(path, plan, name, recipe, text)
    refuse(path, recipe_differences(plan.added[name].recipe, recipe), "Name another.")
    without_base = set(range(plan.n_parts)) - committed(path).keys()
    retries = records_to_retry(path, plan, name) if options.retry_failed else {}
    pending = PendingParts(
        source=source, path=path, text=text, options=options, on_progress=on_progress, feature_set=name
    )
    built = pending.build(plan, skip=without_base) + pending.build(plan, retries=retries)
    finish(path)
    return ExtractReport.of_store(path, name, parts_built=built, seconds=time.monotonic() - started)


def _added_recipe(path: Path, name: str, text: TextSource | None, precision: str) -> FeatureSetRecipe:
    """Return the recipe of the text encoder that the user named, else of the extractor of that name."""
    if text is not None:
        if name in extractor_names():
            raise ConfigError(
                f"--add {name}: an extractor's name, but a text encoder is named too. Leave --text-model out for the "
                "extractor's features, or call the text features something else"
            )
        return encoder_recipe(text, precision)
    try:
        return load_extractor(name).recipe(read_plan(path).recipe.mel)
    except ConfigError as error:
        raise ConfigError(f"--add {name}: {error}; or name a text encoder with --text-model") from error
