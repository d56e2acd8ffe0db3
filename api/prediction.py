"""Genres of new songs and of stored tracks.

Predicting a new song is extracting it into a small temporary store with the recipe of the model, then predicting from
that store: there is one feature code.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.errors import ConfigError
from ..cache.forms import is_store
from ..cache.schema import Recipe
from ..cache.store import FeatureStore
from .shared import Steps, extra, silent
from .training import open_for

if TYPE_CHECKING:
    from ..heads.bundle import LoadedModel


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Genres of one track. A track that could not be read has a reason and no scores."""

    id: str
    genres: list[str]
    scores: dict[str, float]
    flags: list[str]
    reason: str | None = None
    detail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions in the order of the tracks, and what the user should know about them.

    Attributes
    ----------
    predictions : empty where they were written to a file.
    output : that file.
    n_tracks, reasons : tracks in all, and those without scores by the reason.
    """

    predictions: list[Prediction]
    remarks: list[str] = field(default_factory=list)
    output: str | None = None
    n_tracks: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_failed(self) -> int:
        return sum(self.reasons.values())

    def to_dict(self) -> dict[str, Any]:
        counts = {"tracks": self.n_tracks, "failed": self.n_failed, "reasons": dict(self.reasons)}
        if self.output is not None:
            return {"output": self.output, **counts, "remarks": self.remarks}
        return {"predictions": [one.to_dict() for one in self.predictions], **counts, "remarks": self.remarks}


def predict(
    run: Path,
    inputs: Sequence[Path],
    *,
    lyrics: Path | None = None,
    missing_ok: bool = False,
    output: Path | None = None,
    threshold: str = "overall",
    text_model: str | None = None,
    text_device: str = "cpu",
    workers: int | None = None,
    on_progress: Steps = silent,
) -> Predictions:
    """Genres of songs, or of the tracks of a store.

    Parameters
    ----------
    run : a run folder, or its ``best/``.
    inputs : audio files and folders of them, or one feature store.
    lyrics : lyrics of the one song given; without it ``song.txt`` beside ``song.mp3`` is taken.
    missing_ok : let a file that does not exist fail by itself, with a reason, like one that cannot be decoded.
    output : a .parquet, .csv or .jsonl file to write, block by block, instead of returning the predictions: memory
        does not grow with the number of tracks.
    threshold : ``overall``, ``per-genre`` (both tuned on validation tracks) or a number, such as ``0.5``.
    text_model : where the model's own text encoder lies on this machine; its hashes must match.
    workers : processes that decode songs and embed lyrics; None takes one a core for 32 songs or more, and 0 (this
        process) for fewer.

    Raises
    ------
    ConfigError, RunError, TextModelError, RecipeMismatchError
    """
    model = load_model(run, text_model=text_model, text_device=text_device)
    return _predict(
        model, inputs, lyrics=lyrics, missing_ok=missing_ok, output=output, threshold=threshold, workers=workers,
        on_progress=on_progress,
    )  # fmt: skip


def load_model(run: str | os.PathLike[str], *, text_model: str | None = None, text_device: str = "cpu") -> Model:
    """A trained model, for predictions; see :func:`predict` for the parameters.

    Raises
    ------
    RunError
        If there is no trained model; the message says what was looked for.
    """
    with extra("train"):
        from ..heads.predict import load_run

    return Model(load_run(Path(run)), text_model, text_device)


class Model:
    """A trained model with all that prediction needs: recipe, genres, thresholds, graph.

    Examples
    --------
    >>> import mgc
    >>> model = mgc.load_model("best/")
    >>> prediction = model.predict("song.wav")  # lyrics="song.txt", or song.txt beside it
    >>> list(prediction.scores) == model.genres
    True
    >>> [len(one.scores) for one in model.predict_all(["song.wav", "broken.wav"])]
    [3, 0]
    """

    def __init__(self, loaded: LoadedModel, text_model: str | None = None, text_device: str = "cpu") -> None:
        self._loaded, self._text_model, self._text_device = loaded, text_model, text_device

    @property
    def genres(self) -> list[str]:
        """Genres that it knows, in the order of its scores."""
        return list(self._loaded.genres)

    @property
    def recipe(self) -> Recipe:
        """What the features it was trained on were made by."""
        return self._loaded.recipe

    def predict(
        self,
        song: str | os.PathLike[str],
        *,
        lyrics: str | os.PathLike[str] | None = None,
        threshold: str = "overall",
    ) -> Prediction:
        """Genres of one audio file. One that cannot be read raises nothing: it gets a reason and no scores.

        Raises
        ------
        ConfigError
            If there is no such file, or it is a folder.
        """
        if Path(song).is_dir():
            raise ConfigError(f"{song}: a folder; predict_all takes folders and stores")
        words = None if lyrics is None else Path(lyrics)
        return _predict(self, [Path(song)], lyrics=words, threshold=threshold).predictions[0]

    def predict_all(
        self,
        inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        threshold: str = "overall",
        workers: int = 0,
    ) -> list[Prediction]:
        """Genres of audio files, folders of them, or the tracks of one feature store.

        With `workers`, songs are decoded in that many processes; a script then needs ``if __name__ == "__main__"``.
        """
        given = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
        return _predict(self, [Path(one) for one in given], threshold=threshold, workers=workers).predictions


MANY_SONGS = 32
"""From so many on, worker processes are worth their start."""


def _predict(
    model: Model,
    inputs: Sequence[Path],
    *,
    lyrics: Path | None = None,
    missing_ok: bool = False,
    output: Path | None = None,
    threshold: str = "overall",
    workers: int | None = 0,
    on_progress: Steps = silent,
) -> Predictions:
    from ..heads.catalogue import refuse_other_suffix

    if output is not None:
        refuse_other_suffix(output)
    loaded = model._loaded
    loaded.thresholds.chosen(threshold)  # a senseless one is refused before the work
    if len(inputs) == 1 and is_store(inputs[0]):
        if lyrics is not None:
            raise ConfigError("--lyrics goes with one song; a store holds the lyrics of its tracks")
        with open_for(loaded, inputs[0]) as features:
            return _predict_store(loaded, features, threshold, output, on_progress)
    if stores := [str(given) for given in inputs if is_store(given)]:
        raise ConfigError(f"{', '.join(stores)}: give one store by itself, or songs and folders of songs")
    with extra("extract"):
        from ..pipeline.extract import extract as run_extraction
        from ..pipeline.parts import TextSource
        from ..pipeline.songs import songs_source
        from ..pipeline.workers import default_workers
    source = songs_source(inputs, lyrics, missing_ok=missing_ok)
    if workers is None:
        workers = default_workers() if len(source.tracks) >= MANY_SONGS else 0

    with tempfile.TemporaryDirectory(prefix="mgc-") as scratch:
        store = Path(scratch) / "songs.zarr"
        run_extraction(
            source,
            store,
            recipe=loaded.recipe,
            text=TextSource(model=model._text_model, device=model._text_device, emulates=True),
            embed_genres=False,
            workers=workers,
            on_progress=lambda progress: on_progress("extract", progress.done, progress.planned, ""),
        )
        with FeatureStore.open(store) as features:
            done = _predict_store(loaded, features, threshold, output, on_progress)
    asked = {track.id: i for i, track in enumerate(source.tracks)}  # a store has them in the order of their ids
    return dataclasses.replace(done, predictions=sorted(done.predictions, key=lambda one: asked[one.id]))


def _predict_store(
    loaded: LoadedModel, store: FeatureStore, threshold: str, output: Path | None, on_progress: Steps
) -> Predictions:
    from ..heads.catalogue import predicted_rows, write_predictions
    from ..heads.predict import predict_blocks

    blocks = predict_blocks(
        loaded, store, threshold=threshold, on_track=lambda done, total: on_progress("predict", done, total, "")
    )
    remarks = [loaded.thresholds.described(threshold, loaded.genres), *_prediction_remarks(loaded, store)]
    if output is not None:
        n_tracks, reasons = write_predictions(output, blocks)
        return Predictions(predictions=[], remarks=remarks, output=str(output), n_tracks=n_tracks, reasons=reasons)
    predictions = [Prediction(**row) for block in blocks for row in predicted_rows(block)]
    failed = Counter(one.reason for one in predictions if one.reason and not one.scores)
    return Predictions(predictions=predictions, remarks=remarks, n_tracks=len(predictions), reasons=failed)


def _prediction_remarks(loaded: LoadedModel, store: FeatureStore) -> list[str]:
    from ..heads.predict import lyrics_warnings

    remarks = []
    if store.recipe.lyrics is None:
        remarks.append("the model was trained without lyrics: words are not looked at")
    elif len(store.ok_rows):
        without = int((store.read("lyrics_tokens", store.ok_rows) == 0).sum())
        if without:
            remarks.append(f"{without} of {len(store.ok_rows)} songs without lyrics: predicted from sound alone")
    return remarks + lyrics_warnings(loaded, store, store.ok_rows)
