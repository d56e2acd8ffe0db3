"""Tags of songs by a pretrained network, without training."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..cache.format.schema import OK
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress, silent
from ..pipeline.extraction.options import ExtractOptions
from .extraction import extract
from .prediction import collect, in_source_order, workers_for
from .predictions import Predictions
from .shared import extra

if TYPE_CHECKING:
    from ..heads.evaluation.predict import PredictedBlock

ABOUT = (
    "tags by musicnn (Pons and Serra 2019), trained on the Million Song Dataset with 50 tags of Last.fm users; licence "
    "of the weights: ISC. Other tags are not predicted. Only the middle 30 s of the audio are used."
)
_TRACKS_PER_BLOCK = 1024


def tag(
    inputs: Sequence[Path],
    *,
    threshold: float = 0.1,
    output: Path | None = None,
    workers: int | None = None,
    on_progress: Progress = silent,
) -> Predictions:
    """Return the probabilities of 50 tags for each song, by musicnn (:mod:`mgc.pipeline.extractors.musicnn`).

    Parameters
    ----------
    inputs : audio files, and folders of them.
    threshold : probability from which a tag counts as predicted.
    output : a .parquet, .csv or .jsonl file to write instead of returning the predictions.
    workers : decoding processes; None for one per core from :data:`mgc.api.MANY_SONGS` songs on, else 0.

    Raises
    ------
    ConfigError
        If the weights are not installed, or there is no song.
    """
    from ..heads.evaluation.prediction_files import refuse_other_suffix

    if output is not None:
        refuse_other_suffix(output)
    with extra("extract"):
        from ..pipeline.extractors.musicnn import MUSICNN_TAGS, TAGS, weights_folder
        from ..pipeline.sources.datasets import songs_source
    source = songs_source(inputs, None, missing_ok=len(inputs) > 1, on_progress=on_progress)
    weights_folder()  # refuses missing weights before anything is decoded
    workers = workers_for(source, workers)
    options = ExtractOptions(features=("mel",), workers=workers)
    with tempfile.TemporaryDirectory(prefix="mgc-") as scratch:
        path = Path(scratch) / "songs.zarr"
        extract(source, path, options, on_progress=on_progress)
        extract(source, path, ExtractOptions(workers=workers), add=MUSICNN_TAGS.name, on_progress=on_progress)
        with FeatureStore.open(path) as store:
            result = collect(_blocks(store, MUSICNN_TAGS.name, TAGS, threshold), output)
    return in_source_order(dataclasses.replace(result, remarks=[ABOUT]), source)


def _blocks(store: FeatureStore, name: str, tags: Sequence[str], threshold: float) -> Iterator[PredictedBlock]:
    from ..heads.evaluation.predict import PredictedBlock

    added = store.added_outcomes(name)
    for first in range(0, store.tracks.num_rows, _TRACKS_PER_BLOCK):
        tracks = store.tracks.slice(first, _TRACKS_PER_BLOCK)
        outcomes = added.filter(pc.is_in(added.column("row"), tracks.column("row")))
        has_scores = np.asarray(pc.equal(outcomes.column("status"), OK))
        scores = np.full((tracks.num_rows, len(tags)), np.nan, np.float32)
        rows = np.asarray(tracks.column("row"))[has_scores]
        scores[has_scores] = store.read(name, rows)
        failed = pa.array(~has_scores)
        for column in ("reason", "detail"):  # of the clip, or of the network
            index = tracks.column_names.index(column)
            cells = pc.if_else(failed, pc.coalesce(tracks.column(column), outcomes.column(column)), None)
            tracks = tracks.set_column(index, column, cells)
        yield PredictedBlock(
            genres=tuple(tags),
            tracks=tracks,
            scores=scores,
            predicted=scores >= threshold,
            has_scores=has_scores,
        )
