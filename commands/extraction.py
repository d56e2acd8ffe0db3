"""Commands that read a collection and extract features: manifest, plan, extract, extractors."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..cache.errors import ConfigError
from ..cache.messages import counted, duration, size
from ..pipeline.extraction.options import ExtractOptions
from ..pipeline.sources.options import SourceOptions
from . import api
from .console import Terminal, n_workers, print_table, to_stderr, to_stdout
from .options import (
    SOURCE,
    Config,
    SourceArgument,
    extract_flags,
    feature_flags,
    json_flags,
    source_flags,
    verbose_flags,
)

if TYPE_CHECKING:
    from ..pipeline.extraction.forecast import Forecast
    from ..pipeline.extraction.pending import ExtractReport

SHORT_S = 60.0
"""Forecast duration of an extraction, in seconds, below which a trial is not worth its time."""


def manifest(
    *,
    source: Annotated[Path | None, SOURCE] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Manifest to write (.jsonl).", show_default=False)
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the supported data sets with required files and terms.")
    ] = False,
    tracks: Annotated[SourceOptions, source_flags],
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Check a collection and count its tracks and genres. With -o, write a manifest.

    Examples:
      mgc manifest songs/
      mgc manifest music4all/ --language en -o tracks.jsonl
      mgc manifest mtg-jamendo-dataset/ --root audio/ -o jamendo.jsonl
      mgc manifest --list
    """
    if list_:
        datasets = api.known_datasets()
        terminal.emit({"datasets": datasets}, lambda: _print_datasets(datasets))
        return
    if source is None:
        raise ConfigError("SOURCE is missing. Give a folder or a table; `mgc manifest --list` lists the data sets.")

    with terminal.progress() as steps:
        read = api.read_source(source, tracks, on_progress=steps)
    terminal.remark(read.remarks)
    summary = read.to_dict()
    if output is not None:
        written = api.write_manifest(read, output)
        terminal.remark(written.remarks)
        summary |= written.to_dict() | {"remarks": [*read.remarks, *written.remarks]}
    terminal.emit(summary, lambda: _print_source(summary))


def extract(
    *,
    source: SourceArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Feature store to create or continue.", show_default=False)
    ],
    tracks: Annotated[SourceOptions, source_flags],
    options: Annotated[ExtractOptions, extract_flags],
    max_failures: Annotated[
        str, typer.Option(help="Exit code 3 above this share (5%) or number of failed tracks.")
    ] = "5%",
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Extract the features of a collection into a store, or continue an interrupted extraction.

    docs/cluster.md explains extraction on a cluster.

    Examples:
      mgc extract music4all/ -o m4a.zarr
      mgc extract songs.csv -o songs.zarr --text-model minilm
      mgc extract songs.csv -o songs.zarr --retry-failed
      mgc extract m4a.jsonl -o m4a.zarr --shard 3/8
    """
    allowed = _allowed_failures(max_failures)
    with terminal.progress() as steps:
        read = api.read_source(source, tracks, on_progress=steps)
    if options.add is None:  # the first extraction printed them, and labels are those of the store
        terminal.remark(read.remarks)
    with terminal.progress() as steps:
        report = api.extract(read.source, output, options, on_progress=steps)
    terminal.remark(report.remarks)
    document = report.to_dict() | read.source.provenance
    terminal.emit(document, lambda: _print_extraction(report, options.add))
    failed = report.failed - report.reasons.get("DROPPED", 0)  # a takedown is not a failure
    if failed > allowed(report.planned):
        to_stderr(f"{failed} of {counted(report.planned, 'track')} failed; the limit is --max-failures {max_failures}.")
        raise typer.Exit(3)


def plan(
    *,
    source: SourceArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Store of the later extraction; the forecast is saved next to it.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of tracks in the trial, drawn at random.",
            show_default="64, or 10 % of a small collection",
        ),
    ] = None,
    tracks: Annotated[SourceOptions, source_flags],
    options: Annotated[ExtractOptions, feature_flags],
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Forecast the duration and size of an extraction from a trial on sampled tracks.

    For a few songs, run [b]mgc extract[/b] directly: starting the trial takes longer.
    With the same -o, [b]mgc extract[/b] prints the forecast next to the result.

    Examples:
      mgc plan music4all/ -o m4a.zarr
      mgc plan songs.csv --workers 64 --sample 200
    """
    with terminal.progress() as steps:
        read = api.read_source(source, tracks, on_progress=steps)
    terminal.remark(read.remarks)
    with terminal.progress() as steps:
        forecast = api.plan(read.source, output, options, sample=sample, on_progress=steps)
    document = forecast.to_dict() | read.source.provenance
    terminal.emit(document, lambda: _print_forecast(forecast, output))


