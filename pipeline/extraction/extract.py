"""Extract a source into a store: freeze the plan, build the parts without a commit, count the outcomes.

A resumed extraction builds the planned parts that have no commit. A source or recipe that differs from the plan is
refused, with the differences. Appended tracks and retries of failed tracks become new generations of the plan. A
feature set is added to an existing store, then built for every part that lacks it.
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
from ...cache.format.recipe import FeatureSetRecipe, Recipe, TextRecipe, feature_set_differences
from ...cache.format.records import committed
from ...cache.messages import counted
from ...cache.steps import Progress, silent
from ...cache.writing.commits import roll_forward
from ...cache.writing.remote import remote_of
from ..extractors.extractor import NAME, Extractor
from ..extractors.pretrained import AudioSettings, AudioSource, is_pretrained, pretrained_extractor, with_stored_name
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
    """Extract every track of `source` into the store at `path`; each ends ok, or failed with a reason code.

    Parameters
    ----------
    source : the tracks, and the root of their relative paths.
    path : the store; created if it does not exist, else continued.
    options : workers, part size, append and retry. The features come from `recipe` and `text`, which
        :func:`mgc.pipeline.extraction.reconcile.choose_recipe` derives from the same options.
    recipe : features to compute; must equal the recipe of an existing store.
    text : location of the text encoder of ``recipe.lyrics`` on this machine; loaded when a text needs it.
    starts_s : track id -> start of its clip in seconds, for tracks whose start differs from the recipe's. The plan does
        not record it, so use it for temporary stores only.
    on_progress : receives the tracks done and planned, and the number of failed tracks, after each part.

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
    roll_forward(path)
    retry_is_due = options.retry_failed and not reconcile.has_unfinished_retry(path, plan)
    plan = reconcile.plan_source(
        path, plan, tracks, text, append=options.append, may_change=options.retry_failed, uses_tags=source.uses_tags
    )
    if source.provenance:
        _log_provenance(path, source, len(plan.generations) - 1)
    pending = PendingParts(
        source=source, path=path, text=text, options=options, on_progress=on_progress, starts_s=starts_s or {}
    )
    parts_built = pending.build(plan)
    if retry_is_due and (retry := reconcile.plan_retry(path, plan, tracks, text)) is not None:
        parts_built += pending.build(retry)
    roll_forward(path)
    return ExtractReport.of_store(
        path, parts_built=parts_built, seconds=time.monotonic() - started, remarks=pending.remarks
    )


def add_features(
    source: Source,
    path: Path,
    options: ExtractOptions,
    *,
    starts_s: Mapping[str, float] | None = None,
    on_progress: Progress = silent,
) -> ExtractReport:
    """Add a feature set of a second text encoder, or of an extractor, to a store; existing content does not change.

    Only extracted parts get the feature set. Run this again for parts that are extracted later. Tracks that failed in
    the store itself get no features, and count neither as planned nor as failed. The source needs no labels: labels,
    artists and splits are those of the store. Tracks that are not in the store are ignored.

    Parameters
    ----------
    options : ``add`` is the name of the feature set, ``text_model`` its text encoder. Without a text model, ``add`` is
        the name of an extractor.
    starts_s : as for :func:`extract`; those of the store's own clips.

    Raises
    ------
    ConfigError
        If the name is invalid, the store does not exist, or the source is not the store's.
    RecipeMismatchError
        If the store has a feature set of that name with another recipe.
    """
    started, name = time.monotonic(), options.add
    assert name is not None
    if not (path.is_dir() and is_store(path)) or options.append:
        raise ConfigError(
            f"--add {name}: a feature set can only be added to an existing Zarr store: {path}. "
            "Extract the store first, and do not combine --add with --append."
        )
    model = options.text_model
    text = None if model is None else TextSource(model=model, device=options.text_device)
    audio = None
    if options.audio_model is not None:
        audio = AudioSource(model=options.audio_model, device=options.audio_device)
    recipe = _added_recipe(path, name, text, audio, options)
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"invalid name of a feature set: --add {name!r}. Use lower-case letters, digits and _, such as minilm."
        )
    plan = read_plan(path)
    if isinstance(recipe, TextRecipe) and plan.recipe.lyrics is None:
        raise ConfigError(f"{path}: the store has no lyrics features. Extract a new store with lyrics.")
    roll_forward(path)
    of_lyrics = isinstance(recipe, TextRecipe) or recipe.input == "text"
    planned = reconcile.newest_tracks(path, plan)
    tracks = reconcile.with_planned_labels(planned, reconcile.source_table(source), of_lyrics=of_lyrics)
    n_ignored = len(source.tracks) - tracks.num_rows
    plan = reconcile.plan_source(path, plan, tracks, text, append=False, may_change=False, uses_tags=source.uses_tags)
    if name not in plan.added:
        reconcile.refuse_coordinates(plan, name, recipe)
    else:
        reconcile.refuse(
            path,
            feature_set_differences(plan.added[name].recipe, recipe),
            f"Use the same options to continue {name!r}, or use another name. To replace it, run "
            f"`mgc store drop {path} --feature {name}` first.",
        )
    pending = PendingParts(
        source=source,
        path=path,
        text=text,
        audio=audio,
        options=options,
        on_progress=on_progress,
        feature_set=name,
        starts_s=starts_s or {},
    )
    plan = pending.plan_feature_set(plan, recipe)
    reconcile.refuse(path, feature_set_differences(plan.added[name].recipe, recipe), "Use another name.")
    without_base = set(range(plan.n_parts)) - committed(path).keys()
    retries = pending.records_to_retry(plan) if options.retry_failed else {}
    built = pending.build(plan, skip=without_base) + pending.build(plan, retries=retries)
    roll_forward(path)
    remarks = [f"{counted(n_ignored, 'track')} of the source ignored: not in the store"] if n_ignored else []
    return ExtractReport.of_store(
        path, name, parts_built=built, seconds=time.monotonic() - started, remarks=remarks + pending.remarks
    )


