"""Commands about runs: evaluate, compare, report, predict."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

import mgc

from ..cache.errors import ConfigError
from ..heads.evaluation.predict_options import PredictOptions
from .console import Listing, Terminal, to_stderr
from .model_tables import print_comparison, print_metrics, print_predicted
from .options import (
    Config,
    GenreDelimiter,
    OtherLabels,
    RunArgument,
    Seed,
    StoreArgument,
    TextDevice,
    complete_text_model,
    print_flags,
    verbose_flags,
)


def evaluate(
    *,
    run: RunArgument,
    store: StoreArgument,
    split: Annotated[
        Literal["train", "validation", "test", "all"], typer.Option(help="Which tracks of the run; all: every track.")
    ] = "test",
    labels: OtherLabels = None,
    genre_delimiter: GenreDelimiter = None,
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Score a trained model on stored tracks: every metric, and a row a genre.

    Example: [b]mgc evaluate runs/first songs.zarr[/b]
    """
    with terminal.progress() as steps:
        metrics = mgc.api.evaluate(
            run, store, split=split, labels=labels, genre_delimiter=genre_delimiter, on_progress=steps
        )
    terminal.emit(metrics, lambda: print_metrics(metrics))


def compare(
    *,
    first: Annotated[Path, typer.Argument(metavar="RUN", help="An evaluated run.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another.", show_default=False)],
    common: Annotated[bool, typer.Option("--common", help="Compare on the test tracks that both have.")] = False,
    replicates: Annotated[int, typer.Option(min=1, help="Bootstrap draws of artists.")] = 1000,
    seed: Seed = 0,
    config: Config = None,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Paired differences of two runs on their test tracks, with 95 % intervals over artists.

    Example: [b]mgc compare runs/audio runs/both[/b]
    """
    result = mgc.api.compare(first, second, common=common, n_replicates=replicates, seed=seed)
    terminal.emit(result, lambda: print_comparison(result, terminal.quiet))


def report(
    *,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...|STORE", help="A run folder, several of them, or a feature store.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Page to write.",
            show_default="RUN/report.html; of several runs compare.html beside the first; STORE.report.html beside it",
        ),
    ] = None,
    audio_root: Annotated[
        Path | None,
        typer.Option(help="Folder that the store was made from: the tracks a run got most wrong can then be played."),
    ] = None,
    config: Config = None,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Write one self-contained HTML page about a run, about several runs side by side, or about a feature store.

    Examples: [b]mgc report runs/first[/b], [b]mgc report runs/first --audio-root music[/b],
    [b]mgc report runs/audio runs/both -o page.html[/b], [b]mgc report songs.zarr[/b]
    """
    with terminal.progress() as steps:
        page = mgc.api.report(*paths, output=output, audio_root=audio_root, on_progress=steps)
    terminal.emit({"report": str(page)}, lambda: print(f"report: {page}"))


def predict_flags(
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
) -> PredictOptions:
    return PredictOptions(**locals())


def predict(
    *,
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
    options: Annotated[PredictOptions, predict_flags],
    top: Annotated[int, typer.Option(min=1, help="Genres printed a song.")] = 5,
    listing: Annotated[Listing, typer.Option("--format", help="Form of the list.")] = Listing.TABLE,
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Name the genres of songs, with the recipe that the model was trained with.

    song.txt beside song.mp3 is taken as its lyrics. Of several songs, one that is missing or cannot be decoded gets a
    reason in place of genres, and the exit code is 3.

    Examples: [b]mgc predict runs/first song.mp3 --lyrics song.txt[/b],
    [b]mgc predict runs/first song.mp3 --windows all[/b], [b]mgc predict runs/first songs.zarr -o scores.parquet[/b],
    [b]find music -name '*.flac' | mgc predict runs/first - -o scores.csv[/b]
    """
    from ..cache.format.plan import is_store

    if inputs == [Path("-")]:
        inputs = [Path(line) for line in sys.stdin.read().splitlines() if line.strip()]
        options = dataclasses.replace(options, missing_ok=True)
        if not inputs:
            raise ConfigError("standard input names no songs; give one path a line")
    with terminal.progress() as steps:
        result = mgc.api.predict(run, inputs, options, lyrics=lyrics, output=output, on_progress=steps)
    terminal.remark(result.remarks)
    terminal.emit({"model": str(run), **result.to_dict()}, lambda: print_predicted(result, listing, top))
    if result.n_failed == result.n_tracks:
        raise typer.Exit(2)
    if result.n_failed and not (len(inputs) == 1 and is_store(inputs[0])):  # a store's failures are its extraction's
        to_stderr(f"{result.n_failed} of {result.n_tracks} songs could not be read")
        raise typer.Exit(3)
