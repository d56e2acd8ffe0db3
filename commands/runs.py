"""Commands about runs: evaluate, compare, report."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..cache.durable import atomic_write
from ..cache.messages import counted, csv_row, interval
from ..heads.metrics.names import (
    BASELINES,
    COLUMNS,
    DECISION_METRICS,
    FIXED,
    RANKING_METRICS,
    TUNED,
    column_label,
    decision_columns,
)
from ..heads.metrics.phrases import by_artists, resampled, tuned_on
from . import api
from .console import Terminal, estimate, number, print_table, to_stderr, to_stdout
from .options import (
    Config,
    GenreDelimiter,
    MergeGenres,
    OtherLabels,
    RunArgument,
    Seed,
    StoreArgument,
    print_flags,
    verbose_flags,
)
from .stores import store_command


def evaluate(
    *,
    run: RunArgument,
    store: StoreArgument,
    split: Annotated[
        Literal["train", "validation", "test", "all"],
        typer.Option(help="Split of the run; all: every track of the store."),
    ] = "test",
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Metrics per language, flag, artists, labels or another column; repeatable."
        ),
    ] = None,
    labels: OtherLabels = None,
    genre_delimiter: GenreDelimiter = None,
    merge_genres: MergeGenres = None,
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Evaluate a trained model on stored tracks: all metrics, and one row per genre.

    Examples:
      mgc evaluate runs/first songs.zarr
      mgc evaluate runs/first songs.zarr --by language --by flag
    """
    with terminal.progress() as steps:
        metrics = api.evaluate(
            run,
            store,
            split=split,
            by=by or (),
            labels=labels,
            genre_delimiter=genre_delimiter,
            merge_genres=merge_genres,
            on_progress=steps,
        ).to_dict()
    terminal.emit(metrics, lambda: print_metrics(metrics))


