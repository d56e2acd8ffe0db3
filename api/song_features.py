"""Features of new songs, with the recipes and the extractors of a model."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.errors import ConfigError, RecipeMismatchError
from ..cache.format.recipe import ExtractorRecipe, Recipe, feature_set_differences
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress
from ..heads.evaluation.predict_options import PredictOptions
from ..pipeline.extraction.options import ExtractOptions
from .predictions import workers_for

if TYPE_CHECKING:
    from ..heads.runs.published_model import LoadedModel
    from ..pipeline.sources.manifest import Source


@contextmanager
def extracted(
    source: Source,
    loaded: LoadedModel,
    options: PredictOptions,
    on_progress: Progress,
    starts_s: Mapping[str, float] | None = None,
) -> Iterator[FeatureStore]:
    """Extract songs into a temporary store, with the recipes of the model."""
    from ..heads.evaluation.predict import store_for

    with extracted_like(source, loaded.folder, loaded.recipe, loaded.added, options, on_progress, starts_s) as store:
        yield store_for(loaded, store)


@contextmanager
def extracted_like(
    source: Source,
    like: Path,
    recipe: Recipe,
    added: Mapping[str, ExtractorRecipe],
    options: PredictOptions,
    on_progress: Progress,
    starts_s: Mapping[str, float] | None = None,
) -> Iterator[FeatureStore]:
    """Extract songs into a temporary store, with the recipes of the model or store `like`."""
    from ..pipeline.extraction.extract import add_features, extract
    from ..pipeline.text.encoder import TextSource

    text = TextSource(model=options.text_model, device=options.text_device, emulates=True)
    choices = ExtractOptions(features=("mel", "lyrics"), workers=workers_for(source, options.workers))
    additions = [_addition(like, recipe, name, added[name], options, choices) for name in added]
    with tempfile.TemporaryDirectory(prefix="mgc-") as scratch:
        path = Path(scratch) / "songs.zarr"
        extract(source, path, choices, recipe=recipe, text=text, starts_s=starts_s, on_progress=on_progress)
        for addition in additions:
            add_features(source, path, addition, starts_s=starts_s, on_progress=on_progress)
        with FeatureStore.open(path) as store:
            yield store


def _addition(
    like: Path,
    base: Recipe,
    name: str,
    recipe: ExtractorRecipe,
    options: PredictOptions,
    choices: ExtractOptions,
) -> ExtractOptions:
    """Return the options that add a feature set of a model's audio input or of a store, with the same extractor.

    Raises
    ------
    ConfigError
        If the extractor is not installed, or the weights of an audio encoder are not found.
    RecipeMismatchError
        If they differ from those in training.
    """
    from ..pipeline.extractors import pretrained
    from ..pipeline.extractors.registry import load_extractor

    mel, added = base.mel, dataclasses.replace(choices, add=name)
    try:
        if pretrained.is_pretrained(recipe) and mel is not None:
            given = pretrained.AudioSource(model=options.audio_model, device=options.audio_device)
            found, settings = pretrained.find_source(recipe, given), pretrained.settings_of(recipe)
            added = dataclasses.replace(
                added,
                audio_model=found.model,
                audio_device=found.device,
                audio_layers=settings.layers,
                audio_pooling=settings.pooling,
                audio_precision=settings.precision,
            )
            extractor = pretrained.pretrained_extractor(name, found, settings, mel)
        else:
            extractor = load_extractor(name)
        extractor.prepare_once()
        installed = extractor.recipe(mel)
    except ConfigError as error:
        raise ConfigError(f"{like}: needs the feature set {name!r}: {error}") from error
    if differences := feature_set_differences(recipe, installed, (str(like), "this installation")):
        raise RecipeMismatchError(
            f"{like}: has another {name!r}: {'; '.join(differences)}. Install the "
            "same extractor, or give its weights with --audio-model."
        )
    return added
