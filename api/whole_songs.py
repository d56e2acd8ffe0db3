"""Songs that are in no store: extracted into a temporary one with the recipe of a model, and predicted from there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..cache.errors import ConfigError
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress, within
from ..pipeline.extraction.options import ExtractOptions

if TYPE_CHECKING:
    from ..heads.evaluation.predict import PredictedBlock
    from ..heads.evaluation.predict_options import PredictOptions
    from ..heads.runs.published_model import LoadedModel
    from ..pipeline.sources.manifest import Source

MANY_SONGS = 32
"""From so many songs (or windows of them) on, worker processes are worth their start."""


@contextmanager
def songs_store(
    source: Source,
    loaded: LoadedModel,
    options: PredictOptions,
    on_progress: Progress,
    starts_s: Mapping[str, float] | None = None,
) -> Iterator[FeatureStore]:
    """Extract songs into a temporary store."""
    from ..pipeline.extraction.extract import extract
    from ..pipeline.text.encoder import TextSource

    text = TextSource(model=options.text_model, device=options.text_device, emulates=True)
    workers = 0 if options.workers is None and len(source.tracks) < MANY_SONGS else options.workers
    with tempfile.TemporaryDirectory(prefix="mgc-") as scratch:
        path = Path(scratch) / "songs.zarr"
        extract(
            source,
            path,
            ExtractOptions(features=("mel", "lyrics"), workers=workers),
            recipe=loaded.recipe,
            text=text,
            starts_s=starts_s,
            on_progress=on_progress,
        )
        with FeatureStore.open(path) as store:
            yield store


class WholeSongs:
    """Predictions of whole songs: the mean over their windows, some songs at a time.

    Attributes
    ----------
    n_windows : in all, once :meth:`blocks` is exhausted.
    partly_read : ids of the songs of which some windows failed.
    has_lyrics : (n,) bool, of the songs with scores.
    """

    def __init__(self, source: Source, loaded: LoadedModel, options: PredictOptions) -> None:
        if loaded.recipe.mel is None:
            raise ConfigError("windows: this model was trained without sound, and looks at the words of a song only")
        self.loaded, self.options, self.clip_s = loaded, options, loaded.recipe.mel.clip_s
        self._source, self._recipe = source, loaded.recipe.mel
        self.n_windows = 0
        self.partly_read: list[str] = []
        self.has_lyrics: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    def blocks(self, on_progress: Progress) -> Iterator[PredictedBlock]:
        """Predict songs in order of id."""
        from ..heads.evaluation.predict import predict_blocks, tracks_with_lyrics
        from ..heads.evaluation.whole_songs import mean_over_windows
        from ..pipeline.extraction.whole_songs import batch_songs, count_windows

        counts = count_windows(self._source, self._recipe, on_progress)
        total = sum(counts)
        cuts = self.loaded.thresholds.cuts(self.options.threshold)
        for batch in batch_songs(self._source, counts, self._recipe):
            share = within(on_progress, before=self.n_windows, total=total, note="windows")
            with songs_store(batch.source, self.loaded, self.options, share, batch.starts_s) as store:
                block = mean_over_windows(
                    predict_blocks(self.loaded, store, self.options, on_progress=share),
                    songs=[song.id for song in batch.songs],
                    song_of=batch.song_of,
                    starts_s=batch.starts_s,
                    cuts=cuts,
                )
                windows = store.tracks.column("id").take(store.ok_rows).to_pylist()
                has_lyrics = tracks_with_lyrics(store, store.ok_rows).tolist()
            of_songs = {batch.song_of[window]: has for window, has in zip(windows, has_lyrics, strict=True)}
            self.n_windows += len(batch.source.tracks)
            self.has_lyrics = np.concatenate([self.has_lyrics, np.asarray(list(of_songs.values()), dtype=np.bool_)])
            failed = np.asarray(block.tracks.column("failed_windows")) > 0
            self.partly_read += [batch.songs[i].id for i in np.flatnonzero(failed & block.has_scores)]
            yield block
