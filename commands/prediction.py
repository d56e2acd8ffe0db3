"""The commands predict and tag, and the output of predictions."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..cache.errors import ConfigError
from ..cache.messages import counted, printable
from ..heads.evaluation.predict_options import PredictOptions
from . import api
from .console import Listing, Terminal, number, print_list, print_table, split_names, to_stderr, to_stdout
from .options import AudioDevice, Config, LyricsEncoding, ModelArgument, TextDevice, complete_text_model, verbose_flags

if TYPE_CHECKING:
    from ..api import Prediction, Predictions

UNRELIABLE = ("SILENT", "TRUNCATED", "DECODE_GAPS", "LYRICS_FAILED", "ENCODING_DOUBTFUL")
"""Flags that make a prediction unreliable."""


Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to write (.parquet, .csv, .jsonl), one row per track."),
]
TimelineFile = Annotated[
    Path | None,
    typer.Option("--timeline", help="Per-window scores (.parquet, .jsonl, .html page); implies --windows all."),
]
Lyrics = Annotated[Path | None, typer.Option(help="Lyrics file, for a single song.")]
Threshold = Annotated[str, typer.Option(help="overall or per-genre (both tuned), or a number (paper: 0.5).")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Decoding processes.", show_default="one per core from 32 songs on, else 0"),
]


def model_flags(
    text_model: Annotated[
        str | None,
        typer.Option(
            help="Path of the model's text encoder.",
            show_default="found by name",
            autocompletion=complete_text_model,
        ),
    ] = None,
    text_device: TextDevice = "cpu",
    audio_model: Annotated[
        str | None,
        typer.Option(
            metavar="hf:MODEL", help="Audio encoder of the model, such as hf:FOLDER.", show_default="found by name"
        ),
    ] = None,
    audio_device: AudioDevice = "cpu",
    lyrics_encoding: LyricsEncoding = None,
    workers: Workers = None,
) -> PredictOptions:
    return PredictOptions(**locals())


def predict_flags(
    threshold: Threshold = "overall",
    windows: Annotated[
        Literal["one", "all"],
        typer.Option(help="one: the clip of the recipe; all: mean over the song."),
    ] = "one",
    *,
    options: Annotated[PredictOptions, model_flags],
) -> PredictOptions:
    return dataclasses.replace(options, threshold=threshold, windows=windows)


def predict(
    *,
    run: ModelArgument,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="AUDIO...|STORE|-",
            help="Audio files, folders, or one store; - reads paths from stdin.",
            show_default=False,
        ),
    ],
    lyrics: Lyrics = None,
    genres: Annotated[
        str | None, typer.Option(help="Further genres to score by name, zero-shot; needs --head query.")
    ] = None,
    output: Output = None,
    timeline: TimelineFile = None,
    options: Annotated[PredictOptions, predict_flags],
    top: Annotated[int, typer.Option(min=1, help="Genres to print per song.")] = 5,
    listing: Annotated[Listing, typer.Option("--format", help="Format of the list.")] = Listing.TABLE,
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Predict the genres of songs, or of all tracks of a store.

    Without --lyrics, mgc reads song.txt or song.lrc next to song.mp3, or its tags.
    A song that cannot be decoded gets a reason code.
    If only some of the songs fail, the exit code is 3.

    Examples:
      mgc predict runs/first song.mp3 --lyrics song.txt
      mgc predict runs/first song.mp3 --windows all
      mgc predict runs/first song.mp3 --timeline song.html
      mgc predict runs/first songs.zarr -o scores.parquet
      mgc predict runs/query song.mp3 --genres "shoegaze,trap"
      find music -name '*.flac' | mgc predict runs/first - -o scores.csv
    """
    from ..cache.format.plan import is_store

    inputs, from_stdin = _read_paths(inputs)
    if from_stdin:
        options = dataclasses.replace(options, missing_ok=True)
    if genres is not None:
        options = dataclasses.replace(options, genres=tuple(split_names(genres)))
    with terminal.progress() as steps:
        result = api.predict(run, inputs, options, lyrics=lyrics, output=output, timeline=timeline, on_progress=steps)
    of_store = len(inputs) == 1 and is_store(inputs[0])
    _finish(terminal, result, {"model": str(run)}, listing, top, timeline=timeline, of_store=of_store)


