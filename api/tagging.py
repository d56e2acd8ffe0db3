"""Tags of songs by a pretrained network, without training."""

from __future__ import annotations

import dataclasses
import itertools
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..cache.errors import ClipError, ConfigError
from ..cache.machine import keep_freed_memory
from ..cache.messages import counted, join_names
from ..cache.steps import Progress, silent
from ..pipeline.extraction.options import default_workers
from .predictions import Predictions, collect, refuse_other_timeline, timeline_file, workers_for
from .shared import extra

if TYPE_CHECKING:
    from ..heads.evaluation.prediction_files import PredictedBlock
    from ..heads.evaluation.timeline import Timeline
    from ..pipeline.extractors.song_tags import SongTags
    from ..pipeline.sources.manifest import Source, Track

TAGGER = {
    "name": "musicnn (Pons and Serra 2019)",
    "weights": "MSD_musicnn of the package musicnn 0.1.0",
    "licence": "ISC",
    "training_data": "Million Song Dataset (2011) with its 50 most frequent Last.fm tags",
    "limits": "no other tags; no lyrics; no music after 2011 in the training data; probabilities not calibrated",
}
"""Facts about the network, for users."""

_SONGS_PER_BLOCK = 256
_TRACKS = pa.schema(
    [
        ("id", pa.string()),
        ("flags", pa.uint32()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("windows", pa.int32()),
        ("failed_windows", pa.int32()),
    ]
)


def tag(
    inputs: Sequence[Path],
    *,
    threshold: float = 0.1,
    windows: str = "one",
    output: Path | None = None,
    timeline: Path | None = None,
    missing_ok: bool | None = None,
    workers: int | None = None,
    on_progress: Progress = silent,
) -> Predictions:
    """Return the probabilities of 50 tags for each song, by musicnn (:mod:`mgc.pipeline.extractors.musicnn`).

    Parameters
    ----------
    inputs : audio files, and folders of them.
    threshold : probability from which a tag counts as predicted.
    windows : ``one``: the mean over the windows of 3 s in the middle 30 s; ``all``: over those of the whole song.
    output : a .parquet, .csv or .jsonl file to write instead of returning the predictions.
    timeline : a file to write with the scores of each window, as of :func:`mgc.api.predict`.
    missing_ok : let a missing file fail on its own, with a reason code. None does so if several files are given.
    workers : decoding processes, each with a thread for the network; None for one per core from
        :data:`mgc.api.MANY_SONGS` songs on, else 0: one process, and a network with torch's threads.

    Raises
    ------
    ConfigError
        If the weights are not installed, or there is no song.
    """
    from ..heads.evaluation.prediction_files import refuse_other_suffix

    if output is not None:
        refuse_other_suffix(output)
    refuse_other_timeline(timeline)
    if windows not in ("one", "all"):
        raise ConfigError(f"windows {windows!r}: unknown. Choose one (the middle 30 s) or all (the whole song).")
    with extra("extract"):
        from ..pipeline.extractors.musicnn import TAGS, weights_folder
        from ..pipeline.sources.datasets import songs_source

    missing_ok = len(inputs) > 1 if missing_ok is None else missing_ok
    source = songs_source(inputs, None, missing_ok=missing_ok, with_lyrics=False, on_progress=on_progress)
    weights_folder()  # refuses missing weights before anything is decoded
    refuse_other_timeline(timeline, len(source.tracks))
    workers = workers_for(source, workers)
    whole, n_tracks = windows == "all" or timeline is not None, len(source.tracks)
    n_windows = 0
    partly_read: list[str] = []

    def songs() -> Iterator[tuple[Track, SongTags | ClipError]]:
        of_song = on_progress if whole and n_tracks == 1 else silent
        on_progress("tag", 0, n_tracks)
        for i, result in enumerate(_tag_songs(source, whole, workers, of_song)):
            on_progress("tag", i + 1, n_tracks)
            yield source.tracks[i], result

    def blocks() -> Iterator[PredictedBlock]:
        nonlocal n_windows
        remaining = songs()
        while batch := list(itertools.islice(remaining, _SONGS_PER_BLOCK)):
            for track, song in batch:
                add_timeline(_timeline(track.id, source.root / track.path, song))
                if not isinstance(song, ClipError):
                    n_windows += len(song.scores)
                    partly_read.extend([track.id] if song.failures else [])
            yield _block(batch, threshold, whole=whole)

    about = [
        f"tags by {TAGGER['name']}: weights {TAGGER['weights']}, licence {TAGGER['licence']}",
        f"training data: {TAGGER['training_data']}; limits: {TAGGER['limits']}",
    ]
    with timeline_file(timeline, TAGS, about) as add_timeline:
        result = collect(blocks(), output)
    extent = f"{counted(n_windows, 'window')} of 3 s in {counted(n_tracks - result.n_failed, 'song')}"
    remarks = [*about, f"scores are means over {extent}" + ("" if whole else ", from the middle 30 s of each")]
    if partly_read:
        remarks.append(f"{counted(len(partly_read), 'song')} with failed windows: {join_names(partly_read, 3)}")
    return dataclasses.replace(result, remarks=[*source.notes, *remarks])


def _tag_songs(
    source: Source, whole: bool, workers: int | None, on_progress: Progress
) -> Iterator[SongTags | ClipError]:
    """Yield the tags of each song, or the reason why it has none, in the order of the source."""
    with extra("extract"):
        import torch

        from ..pipeline.audio.clip_reader import ClipReader
        from ..pipeline.extractors.musicnn import network
        from ..pipeline.extractors.song_tags import CLIP, tag_song
        from ..pipeline.sources.files import local_file

    stop = threading.Event()
    n_workers = default_workers() if workers is None else workers
    with ExitStack() as stack:
        stack.enter_context(keep_freed_memory())  # mapping the network's large arrays again takes long
        readers = [stack.enter_context(ClipReader(CLIP, form="samples")) for _ in range(max(1, n_workers))]
        network()  # while the decoders start

        def tag_with(reader: ClipReader, track: Track) -> SongTags | ClipError:
            try:
                with local_file(source.root, track.path) as path:
                    return tag_song(reader, path, whole=whole, stop=stop, on_progress=on_progress)
            except ClipError as error:
                return error

        if not n_workers:
            yield from (tag_with(readers[0], track) for track in source.tracks)
            return
        idle: queue.SimpleQueue[ClipReader] = queue.SimpleQueue()
        for reader in readers:
            idle.put(reader)

        def tag_in_thread(track: Track) -> SongTags | ClipError:
            reader = idle.get()
            try:
                return tag_with(reader, track)
            finally:
                idle.put(reader)

        stack.callback(torch.set_num_threads, torch.get_num_threads())
        executor = stack.enter_context(ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,)))
        results: deque[Future[SongTags | ClipError]] = deque()
        try:
            for track in source.tracks:
                results.append(executor.submit(tag_in_thread, track))
                if len(results) > 2 * n_workers:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        finally:
            stop.set()
            executor.shutdown(cancel_futures=True)


