"""Commands about runs: evaluate, compare, report, predict."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..cache.errors import ConfigError
from ..cache.messages import counted, interval, printable
from ..heads.evaluation.predict_options import PredictOptions
from ..heads.metrics.names import BASELINES, COLUMNS, DECISION_METRICS, FIXED, RANKING_METRICS, TUNED, column_label
from . import api
from .console import Listing, Terminal, estimate, number, print_list, print_table, to_stderr, to_stdout
from .options import (
    Config,
    GenreDelimiter,
    LyricsEncoding,
    MergeGenres,
    OtherLabels,
    RunArgument,
    Seed,
    StoreArgument,
    TextDevice,
    complete_text_model,
    print_flags,
    verbose_flags,
)

if TYPE_CHECKING:
    from ..api import Prediction, Predictions

DOUBTFUL = ("SILENT", "TRUNCATED", "DECODE_GAPS", "LYRICS_FAILED", "ENCODING_DOUBTFUL")
"""Flags that make a prediction doubtful."""


def evaluate(
    *,
    run: RunArgument,
    store: StoreArgument,
    split: Annotated[
        Literal["train", "validation", "test", "all"], typer.Option(help="Which tracks of the run; all: every track.")
    ] = "test",
    labels: OtherLabels = None,
    genre_delimiter: GenreDelimiter = None,
    merge_genres: MergeGenres = None,
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Score a trained model on stored tracks: every metric, and a row a genre.

    Example: [b]mgc evaluate runs/first songs.zarr[/b]
    """
    with terminal.progress() as steps:
        metrics = api.evaluate(
            run,
            store,
            split=split,
            labels=labels,
            genre_delimiter=genre_delimiter,
            merge_genres=merge_genres,
            on_progress=steps,
        ).to_dict()
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
    result = api.compare(first, second, common=common, n_replicates=replicates, seed=seed).to_dict()
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
        typer.Option(help="Folder of the songs, to play the worst predictions."),
    ] = None,
    config: Config = None,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Write one self-contained HTML page about a run, about several runs side by side, or about a feature store.

    Examples: [b]mgc report runs/first[/b], [b]mgc report runs/first --audio-root music[/b],
    [b]mgc report runs/audio runs/both -o page.html[/b], [b]mgc report songs.zarr[/b]
    """
    with terminal.progress() as steps:
        page = api.report(*paths, output=output, audio_root=audio_root, on_progress=steps)
    terminal.emit({"report": str(page)}, lambda: to_stdout(f"report: {page}"))


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
            help="Path of the model's own text encoder.",
            show_default="found by name",
            autocompletion=complete_text_model,
        ),
    ] = None,
    text_device: TextDevice = "cpu",
    lyrics_encoding: LyricsEncoding = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Processes that decode songs.", show_default="one per core for 32 songs or more, else 0"
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
            help="Songs, folders of songs, or one store; - reads their names from standard input, one per line.",
            show_default=False,
        ),
    ],
    lyrics: Annotated[Path | None, typer.Option(help="Lyrics of the one song given.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write .parquet, .csv or .jsonl, one row per track, instead of printing."),
    ] = None,
    options: Annotated[PredictOptions, predict_flags],
    top: Annotated[int, typer.Option(min=1, help="Genres printed per song.")] = 5,
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
        inputs = [Path(line) for line in sys.stdin.read().split("\n") if line.strip()]
        options = dataclasses.replace(options, missing_ok=True)
        if not inputs:
            raise ConfigError("standard input names no songs; give one path a line")
    with terminal.progress() as steps:
        result = api.predict(run, inputs, options, lyrics=lyrics, output=output, on_progress=steps)
    terminal.remark(result.remarks)
    terminal.emit({"model": str(run), **result.to_dict()}, lambda: print_predicted(result, listing, top))
    if result.n_failed == result.n_tracks:
        raise typer.Exit(2)
    if result.n_failed and not (len(inputs) == 1 and is_store(inputs[0])):  # a store's failures are its extraction's
        to_stderr(f"{result.n_failed} of {result.n_tracks} songs could not be read")
        raise typer.Exit(3)


def _retrieval(alignment: Mapping[str, Any]) -> str:
    """Recall in both directions beside chance, in a line."""
    if "reason" in alignment:
        return str(alignment["reason"])
    ranks = [
        f"at {k} {' and '.join(number(by_rank[k]['value']) for by_rank in alignment['recall'].values())} "
        f"(chance {number(chance)})"
        for k, chance in alignment["chance"].items()
    ]
    note = f"; {alignment['note']}" if "note" in alignment else ""
    return f"recall {', '.join(ranks)}, of {counted(alignment['n_tracks'], 'track')} with both{note}"


def print_metrics(result: Mapping[str, Any]) -> None:
    metrics, baselines = result["metrics"], result["baselines"]
    tracks, artists = counted(metrics["n_tracks"], "track"), counted(metrics["n_groups"], "artist")
    to_stdout(
        f"{result['split']}: {tracks}, {artists}; epoch {result['epoch']}, "
        f"learning rate {result['lr']:g}, tuned threshold {result['threshold']:.3f}"
    )
    for warning in result["warnings"]:
        to_stdout(f"warning: {warning}")
    systems = {
        **{label.short: (metrics, column) for column, label in COLUMNS.items() if column is not None},
        **{label.short: (baselines[name], FIXED) for name, label in BASELINES.items()},
    }
    rows: list[tuple[str, ...]] = []
    for name in DECISION_METRICS:
        cells = [values["columns"][column][name] for values, column in systems.values()]
        rows.append((name.replace("_", " "), estimate(cells[0]), *(number(cell["value"]) for cell in cells[1:])))
    empty = [f"{values['columns'][column]['empty_share']:.3f}" for values, column in systems.values()]
    print_table("metrics", ("", *systems), [*rows, ("nothing predicted", *empty)])
    for name in RANKING_METRICS:
        prior = number(baselines["label_prior"][name]["value"])
        to_stdout(f"{name.replace('_', ' ')}: {estimate(metrics[name])}; of the label prior: {prior}")
    _print_parts(result["parts"])
    scale = result["calibration"]
    to_stdout(
        f"calibration: expected error {number(scale['expected_calibration_error'])} over {scale['n_pairs']} scores in "
        f"{len(scale['bins'])} bins, a genre {number(scale['classwise_calibration_error'])}; Brier "
        f"{number(scale['brier'])} (each genre's share as its score: {number(scale['brier_of_genre_shares'])})"
    )
    to_stdout(f"lyrics found by their sound, sound by its lyrics: {_retrieval(result['alignment'])}")
    print_table(
        "genres, at the tuned threshold",
        ("genre", "support", "AP", "precision", "recall", "F1"),
        [
            (
                row["genre"],
                row["support"],
                number(row["average_precision"]),
                *(number(row[name][TUNED]) for name in ("precision", "recall", "f1")),
            )
            for row in sorted(metrics["genres"], key=lambda row: -row["support"])
        ],
    )
    if metrics["undefined_genres"]:
        to_stdout(f"without a track here, so without a figure: {', '.join(metrics['undefined_genres'])}")
    if metrics["n_replicates"]:
        to_stdout("brackets: 95 % bootstrap intervals, resampling artists")
    else:
        to_stdout("no bootstrap intervals: too few artists")


def _print_parts(parts: Mapping[str, Any]) -> None:
    """Scores of the tracks by what they have; nothing where all of them have the same."""
    rows = [
        (
            name,
            part["n_tracks"],
            estimate(part["mean_average_precision"]),
            *(estimate(part["columns"][column]["jaccard"]) for column in (FIXED, TUNED)),
        )
        for name, part in parts.items()
        if part["n_tracks"]
    ]
    if len(rows) > 1:
        print_table("by what tracks have", ("", "tracks", "mAP", "Jaccard at 0.5", "Jaccard tuned"), rows)


def print_comparison(result: Mapping[str, Any], quiet: bool) -> None:
    rows = [
        (
            f"{row['metric'].replace('_', ' ')}, {column_label(row['column']).short}",
            number(row["first"]["value"]),
            number(row["second"]["value"]),
            number(row["difference"]["value"], sign=True),
            interval(row["difference"], "[{}, {}]", sign=True),
            f"{row['better']} is better" if row["decided"] else "undecided",
        )
        for row in result["differences"]
    ]
    print_table(
        f"first {result['first']}, second {result['second']}: {result['n_tracks']} test tracks, "
        f"{result['n_groups']} artists",
        ("metric", "first", "second", "difference", "95 % interval", ""),
        rows,
    )
    if result["n_only_first"] or result["n_only_second"]:
        first, second = counted(result["n_only_first"], "track"), result["n_only_second"]
        to_stdout(f"left out: {first} only of the first, {second} of the second")
    if not quiet:
        to_stderr(
            "paired bootstrap over artists; undecided: the interval holds 0, or there are fewer than 20 artists. Where "
            "nothing differs, about one metric in twenty is decided by chance"
        )


def print_predictions(predictions: Sequence[Prediction], top: int) -> None:
    for prediction in predictions:
        if not prediction.scores:
            to_stdout(f"{printable(prediction.id)}: failed, {prediction.reason}: {prediction.detail}")
            continue
        notes = []
        if prediction.windows is not None:
            notes.append(counted(prediction.windows, "window"))
        if prediction.failed_windows:
            notes[-1] += f"; {prediction.failed_windows} left out: {prediction.detail}"
        if flags := [flag for flag in prediction.flags if flag in DOUBTFUL]:
            notes.append(", ".join(flags))
        remarks = "".join(f" ({note})" for note in notes)
        genres = ", ".join(prediction.genres) or "no genre passes its threshold"
        to_stdout(f"{printable(prediction.id)}{remarks}: {genres}")
        best = sorted(prediction.scores.items(), key=lambda item: -item[1])[:top]
        width = max(len(genre) for genre, _ in best)
        for genre, score in best:
            mark = "*" if genre in prediction.genres else " "
            to_stdout(f"  {mark} {genre:<{width}}  {'█' * round(score * 30):<30} {score:.3f}")


def print_predicted(result: Predictions, listing: Listing, top: int) -> None:
    """Print predictions as a list, or what was written of them to a file."""
    if result.output is not None:
        scored = result.n_tracks - result.n_failed
        to_stdout(
            f"{result.output}: {counted(result.n_tracks, 'track')}, {scored} with scores, {result.n_failed} without"
        )
        if result.reasons:
            print_table("without scores, by reason", ("reason", "tracks"), result.reasons.items())
    elif listing is Listing.TABLE:
        print_predictions(result.predictions, top)
    else:
        rows = [song.to_row() if listing is Listing.CSV else song.to_dict() for song in result.predictions]
        print_list(rows, list(dict.fromkeys(name for row in rows for name in row)), listing, empty="no song")
