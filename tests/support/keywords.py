"""Call functions of the API with keyword arguments instead of options; by default in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgc.cache.format.recipe import Recipe
from mgc.cache.steps import Progress, silent
from mgc.pipeline.extraction import extract as extraction
from mgc.pipeline.extraction.options import ExtractOptions
from mgc.pipeline.extraction.pending import ExtractReport
from mgc.pipeline.sources import datasets, manifest
from mgc.pipeline.sources.manifest import Source, Track
from mgc.pipeline.sources.options import SourceOptions
from mgc.pipeline.text.encoder import TextSource


def load_source(source: Path, **options: Any) -> Source:
    return datasets.load_source(source, SourceOptions(**options))


def filter_tracks(tracks: Sequence[Track], *, root: Path | None = None, **options: Any) -> Any:
    return manifest.filter_tracks(tracks, SourceOptions(**options), root)


def extract(
    source: Source,
    path: Path,
    *,
    recipe: Recipe,
    text: TextSource | None,
    on_progress: Progress = silent,
    **options: Any,
) -> ExtractReport:
    here = {} if "scheduler" in options else {"workers": 0}
    return extraction.extract(
        source, path, ExtractOptions(**here | options), recipe=recipe, text=text, on_progress=on_progress
    )