def tag(
    *,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="AUDIO...|-", help="Audio files, folders; - reads paths from stdin.", show_default=False
        ),
    ],
    output: Output = None,
    timeline: TimelineFile = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability from which a tag counts as predicted.")
    ] = 0.1,
    windows: Annotated[
        Literal["one", "all"],
        typer.Option(help="one: the middle 30 s; all: mean over the song."),
    ] = "one",
    top: Annotated[int, typer.Option(min=1, help="Tags to print per song.")] = 5,
    listing: Annotated[Listing, typer.Option("--format", help="Format of the list.")] = Listing.TABLE,
    workers: Workers = None,
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Tag songs with a pretrained network, without training.

    The network is musicnn. Install its weights with pip install --no-deps musicnn==0.1.0.
    If only some of the songs fail, the exit code is 3.

    Examples:
      mgc tag song.mp3
      mgc tag song.mp3 --timeline song.html
      mgc tag music/ -o tags.csv
      find music -name '*.flac' | mgc tag - -o tags.parquet
    """
    inputs, from_stdin = _read_paths(inputs)
    with terminal.progress() as steps:
        result = api.tag(
            inputs,
            threshold=threshold,
            windows=windows,
            output=output,
            timeline=timeline,
            missing_ok=from_stdin or None,
            workers=workers,
            on_progress=steps,
        )
    _finish(terminal, result, {"model": api.TAGGER}, listing, top, noun="tag", timeline=timeline)


def explain(
    *,
    run: ModelArgument,
    song: Annotated[
        Path, typer.Argument(metavar="AUDIO|STORE", help="Audio file, or a store with --track.", show_default=False)
    ],
    lyrics: Lyrics = None,
    track: Annotated[str | None, typer.Option(metavar="ID", help="Track of the store.")] = None,
    genre: Annotated[
        list[str] | None,
        typer.Option(help="Genre to explain; repeatable.", show_default="predicted genres, else the highest score"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Maximum number of genres without --genre.")] = 3,
    segments: Annotated[int, typer.Option(min=1, help="Number of time segments to hide.")] = 20,
    bands: Annotated[int, typer.Option(min=1, help="Number of frequency bands to hide.")] = 16,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="HTML page to write.")] = None,
    threshold: Threshold = "overall",
    options: Annotated[PredictOptions, model_flags],
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Explain a prediction: which seconds, bands, words and modalities support a genre.

    mgc hides one region of the input at a time and scores the song again.
    An effect is a decrease of the log odds of the genre; it is positive if the region supports the genre.

    Examples:
      mgc explain runs/first song.mp3 --lyrics song.txt
      mgc explain runs/first song.mp3 -o why.html
      mgc explain runs/first songs.zarr --track ID --genre jazz
    """
    with terminal.progress() as steps:
        result = api.explain(
            run,
            song,
            dataclasses.replace(options, threshold=threshold),
            lyrics=lyrics,
            track=track,
            genres=genre or (),
            top=top,
            n_segments=segments,
            n_bands=bands,
            output=output,
            on_progress=steps,
        ).to_dict()
    terminal.remark([*result["remarks"], *([] if output is None else [f"page: {output}"])])
    terminal.emit(result, lambda: _print_explanation(result))


def _read_paths(inputs: list[Path]) -> tuple[list[Path], bool]:
    """Return the inputs, or the paths on standard input if the only one is ``-``; and whether it is."""
    if inputs != [Path("-")]:
        return inputs, False
    paths = [Path(line) for line in sys.stdin.read().split("\n") if line.strip()]
    if not paths:
        raise ConfigError("standard input has no paths. Give one path per line.")
    return paths, True


