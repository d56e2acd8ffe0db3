"""All steps on the generated demo collection."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.machine import cpu_has_bf16
from ..cache.steps import Progress, silent
from ..pipeline.extraction.options import default_workers
from .extraction import extract
from .prediction import Prediction, predict
from .runs import evaluate, try_report
from .shared import extra
from .sources import read_source
from .training import train

DEMO_OPTIONS: dict[str, Any] = {
    "encoder": "lite",
    "epochs": 15,
    "lr": 5e-4,
    "lr_halve_every": 4,
    "batch_size": 16,
    "split": "auto",
}
"""Training options of the demo, which replace those of preset ``paper``: split by artist, and a higher learning rate
for fewer epochs than in the paper, so that training takes minutes on two cores."""


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Files and metrics of the demo; Jaccard indices are of test songs by unseen artists."""

    collection: str
    store: str
    run: str
    report: str | None
    extraction: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    new_song: str
    new_song_genres: list[str]
    prediction: Prediction
    seconds: dict[str, float]
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def demo(
    folder: Path,
    *,
    n_songs: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    on_progress: Progress = silent,
) -> DemoReport:
    """Run every step on the generated demo collection: extract, train, evaluate, predict, report.

    Finished steps in `folder` are not repeated; an interrupted run is continued.

    Parameters
    ----------
    n_songs : None generates 240 songs, or 160 on a CPU without native bf16.
    epochs : None takes those of :data:`DEMO_OPTIONS`; a model with fewer epochs only shows the steps.
    """
    with extra("all"):
        from ..pipeline.synth.world import make_collection, unheard_song, write_song

    cores = default_workers() if workers is None else workers
    remarks = []
    if n_songs is None:
        n_songs = 240 if cpu_has_bf16() else 160
        if n_songs < 240:
            remarks.append("This CPU has no native bf16, so the demo generates 160 songs instead of 240.")
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        seconds[step] = round(time.monotonic() - started, 1)

    with timed("generate"):
        collection = make_collection(folder / "songs", n_songs, seed, workers=cores, on_progress=on_progress)
    source = read_source(collection).source
    store, run = folder / "songs.zarr", folder / "run"
    with timed("extract"):
        extraction = extract(source, store, text_model="minilm", workers=cores, on_progress=on_progress)
    with timed("train"):
        options = DEMO_OPTIONS | ({} if epochs is None else {"epochs": epochs}) | {"seed": seed}
        training = train(store, run, preset="paper", options=options, resume=True, on_progress=on_progress).to_dict()
    with timed("evaluate"):
        metrics = evaluate(run, store, on_progress=on_progress)
        try_report(run, audio_root=collection)
    with timed("predict"):
        song = unheard_song(seed, n_songs)
        audio = write_song(song, folder / "new")
        lyrics = folder / "new" / "lyrics" / f"{song.id}.txt"
        prediction = predict(run, [audio], lyrics=lyrics, on_progress=on_progress).predictions[0]
    return DemoReport(
        collection=str(collection),
        store=str(store),
        run=str(run),
        report=training["report"],
        extraction=extraction.to_dict(),
        training=training,
        metrics=metrics.to_dict(),
        new_song=str(audio),
        new_song_genres=list(song.genres),
        prediction=prediction,
        seconds=seconds,
        remarks=remarks,
    )