def extractors(terminal: Annotated[Terminal, json_flags]) -> None:
    """List the installed extractors for [b]mgc extract --add NAME[/b].

    An extractor that cannot be loaded is listed with its error (exit code 2).
    docs/extractors.md explains how to write an extractor.

    Example:
      mgc extractors
    """
    installed = api.extractors()
    broken = [extractor for extractor in installed if extractor.error]
    working = [extractor.to_dict() for extractor in installed if not extractor.error]
    names = ("name", "input", "dims", "shape", "dtype", "unit", "version", "from")
    rows = [[_cell(extractor[name]) for name in names] for extractor in working]
    document = {"extractors": working, "broken": [extractor.to_dict() for extractor in broken]}
    terminal.emit(document, lambda: print_table("", names, rows))
    for extractor in broken:
        to_stderr(f"{extractor.error} (installed by {extractor.package}: fix or uninstall that package)")
    if broken:
        raise typer.Exit(2)


def _cell(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


def _allowed_failures(text: str) -> Callable[[int], float]:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1
    if value < 0:
        raise ConfigError(
            f"--max-failures {text!r}: not a number or share. Give a number of tracks, or a share such as 5%."
        )
    return (lambda planned: planned * value / 100) if text.endswith("%") else (lambda _: value)


def _print_datasets(datasets: Sequence[Mapping[str, str]]) -> None:
    for dataset in datasets:
        to_stdout(f"{dataset['name']}: {dataset['title']}")
        for label in ("needs", "terms"):
            text = f"{label}: {dataset[label]}"
            to_stdout(textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))
    to_stdout("mgc downloads nothing. It detects the data set from SOURCE, unless --dataset NAME is given.")


def _print_source(summary: Mapping[str, Any]) -> None:
    tracks, artists = counted(summary["tracks"], "track"), summary["artists"]
    by = counted(artists, "artist") if artists else "unknown artists"
    to_stdout(f"{tracks}, {summary['with_lyrics']} with lyrics, by {by}")
    if merged := summary["merged_genres"]:
        print_table("merged genres", ["genre", "merged into", "tracks"], [list(genre.values()) for genre in merged])
    print_table(counted(len(summary["genres"]), "genre"), ["genre", "tracks"], summary["genres"].items())
    if "manifest" in summary:
        to_stdout(f"{tracks} written to {summary['manifest']}")


def _print_extraction(report: ExtractReport, feature: str | None) -> None:
    from ..cache.format.meanings import unusual_flags

    to_stdout(
        f"planned {report.planned} = ok {report.ok} + failed {report.failed}"
        + (f" + pending {report.pending}" if report.pending else "")
    )
    if report.reasons:
        print_table("failed, by reason", ("reason", "tracks"), report.reasons.items())
        to_stdout(
            f"List failed tracks: mgc store failures {report.store}" + (f" --feature {feature}" if feature else "")
        )
    if flags := unusual_flags(report.flags):
        print_table("flags", ("flag", "tracks"), flags.items())
        to_stdout("Flagged tracks have features. docs/store.md explains each flag.")
    built = f"{counted(report.parts_built, 'part')} built" if report.parts_built else "nothing to do"
    to_stdout(f"{built} in {report.seconds:.1f} s; store: {report.store}")
    if forecast := report.forecast:
        forecast_text = f"forecast: {_duration_range(forecast)} with {n_workers(forecast.workers)}"
        to_stdout(f"{forecast_text}; actual: {duration(report.seconds)}")


def _print_forecast(forecast: Forecast, store: Path | None) -> None:
    tracks, parts = counted(forecast.tracks, "track"), counted(forecast.parts, "part")
    workers, n_bytes = n_workers(forecast.workers), size(forecast.n_bytes)
    to_stdout(f"{tracks} in {parts} of {forecast.part_rows}: {_duration_range(forecast)} with {workers}, {n_bytes}")
    sample = f"from {counted(forecast.sampled, 'track')} ({forecast.failed} failed)"
    rate = f"{forecast.track_s * 1e3:.0f} ms per track and worker, {forecast.start_s:.0f} s to start"
    to_stdout(f"{sample} with {n_workers(forecast.measured_workers)}: {rate}")
    if forecast.workers > max(1, forecast.measured_workers):
        to_stdout("The forecast assumes one core per worker, as fast as the measured ones.")
    if forecast.seconds < SHORT_S or forecast.trial_s > forecast.seconds / 3:
        to_stdout(
            f"This collection is small: the trial took about {duration(forecast.trial_s)}, and `mgc extract` takes "
            f"about {duration(forecast.seconds)}. Run it without a plan."
        )
    if store is not None:
        to_stdout(f"Saved next to {store}. `mgc extract ... -o {store}` prints the forecast next to the result.")


def _duration_range(forecast: Forecast) -> str:
    return f"{duration(forecast.seconds)} ({duration(forecast.low_s)} to {duration(forecast.high_s)})"