def compare(
    *,
    first: Annotated[Path, typer.Argument(metavar="RUN", help="First evaluated run.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Second evaluated run.", show_default=False)],
    common: Annotated[bool, typer.Option("--common", help="Compare on the common test tracks.")] = False,
    replicates: Annotated[int, typer.Option(min=1, help="Bootstrap replicates over artists.")] = 1000,
    seed: Seed = 0,
    config: Config = None,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Compare two runs on their test tracks: paired differences with 95 % CI over artists.

    Example:
      mgc compare runs/audio runs/both
    """
    result = api.compare(first, second, common=common, n_replicates=replicates, seed=seed).to_dict()
    terminal.emit(result, lambda: print_comparison(result, terminal.quiet))


def report(
    *,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...|STORE", help="One or more run folders, or a feature store.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="HTML file to write.",
            show_default="RUN/report.html; several runs: compare.html; store: STORE.report.html",
        ),
    ] = None,
    audio_root: Annotated[
        Path | None,
        typer.Option(help="Root folder of the audio paths; adds audio players to the report."),
    ] = None,
    config: Config = None,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Write a self-contained HTML report of a run, several runs, or a feature store.

    Examples:
      mgc report runs/first
      mgc report runs/first --audio-root music
      mgc report runs/audio runs/both -o page.html
      mgc report songs.zarr
    """
    with terminal.progress() as steps:
        page = api.report(*paths, output=output, audio_root=audio_root, on_progress=steps)
    terminal.emit({"report": str(page)}, lambda: to_stdout(f"report: {page}"))


@store_command
def store_labels(
    *,
    store: StoreArgument,
    run: Annotated[
        list[Path] | None,
        typer.Option(help="Evaluated run, or ablation with folds; repeatable.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Doubtful labels to print.")] = 20,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="CSV table of similar genres to write, for --merge-genres."),
    ] = None,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """List genre names that are spelled alike, and labels that are probably wrong or missing.

    Doubtful labels need --run: a model judges its test tracks, which it was not trained on.

    Examples:
      mgc store labels songs.zarr -o merge.csv
      mgc store labels songs.zarr --run runs/first
      mgc store labels songs.zarr --run small --json
    """
    report = api.store_labels(store, run or ()).to_dict()
    if output is not None:
        rows = [csv_row({"from": genre["from"], "to": genre["to"]}) for genre in report["similar_genres"]]
        with atomic_write(output) as draft, draft.open("x", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("from", "to"), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    terminal.emit(report, lambda: _print_labels(report, top))


def _print_labels(report: Mapping[str, Any], top: int) -> None:
    similar, issues = report["similar_genres"], report["issues"]
    if similar:
        columns = ("from", "to", "tracks", "tracks_to", "reason")
        print_table("genre names that are spelled alike", columns, [[row[name] for name in columns] for row in similar])
    else:
        to_stdout("no genre names are spelled alike")
    if not report["judged"]:
        return
    rows = [(row["id"], row["genre"], row["kind"], number(row["confidence"])) for row in issues[:top]]
    if rows:
        print_table("doubtful labels, the least plausible first", ("track", "genre", "label", "confidence"), rows)
    to_stdout(
        f"{counted(len(issues), 'doubtful label')} of {counted(report['judged'], 'tested track')} "
        f"({report['labelled']} labelled). Listen before you change a label."
    )


def _retrieval(alignment: Mapping[str, Any]) -> str:
    """Return a line with the recall in both directions and by chance."""
    if "reason" in alignment:
        return str(alignment["reason"])
    ranks = [
        f"at {k} {' and '.join(number(by_rank[k]['value']) for by_rank in alignment['recall'].values())} "
        f"(chance {number(chance)})"
        for k, chance in alignment["chance"].items()
    ]
    note = f"; {alignment['note']}" if "note" in alignment else ""
    return f"recall {', '.join(ranks)}; {counted(alignment['n_tracks'], 'track')} with audio and lyrics{note}"


def print_metrics(result: Mapping[str, Any]) -> None:
    metrics, baselines = result["metrics"], result["baselines"]
    tracks = metrics["n_tracks"], metrics["n_groups"], result["n_with_artist"]
    to_stdout(
        f"{result['split']}: {counted(tracks[0], 'track')} {by_artists(*tracks)}; epoch {result['epoch']}, "
        f"learning rate {result['lr']:g}, threshold {result['threshold']:.3f}, "
        f"{tuned_on(result['threshold_tuned_on'])}"
    )
    for warning in result["warnings"]:
        to_stdout(f"warning: {warning}")
    systems = {
        **{COLUMNS[column].short: (metrics, column) for column in decision_columns(result["threshold_tuned_on"])},
        **{label.short: (baselines[name], FIXED) for name, label in BASELINES.items()},
    }
    rows: list[tuple[str, ...]] = []
    for name in DECISION_METRICS:
        cells = [values["columns"][column][name] for values, column in systems.values()]
        rows.append((name.replace("_", " "), estimate(cells[0]), *(number(cell["value"]) for cell in cells[1:])))
    empty = [f"{values['columns'][column]['empty_share']:.3f}" for values, column in systems.values()]
    print_table("metrics", ("", *systems), [*rows, ("share without a genre", *empty)])
    for name in RANKING_METRICS:
        prior = number(baselines["label_prior"][name]["value"])
        to_stdout(f"{name.replace('_', ' ')}: {estimate(metrics[name])}; label prior: {prior}")
    _print_modalities(result["parts"])
    for column, slices in result.get("slices", {}).items():
        _print_slices(f"by {column}", slices)
    scale = result["calibration"]
    to_stdout(
        f"expected calibration error: {number(scale['expected_calibration_error'])}, per genre "
        f"{number(scale['classwise_calibration_error'])} ({counted(scale['n_pairs'], 'score')}, "
        f"{counted(len(scale['bins']), 'bin')}); Brier score {number(scale['brier'])}, of the shares "
        f"of genres in these tracks {number(scale['brier_of_genre_shares'])}"
    )
    to_stdout(f"cross-modal retrieval (audio to lyrics, lyrics to audio): {_retrieval(result['alignment'])}")
    print_table(
        "genres, overall threshold",
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
        to_stdout(f"genres without a track, excluded from macro means: {', '.join(metrics['undefined_genres'])}")
    units = resampled(metrics["n_tracks"], result["n_with_artist"])
    to_stdout(
        f"brackets: 95 % CI (bootstrap over {units})" if metrics["n_replicates"] else f"no 95 % CI: too few {units}"
    )


def _print_modalities(parts: Mapping[str, Any]) -> None:
    """Print metrics by modalities, if the tracks differ in these."""
    scored = {name.replace("sound", "audio"): part for name, part in parts.items() if part["n_tracks"]}
    if len(scored) > 1:
        _print_slices("by modalities of the tracks", scored)


def _print_slices(title: str, slices: Mapping[str, Any]) -> None:
    rows = [
        (
            name,
            part["n_tracks"],
            part["n_groups"],
            estimate(part["mean_average_precision"]),
            *(estimate(part["columns"][column]["jaccard"]) for column in (FIXED, TUNED)),
        )
        for name, part in slices.items()
    ]
    heads = ("", "tracks", "groups", "mAP", "Jaccard at 0.5", "Jaccard, overall threshold")
    print_table(title, heads, rows)


UNDECIDED = {False: "not significant", True: "not tested"}


def print_comparison(result: Mapping[str, Any], quiet: bool) -> None:
    rows = [
        (
            f"{row['metric'].replace('_', ' ')}, {column_label(row['column']).short}",
            number(row["first"]["value"]),
            number(row["second"]["value"]),
            number(row["difference"]["value"], sign=True),
            interval(row["difference"], "[{}, {}]", sign=True),
            f"{row['better']} is better" if row["decided"] else UNDECIDED[row["difference"]["low"] is None],
        )
        for row in result["differences"]
    ]
    print_table(
        f"first {result['first']}, second {result['second']}: {counted(result['n_tracks'], 'test track')} "
        f"{by_artists(result['n_tracks'], result['n_groups'], result['n_with_artist'])}",
        ("metric", "first", "second", "difference", "95 % CI", ""),
        rows,
    )
    if result["n_only_first"] or result["n_only_second"]:
        first, second = counted(result["n_only_first"], "track"), result["n_only_second"]
        to_stdout(f"left out: {first} only in the first run, {second} only in the second")
    if not quiet:
        from ..heads.metrics.bootstrap import FEW_GROUPS

        units = resampled(result["n_tracks"], result["n_with_artist"])
        to_stderr(
            f"Paired bootstrap over {units}. Not significant: the 95 % CI includes 0. Not tested: there are fewer "
            f"than {FEW_GROUPS} {units}. Between equal runs, about 1 in 20 metrics is significant by chance."
        )
