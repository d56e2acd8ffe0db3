"""`mgc predict`: genres of songs and of stored tracks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..cache.errors import ConfigError
from .console import Listing, emit, print_list, progress, remark, to_stderr
from .model_tables import print_predictions, print_written
from .options import Config, Json, Quiet, RunArgument, TextDevice, Verbose, complete_text_model


def predict(
    run: RunArgument,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="AUDIO...|STORE|-",
            help="Songs, folders of songs, or one store; - reads their names from standard input, one a line.",
            show_default=False,
        ),
    ],
    lyrics: Annotated[Path | None, typer.Option(help="Lyrics of the one song given.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write .parquet, .csv or .jsonl, a row a track, instead of printing."),
    ] = None,
    threshold: Annotated[
        str, typer.Option(help="overall or per-genre (tuned on validation tracks), or a number; the paper's is 0.5.")
    ] = "overall",
    windows: Annotated[
        Literal["one", "all"],
        typer.Option(help="all: the mean over successive clips of a whole song; one: the clip that the recipe names."),
    ] = "one",
    text_model: Annotated[
        str | None,
        typer.Option(
            help="Where the model's own text encoder lies here.",
            show_default="found by name",
            autocompletion=complete_text_model,
        ),
    ] = None,
    text_device: TextDevice = "cpu",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Processes that decode songs.", show_default="one a core for 32 songs or more, else 0"
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Genres printed a song.")] = 5,
    listing: Annotated[Listing, typer.Option("--format", help="Form of the list.")] = Listing.TABLE,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Name the genres of songs, with the recipe that the model was trained with.

    song.txt beside song.mp3 is taken as its lyrics. Of several songs, one that is missing or cannot be decoded gets a
    reason in place of genres, and the exit code is 3.

    Examples: [b]mgc predict runs/first song.mp3 --lyrics song.txt[/b],
    [b]mgc predict runs/first song.mp3 --windows all[/b], [b]mgc predict runs/first songs.zarr -o scores.parquet[/b],
    [b]find music -name '*.flac' | mgc predict runs/first - -o scores.csv[/b]
    """
    from ..api.prediction import predict_with
    from ..cache.format.plan import is_store
    from ..heads.evaluation.predict_options import PredictOptions

    listed = inputs == [Path("-")]
    if listed:
        inputs = [Path(line) for line in sys.stdin.read().splitlines() if line.strip()]
        if not inputs:
            raise ConfigError("standard input names no songs; give one path a line")
    options = PredictOptions(
        threshold=threshold,
        windows=windows,
        missing_ok=listed or None,
        workers=workers,
        text_model=text_model,
        text_device=text_device,
    )
    with progress(quiet or as_json) as steps:
        result = predict_with(run, inputs, options, lyrics=lyrics, output=output, on_progress=steps)
    remark(quiet, result.remarks)
    if output is not None:
        emit(as_json, {"model": str(run), **result.to_dict()}, lambda: print_written(result))
    elif as_json:
        emit(True, {"model": str(run), **result.to_dict()}, lambda: None)
    elif listing is Listing.TABLE:
        print_predictions(result.predictions, top)
    elif listing is Listing.CSV:
        rows = [prediction.to_row() for prediction in result.predictions]
        print_list(rows, list(dict.fromkeys(name for row in rows for name in row)), listing, empty="no song")
    else:
        print_list([prediction.to_dict() for prediction in result.predictions], (), listing, empty="no song")
    if result.n_failed == result.n_tracks:
        raise typer.Exit(2)
    if result.n_failed and not (len(inputs) == 1 and is_store(inputs[0])):  # a store's failures are its extraction's
        to_stderr(f"{result.n_failed} of {result.n_tracks} songs could not be read")
        raise typer.Exit(3)