def _block(songs: Sequence[tuple[Track, SongTags | ClipError]], threshold: float, *, whole: bool) -> PredictedBlock:
    from ..heads.evaluation.prediction_files import PredictedBlock
    from ..pipeline.extractors.musicnn import TAGS

    scores = np.full((len(songs), len(TAGS)), np.nan, np.float32)
    rows = []
    for i, (track, song) in enumerate(songs):
        row: dict[str, object] = {"id": track.id, "flags": 0, "windows": 0, "failed_windows": 0}
        if isinstance(song, ClipError):
            row |= {"reason": song.reason, "detail": song.detail}
        else:
            is_read = ~np.isnan(song.scores[:, 0])
            scores[i] = song.scores[is_read].mean(axis=0)
            row |= {"flags": int(song.flags), "windows": int(is_read.sum()), "failed_windows": int((~is_read).sum())}
            for start_s, error in itertools.islice(song.failures.items(), 1):
                row["detail"] = f"the windows from {start_s:g} s: {error}"
        rows.append(row)
    tracks = pa.Table.from_pylist(rows, schema=_TRACKS)
    has_scores = ~np.isnan(scores[:, 0])
    return PredictedBlock(
        genres=TAGS,
        tracks=tracks if whole else tracks.drop_columns(["windows", "failed_windows"]),
        scores=scores,
        predicted=scores >= threshold,
        has_scores=has_scores,
    )


def _timeline(song_id: str, file: Path, song: SongTags | ClipError) -> Timeline:
    """Return the windows of a song; one window without scores for a song that failed."""
    from ..heads.evaluation.timeline import Timeline
    from ..pipeline.extractors.musicnn import TAGS

    if isinstance(song, ClipError):
        nan, zero = np.full((1, len(TAGS)), np.nan, np.float32), np.zeros(1)
        return Timeline(id=song_id, file=file, starts_s=zero, ends_s=zero, scores=nan, reasons=[song.reason])
    return Timeline(
        id=song_id, file=file, starts_s=song.starts_s, ends_s=song.ends_s, scores=song.scores, reasons=song.reasons
    )
