"""Prediction of the genres of new songs and of stored tracks.

New songs are extracted into a temporary store with the recipe of the model, and predicted from it, so that training and
prediction share the code of the features.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..cache.errors import ConfigError
from ..cache.format.plan import is_store
from ..cache.format.recipe import Recipe
from ..cache.messages import counted, html_summary, join_names
from ..cache.places import place, web_url
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress, silent, within
from ..heads.evaluation.predict_options import PredictOptions
from .predictions import (
    Prediction,
    Predictions,
    collect,
    in_source_order,
    refuse_other_timeline,
    timeline_file,
)
from .runs import open_for
from .shared import extra, model_folder, with_changes
from .song_features import extracted

if TYPE_CHECKING:
    from ..heads.evaluation.prediction_files import PredictedBlock
    from ..heads.runs.published_model import LoadedModel
    from ..pipeline.sources.manifest import Source


def predict(
    run: Path,
    inputs: Sequence[Path],
    options: PredictOptions | None = None,
    *,
    lyrics: Path | None = None,
    output: Path | None = None,
    timeline: Path | None = None,
    on_progress: Progress = silent,
    **changes: Any,
) -> Predictions:
    """Predict the genres of songs, or of the tracks of a store.

    Parameters
    ----------
    run : a run folder, its ``best/``, or ``hf://OWNER/NAME`` on the Hugging Face hub.
    inputs : audio files and folders of them, or one feature store.
    options : thresholds, windows, workers, text encoder.
    lyrics : lyrics file of a single song; without it, ``song.txt`` next to ``song.mp3``.
    output : a .parquet, .csv or .jsonl file to write block by block, instead of returning the predictions. Memory
        does not grow with the number of tracks.
    timeline : a .parquet, .json or .jsonl file to write with the scores of each window, or an .html page that shows
        them; sets ``windows="all"``.
    changes : options by name, in place of those in `options`: ``predict(run, songs, threshold="0.5")``.

    Raises
    ------
    ConfigError, RunError, TextModelError, RecipeMismatchError
    TypeError
        If a name in `changes` is not an option.
    """
    from ..heads.runs.documents import find_model

    options = with_changes(options or PredictOptions(), changes)
    if timeline is not None:
        options = dataclasses.replace(options, windows="all")
    folder = find_model(model_folder(run))
    refuse_other_timeline(timeline)
    songs = read_inputs(inputs, options, lyrics, output, on_progress)  # before torch is imported
    refuse_other_timeline(timeline, 1 if isinstance(songs, Path) else len(songs.tracks))
    loaded = _with_genres(load(folder), options)
    return _predict(loaded, songs, options, output=output, timeline=timeline, on_progress=on_progress)


def load_model(run: str | os.PathLike[str], *, text_model: str | None = None, text_device: str = "cpu") -> Model:
    """Load a trained model, for predictions.

    Parameters
    ----------
    text_model, text_device : see :class:`mgc.heads.evaluation.predict_options.PredictOptions`.

    Raises
    ------
    RunError
        If there is no trained model.
    """
    return Model(load(model_folder(run)), text_model, text_device)


def load(run: Path) -> LoadedModel:
    with extra("train"):
        from ..heads.runs.published_model import load_run

    return load_run(run)


def _with_genres(loaded: LoadedModel, options: PredictOptions) -> LoadedModel:
    """Return the model with the genres of the options that it was not trained on; without any, the model itself."""
    if not options.genres:
        return loaded
    from ..heads.evaluation.zero_shot import check_zero_shot, with_zero_shot

    check_zero_shot(loaded)
    with extra("extract"):
        from ..pipeline.text.encoder import TextSource, embed_prompts
    source = TextSource(model=options.text_model, device=options.text_device, emulates=True)
    return with_zero_shot(loaded, options.genres, lambda names: embed_prompts(names, loaded.recipe, source))


class Model:
    """A trained model with its recipe, genres, thresholds and graph.

    Examples
    --------
    >>> import mgc
    >>> model = mgc.load_model("best/")
    >>> prediction = model.predict("song.wav")  # lyrics="song.txt", or song.txt next to it
    >>> list(prediction.scores) == model.genres
    True
    >>> [len(song.scores) for song in model.predict_all(["song.wav", "broken.wav"])]
    [3, 0]
    >>> model.predict("song.wav", windows="all").windows
    1
    """

    def __init__(self, loaded: LoadedModel, text_model: str | None = None, text_device: str = "cpu") -> None:
        self._loaded = loaded
        self._options = PredictOptions(workers=0, text_model=text_model, text_device=text_device)

    def __repr__(self) -> str:
        system, modalities = self._loaded.training.model, self._loaded.training.modalities
        return f"<Model {self._loaded.folder}: {system}, {modalities}; {counted(len(self.genres), 'genre')}>"

    def _repr_html_(self) -> str:
        loaded = self._loaded
        facts = {
            "system": loaded.training.model,
            "modalities": loaded.training.modalities,
            "genres": f"{len(self.genres)}: {join_names(self.genres, 10)}",
            "training tracks": loaded.n_train,
            "epoch": loaded.epoch,
            "overall threshold": loaded.thresholds.describe("overall", self.genres).removeprefix("threshold "),
            "text encoder": "none" if loaded.recipe.lyrics is None else loaded.recipe.lyrics.model,
        }
        return html_summary(f"Model {loaded.folder}", facts)

    @property
    def genres(self) -> list[str]:
        """Genres of the model, in the order of its scores."""
        return list(self._loaded.genres)

    @property
    def recipe(self) -> Recipe:
        """Recipe of the features that the model was trained on."""
        return self._loaded.recipe

    def predict(
        self,
        song: str | os.PathLike[str],
        *,
        lyrics: str | os.PathLike[str] | None = None,
        threshold: str = "overall",
        windows: str = "one",
    ) -> Prediction:
        """Predict the genres of one audio file. A file that cannot be decoded gets a reason code and no scores.

        With ``windows="all"``, scores are the mean over the whole song (:func:`predict`).

        Raises
        ------
        ConfigError
            If there is no such file, or it is a folder.
        """
        if Path(song).is_dir():
            raise ConfigError(f"{song}: is a folder. Use predict_all for folders and stores.")
        options = dataclasses.replace(self._options, threshold=threshold, windows=windows)
        lyrics = None if lyrics is None else Path(lyrics)
        return self._predict([Path(song)], options, lyrics)[0]

    def predict_all(
        self,
        inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        threshold: str = "overall",
        windows: str = "one",
        workers: int = 0,
    ) -> list[Prediction]:
        """Predict the genres of audio files, of folders, or of the tracks of one feature store.

        In a list, a missing or invalid file fails on its own, with a reason code.
        With `workers`, songs are decoded in that many processes; a script then needs ``if __name__ == "__main__"``.
        """
        options = dataclasses.replace(self._options, threshold=threshold, windows=windows, workers=workers)
        if isinstance(inputs, (str, os.PathLike)):
            return self._predict([Path(inputs)], dataclasses.replace(options, missing_ok=False))
        return self._predict([Path(song) for song in inputs], dataclasses.replace(options, missing_ok=True))

    def _predict(self, inputs: Sequence[Path], options: PredictOptions, lyrics: Path | None = None) -> list[Prediction]:
        return _predict(self._loaded, read_inputs(inputs, options, lyrics), options).predictions


def read_inputs(
    inputs: Sequence[Path],
    options: PredictOptions,
    lyrics: Path | None = None,
    output: Path | None = None,
    on_progress: Progress = silent,
) -> Path | Source:
    """Check what is asked for; return the one store, or the songs as a source.

    Raises
    ------
    ConfigError, StoreError
    """
    from ..heads.evaluation.prediction_files import refuse_other_suffix
    from ..heads.metrics.thresholds import threshold_value

    if output is not None:
        refuse_other_suffix(output)
    threshold_value(options.threshold)  # refuses an invalid threshold early
    inputs = [path if web_url(path) else place(path) for path in inputs]
    if len(inputs) == 1 and is_store(inputs[0]):
        if lyrics is not None:
            raise ConfigError("--lyrics needs a single song. Remove it: a store holds the lyrics of its tracks.")
        if options.windows == "all":
            raise ConfigError(
                f"{inputs[0]}: --windows all (or --timeline) needs audio files, and a store holds one clip per track. "
                "Give the files that it was extracted from."
            )
        FeatureStore.open(inputs[0]).close()
        return inputs[0]
    if stores := [str(path) for path in inputs if is_store(path)]:
        raise ConfigError(
            f"{', '.join(stores)}: a store with other inputs. Give a single store, or audio files and folders."
        )
    with extra("extract"):
        from ..pipeline.sources.datasets import songs_source

    missing_ok = len(inputs) > 1 if options.missing_ok is None else options.missing_ok
    return songs_source(
        inputs, lyrics, missing_ok=missing_ok, lyrics_encoding=options.lyrics_encoding, on_progress=on_progress
    )


def _predict(
    loaded: LoadedModel,
    songs: Path | Source,
    options: PredictOptions,
    *,
    output: Path | None = None,
    timeline: Path | None = None,
    on_progress: Progress = silent,
) -> Predictions:
    if isinstance(songs, Path):
        with open_for(loaded, songs) as features:
            return _predict_store(loaded, features, options, output, on_progress)
    if options.windows == "all":
        result = _predict_whole_songs(loaded, songs, options, output, timeline, on_progress)
    else:
        with extracted(songs, loaded, options, on_progress) as features:
            result = _predict_store(loaded, features, options, output, on_progress)
    return in_source_order(result, songs)


def _predict_store(
    loaded: LoadedModel, store: FeatureStore, options: PredictOptions, output: Path | None, on_progress: Progress
) -> Predictions:
    from ..heads.evaluation.predict import predict_blocks, tracks_with_lyrics

    result = collect(predict_blocks(loaded, store, options, on_progress=on_progress), output)
    has_lyrics, flags = tracks_with_lyrics(store, store.ok_rows), _flags(store)
    remarks = [*filter(None, [store.pending_note]), *remarks_on(loaded, options.threshold, has_lyrics, flags)]
    return dataclasses.replace(result, remarks=remarks)


def _predict_whole_songs(
    loaded: LoadedModel,
    source: Source,
    options: PredictOptions,
    output: Path | None,
    timeline: Path | None,
    on_progress: Progress,
) -> Predictions:
    """Predict whole songs in the order of their ids, as the mean over their windows."""
    from ..heads.evaluation.predict import predict_blocks, tracks_with_lyrics
    from ..heads.evaluation.timeline import timelines_of
    from ..heads.evaluation.whole_songs import mean_over_windows
    from ..pipeline.extraction.whole_songs import batch_songs, count_windows

    recipe = loaded.recipe.mel
    if recipe is None:
        raise ConfigError("--windows all: this model uses lyrics only. Use --windows one.")
    partly_read: list[str] = []
    has_lyrics: dict[str, bool] = {}  # of the songs with scores
    flags: dict[str, int] = {}
    n_windows = 0

    def blocks() -> Iterator[PredictedBlock]:
        nonlocal n_windows
        counts = count_windows(source, recipe, on_progress)
        cuts = loaded.cuts(options.threshold)
        for batch in batch_songs(source, counts, recipe):
            share = within(on_progress, before=n_windows, total=sum(counts), note="windows")
            with extracted(batch.source, loaded, options, share, batch.starts_s) as store:
                scored = list(predict_blocks(loaded, store, options, on_progress=share))
                block = mean_over_windows(
                    scored,
                    songs=[song.id for song in batch.songs],
                    song_of=batch.song_of,
                    starts_s=batch.starts_s,
                    cuts=cuts,
                )
                for song in timelines_of(
                    scored,
                    store.tracks.select(["id", "offset_s", "seconds"]),
                    songs={song.id: source.root / song.path for song in batch.songs},
                    song_of=batch.song_of,
                    starts_s=batch.starts_s,
                    clip_s=recipe.clip_s,
                ):
                    add_timeline(song)
                windows = store.tracks.column("id").take(store.ok_rows).to_pylist()
                songs = [batch.songs[batch.song_of[window]].id for window in windows]
                has_lyrics.update(zip(songs, tracks_with_lyrics(store, store.ok_rows).tolist(), strict=True))
                flags.update(zip(songs, _flags(store).tolist(), strict=True))
            n_windows += len(batch.source.tracks)
            failed = np.asarray(block.tracks.column("failed_windows")) > 0
            partly_read.extend(batch.songs[i].id for i in np.flatnonzero(failed & block.has_scores))
            yield block

    about = [f"scores of the model {loaded.training.model}, modalities: {loaded.training.modalities}"]
    n_trained = len(loaded.genres) - loaded.n_zero_shot
    labels = [*loaded.genres[:n_trained], *(f"{name} (zero-shot)" for name in loaded.genres[n_trained:])]
    with timeline_file(timeline, labels, about) as add_timeline:
        result = collect(blocks(), output)
    all_windows, all_songs = counted(n_windows, "window"), counted(result.n_tracks, "song")
    remarks = [f"scores are means over {all_windows} of {recipe.clip_s:g} s in {all_songs}"]
    remarks += remarks_on(
        loaded,
        options.threshold,
        np.asarray(list(has_lyrics.values()), dtype=np.bool_),
        np.asarray(list(flags.values()), dtype=np.uint32),
    )
    if partly_read:
        remarks.append(f"{counted(len(partly_read), 'song')} with failed windows: {join_names(partly_read, 3)}")
    return dataclasses.replace(result, remarks=remarks)


def _flags(store: FeatureStore) -> npt.NDArray[np.uint32]:
    """Return the flags of the tracks with features, (n,)."""
    return np.asarray(store.read("flags", store.ok_rows), dtype=np.uint32)


def remarks_on(
    loaded: LoadedModel, threshold: str, has_lyrics: npt.NDArray[np.bool_], flags: npt.NDArray[np.uint32]
) -> list[str]:
    from ..heads.evaluation.predict import explain_missing_lyrics, lyrics_warnings

    n_trained = len(loaded.genres) - loaded.n_zero_shot
    remarks = [loaded.thresholds.describe(threshold, loaded.genres[:n_trained])]
    if unseen := loaded.genres[n_trained:]:
        remarks.append(f"zero-shot, from the name only: {join_names(unseen)}. These scores have no threshold.")
    if loaded.recipe.lyrics is None:
        remarks.append("The model uses audio only, so lyrics are ignored.")
    elif not has_lyrics.all():
        without = f"{int((~has_lyrics).sum())} of {counted(len(has_lyrics), 'song')} without lyrics"
        basis = "without any input" if loaded.training.modalities == "lyrics" else "from audio only"
        remarks.append(f"{without}{explain_missing_lyrics(flags[~has_lyrics])}: predicted {basis}")
    return remarks + lyrics_warnings(loaded, has_lyrics)
