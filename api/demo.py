"""All steps on the generated demo collection.

``demo.json`` in the folder holds the options, whether the collection is complete, and the report of a finished demo.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cache.durable import replace_file
from ..cache.errors import ConfigError
from ..cache.format.recipe import differing_values
from ..cache.machine import cpu_has_bf16
from ..cache.steps import Progress, silent
from ..pipeline.extraction.options import default_workers
from .extraction import extract
from .prediction import predict
from .predictions import Prediction
from .runs import evaluate, try_report
from .shared import extra
from .sources import read_source
from .training import train

log = logging.getLogger(__name__)

DEMO_OPTIONS: dict[str, Any] = {
    "encoder": "lite",
    "epochs": 15,
    "lr": 1e-3,
    "lr_halve_every": 4,
    "batch_size": 16,
    "split": "auto",
}
"""Training options of the demo, which replace those of preset ``default``: a smaller encoder and fewer epochs, so that
training takes minutes on two cores."""


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Files and metrics of the demo; Jaccard indices are of test songs by unseen artists.

    Attributes
    ----------
    prediction_remarks : those of :func:`mgc.api.predict`; the first states the threshold, which is not the one of the
        metrics.
    """

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
    prediction_remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any], folder: Path) -> DemoReport:
        """Return the report of a finished demo, with the paths of its folder now."""
        paths = _paths(folder)
        report = None if saved["report"] is None else str(folder / "run" / "report.html")
        new_song = str(folder / "new" / Path(saved["new_song"]).name)
        prediction = Prediction(**saved["prediction"] | {"id": new_song})
        return cls(**saved | paths | {"report": report, "new_song": new_song, "prediction": prediction})


_PATHS = {"collection": "songs", "store": "songs.zarr", "run": "run"}
RECORD = "demo.json"


def _paths(folder: Path) -> dict[str, str]:
    return {name: str(folder / part) for name, part in _PATHS.items()}


def demo(
    folder: Path,
    *,
    n_songs: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    force: bool = False,
    on_progress: Progress = silent,
) -> DemoReport:
    """Run every step on the generated demo collection: extract, train, evaluate, predict, report.

    An interrupted demo is continued. For a finished demo, the report is returned and nothing is computed.

    Parameters
    ----------
    n_songs : None generates 240 songs, or 160 on a CPU without native bf16.
    epochs : None takes those of :data:`DEMO_OPTIONS`; a model with fewer epochs only shows the steps.
    force : delete the files of an earlier demo in `folder`, and start again.

    Raises
    ------
    ConfigError
        If `folder` holds a demo with other options, and `force` is not set.
    """
    cores = default_workers() if workers is None else workers
    remarks = []
    if n_songs is None:
        n_songs = 240 if cpu_has_bf16() else 160
        if n_songs < 240:
            remarks.append("This CPU has no native bf16, so the demo generates 160 songs instead of 240.")
    options = DEMO_OPTIONS | ({} if epochs is None else {"epochs": epochs}) | {"seed": seed}
    wanted = {"songs": n_songs, **options}
    if force:
        for name in (*_PATHS.values(), "new"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / RECORD).unlink(missing_ok=True)
    record = _read_record(folder, wanted)
    if record["report"] is not None:
        finished = DemoReport.from_dict(record["report"], folder)
        files = (*_paths(folder).values(), finished.new_song, finished.report or folder)
        if all(Path(path).exists() for path in files):
            remark = (
                f"{folder}: this demo is finished, so nothing was computed. To start again: --force, or another -o."
            )
            return dataclasses.replace(finished, remarks=[*finished.remarks, remark])
    with extra("all"):
        from ..pipeline.synth.world import make_collection, unheard_song, write_song

    folder.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        seconds[step] = round(time.monotonic() - started, 1)

    collection, store, run = (folder / name for name in _PATHS.values())
    with timed("generate"):
        if not (record["generated"] and collection.is_dir()):
            _write_record(folder, record | {"generated": False})
            make_collection(collection, n_songs, seed, workers=cores, on_progress=on_progress)
            _write_record(folder, record | {"generated": True})
    source = read_source(collection).source
    with timed("extract"):
        extraction = extract(source, store, text_model="minilm", workers=workers, on_progress=on_progress)
    with timed("train"):
        training = train(
            store, run, preset="default", options=options, resume=True, on_warning=log.info, on_progress=on_progress
        ).to_dict()
    with timed("evaluate"):
        metrics = evaluate(run, store, on_progress=on_progress)
        try_report(run, audio_root=collection)
    with timed("predict"):
        song = unheard_song(seed, n_songs)
        audio = write_song(song, folder / "new", folder / "new")  # so that `mgc predict` reads the lyrics, too
        predicted = predict(run, [audio], on_progress=on_progress)
    report = DemoReport(
        **_paths(folder),
        report=training["report"],
        extraction=extraction.to_dict(),
        training=training,
        metrics=metrics.to_dict(),
        new_song=str(audio),
        new_song_genres=list(song.genres),
        prediction=predicted.predictions[0],
        prediction_remarks=predicted.remarks,
        seconds=seconds,
        remarks=remarks,
    )
    _write_record(folder, {"options": wanted, "generated": True, "report": report.to_dict()})
    return report


def _read_record(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a folder, an empty one where there is none; refuse one with other options."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = record["options"]
    except FileNotFoundError:
        return {"options": wanted, "generated": False, "report": None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / RECORD}: cannot be read ({error}). Use --force, or another folder.") from error
    if differences := differing_values(found, wanted, ("the demo", "this command")):
        raise ConfigError(
            f"{folder}: a demo with other options ({'; '.join(differences)}). Use --force, or another folder."
        )
    return record


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    replace_file(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())