def _finish(
    terminal: Terminal,
    result: Predictions,
    about: Mapping[str, Any],
    listing: Listing,
    top: int,
    *,
    noun: str = "genre",
    timeline: Path | None = None,
    of_store: bool = False,
) -> None:
    """Print remarks and result, and exit with the code of the failures; those of a store its extraction reported."""
    terminal.remark([*result.remarks, *([] if timeline is None else [f"timeline: {timeline}"])])
    terminal.emit({**about, **result.to_dict()}, lambda: _print_result(result, listing, top, noun))
    if result.n_failed == result.n_tracks:
        raise typer.Exit(2)
    if result.n_failed and not of_store:
        to_stderr(f"{result.n_failed} of {counted(result.n_tracks, 'song')} could not be read")
        raise typer.Exit(3)


def print_predictions(predictions: Sequence[Prediction], top: int, noun: str = "genre") -> None:
    for prediction in predictions:
        if not prediction.scores:
            to_stdout(f"{printable(prediction.id)}: failed, {prediction.reason}: {prediction.detail}")
            continue
        notes = []
        if prediction.windows is not None:
            notes.append(counted(prediction.windows, "window"))
        if prediction.failed_windows:
            notes[-1] += f"; {prediction.failed_windows} failed: {prediction.detail}"
        if flags := [flag for flag in prediction.flags if flag in UNRELIABLE]:
            notes.append(", ".join(flags))
        remarks = "".join(f" ({note})" for note in notes)
        best = sorted(prediction.scores.items(), key=lambda item: -item[1])[:top]
        none = f"no {noun} reaches the threshold; highest: {best[0][0]} {best[0][1]:.3f}"
        to_stdout(f"{printable(prediction.id)}{remarks}: {', '.join(prediction.genres) or none}")
        unseen = sorted(prediction.zero_shot.items(), key=lambda item: -item[1])
        width = max(len(genre) for genre, _ in best + unseen)
        for i, (genre, score) in enumerate(best + unseen):
            mark, note = "*" if i < len(best) and genre in prediction.genres else " ", " zero-shot" * (i >= len(best))
            to_stdout(f"  {mark} {genre:<{width}}  {'█' * round(score * 30):<30} {score:.3f}{note}")


_N_PRINTED = 3


def _print_explanation(result: Mapping[str, Any]) -> None:
    """Print the regions with the strongest effects on each genre."""
    names: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "modalities": lambda place: place["modality"],
        "seconds": lambda place: f"{place['start_s']:.1f} to {place['end_s']:.1f} s",
        "bands": lambda place: f"{place['low_hz']:.0f} to {place['high_hz']:.0f} Hz",
        "words": lambda place: printable(place["word"]),
    }
    for genre in result["genres"]:
        mark = "predicted" if genre["predicted"] else "not predicted"
        to_stdout(f"{printable(genre['genre'])}: {genre['score']:.3f}, {mark} (threshold {genre['threshold']:.3f})")
        for kind in (kind for kind in names if kind in genre):
            strongest = sorted(genre[kind], key=lambda place: -place["effect"])[:_N_PRINTED]
            listed = (f"{names[kind](place)} ({number(place['effect'], sign=True)})" for place in strongest)
            to_stdout(f"  {kind}: {', '.join(listed)}")


def _print_result(result: Predictions, listing: Listing, top: int, noun: str) -> None:
    """Print predictions as a list, or counts of those written to a file."""
    if result.output is not None:
        scored = result.n_tracks - result.n_failed
        to_stdout(
            f"{result.output}: {counted(result.n_tracks, 'track')}, {scored} with scores, {result.n_failed} failed"
        )
        if result.reasons:
            print_table("failed, by reason", ("reason", "tracks"), result.reasons.items())
    elif listing is Listing.TABLE:
        print_predictions(result.predictions, top, noun)
    else:
        rows = [song.to_row() if listing is Listing.CSV else song.to_dict() for song in result.predictions]
        print_list(rows, list(dict.fromkeys(name for row in rows for name in row)), listing, empty="no song")