def _added_recipe(
    path: Path, name: str, text: TextSource | None, audio: AudioSource | None, options: ExtractOptions
) -> FeatureSetRecipe:
    """Return the recipe of the text or audio encoder if one is given, else of the extractor `name`."""
    plan = read_plan(path)
    if (text is not None or audio is not None) and name in extractor_names():
        option, kind = ("--text-model", "text") if audio is None else ("--audio-model", "audio")
        raise ConfigError(
            f"--add {name}: an extractor has this name, but {option} is given too. Remove {option} to add "
            f"the extractor's feature, or use another name for the {kind} features."
        )
    if text is not None:
        cleaning = CLEANING_RULE if plan.recipe.lyrics is None else plan.recipe.lyrics.cleaning
        return encoder_recipe(
            text,
            options.text_precision,
            backend=options.text_backend,
            max_tokens=options.text_max_tokens,
            cleaning=cleaning,
        )
    stored = plan.added[name].recipe if name in plan.added else None
    if audio is None and stored is not None and is_pretrained(stored):
        raise ConfigError(f"--add {name}: its features are those of a pretrained audio encoder. Give --audio-model.")
    try:
        extractor = load_extractor(name) if audio is None else _audio_extractor(path, name, audio, options, stored)
        extractor.prepare_once()  # so that what is missing is reported before the feature set is planned
        return extractor.recipe(plan.recipe.mel, extractor_cleaning(plan, name))
    except ConfigError as error:
        hint = "; or give a text encoder with --text-model, or an audio encoder with --audio-model"
        raise ConfigError(f"--add {name}: {error}{hint if audio is None else ''}") from error


def _audio_extractor(
    path: Path, name: str, audio: AudioSource, options: ExtractOptions, stored: FeatureSetRecipe | None
) -> Extractor:
    mel = read_plan(path).recipe.mel
    if mel is None:
        raise ConfigError("an audio encoder needs clips, but the store was made without mels")
    settings = AudioSettings(
        layers=options.audio_layers, pooling=options.audio_pooling, precision=options.audio_precision
    )
    return with_stored_name(pretrained_extractor(name, audio, settings, mel), stored)


def _log_provenance(path: Path, source: Source, generation: int) -> None:
    """Write the provenance of a source's columns to the log folder, which is not part of the store's content."""
    name = f"source-{generation}.json"
    with contextlib.suppress(OSError):
        with atomic_write(path / "log" / name) as draft:
            draft.write_text(json.dumps(source.provenance, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        if (remote := remote_of(path)) is not None:
            remote.save_log(name)
