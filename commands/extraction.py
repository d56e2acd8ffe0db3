"""Commands that turn a collection into a store: manifest, plan, extract, extractors."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..cache.errors import ConfigError
from ..cache.messages import counted
from .console import duration, emit, n_workers, print_table, progress, remark, split_names, to_stderr
from .options import (
    SOURCE,
    ArtistDelimiter,
    AudioBackend,
    ClipSeconds,
    Config,
    Dataset,
    Features,
    GenreDelimiter,
    GenreLevel,
    GenreNames,
    GenresFromFolders,
    Json,
    Labels,
    Language,
    Limit,
    MinLabels,
    Offset,
    PartRows,
    Quiet,
    RequireLyrics,
    Root,
    SourceArgument,
    TextDevice,
    TextModel,
    TextPrecision,
    Verbose,
    Workers,
    complete_extractor,
    parse_shard,
)

if TYPE_CHECKING:
    from ..pipeline.extraction.cluster import Scheduler
    from ..pipeline.extraction.forecast import Forecast
    from ..pipeline.extraction.pending import ExtractReport


def manifest(
    source: Annotated[Path | None, SOURCE] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Manifest to write (.jsonl).", show_default=False)
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the data sets that are known by name: what each needs, its terms.")
    ] = False,
    dataset: Dataset = None,
    root: Root = None,
    labels: Labels = None,
    genres_from_folders: GenresFromFolders = False,
    genre_level: GenreLevel = None,
    genre_delimiter: GenreDelimiter = None,
    artist_delimiter: ArtistDelimiter = None,
    language: Language = None,
    min_labels: MinLabels = 0,
    require_lyrics: RequireLyrics = False,
    limit: Limit = None,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check a source, tell what it holds, and with -o write its tracks as a manifest, one JSON object a line.

    Examples: [b]mgc manifest songs/[/b], [b]mgc manifest music4all/ --language en --min-labels 1 -o tracks.jsonl[/b],
    [b]mgc manifest mtg-jamendo-dataset/ --root audio/ -o jamendo.jsonl[/b], [b]mgc manifest --list[/b]
    """
    from .. import api

    if list_:
        known = api.known_datasets()
        emit(as_json, {"datasets": known}, lambda: _print_datasets(known))
        return
    if source is None:
        raise ConfigError("name a SOURCE; `mgc manifest --list` says what is read")

    read = api.read_source(
        source, dataset=dataset, root=root, labels=labels, genres_from_folders=genres_from_folders,
        genre_level=genre_level, genre_delimiter=genre_delimiter, artist_delimiter=artist_delimiter,
        languages=language or (), min_labels=min_labels, require_lyrics=require_lyrics, limit=limit,
    )  # fmt: skip
    remark(quiet, read.remarks)
    found = read.to_dict()
    if output is not None:
        written = api.write_manifest(read, output)
        remark(quiet, written.remarks)
        found |= written.to_dict() | {"remarks": [*read.remarks, *written.remarks]}
    emit(as_json, found, lambda: _print_source(found))


def extract(
    source: SourceArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The store: made, or continued.", show_default=False)],
    dataset: Dataset = None,
    root: Root = None,
    labels: Labels = None,
    genres_from_folders: GenresFromFolders = False,
    genre_level: GenreLevel = None,
    genre_delimiter: GenreDelimiter = None,
    artist_delimiter: ArtistDelimiter = None,
    language: Language = None,
    min_labels: MinLabels = 0,
    require_lyrics: RequireLyrics = False,
    limit: Limit = None,
    features: Features = "mel,lyrics,genres",
    workers: Workers = None,
    part_rows: PartRows = None,
    audio_backend: AudioBackend = "fast",
    clip_s: ClipSeconds = 30.0,
    offset: Offset = "middle",
    text_model: TextModel = None,
    text_precision: TextPrecision = "auto",
    text_device: TextDevice = "cpu",
    genre_names: GenreNames = None,
    add: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Let the extractor NAME join the store, or --text-model as NAME.",
            autocompletion=complete_extractor,
        ),
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Let new tracks of SOURCE join a store.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed tracks again; with --add, those that failed on NAME.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Build every n-th part only, without Dask: for job arrays.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler that runs already, such as tls://head:8786.")
    ] = None,
    scheduler_file: Annotated[Path | None, typer.Option(help="File that tells its address.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="PEM file: who signed the cluster's certificates.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file: the certificate to show it.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file: the key of that certificate.")] = None,
    insecure_network: Annotated[
        bool, typer.Option("--insecure-network", help="Allow a scheduler on plain TCP beyond this machine.")
    ] = False,
    max_failures: Annotated[str, typer.Option(help="Exit with 3 if more fail: a share (5%) or a number.")] = "5%",
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn a collection into a feature store; run again, it continues where it stopped.

    Examples: [b]mgc extract music4all/ -o m4a.zarr[/b], [b]mgc extract songs.csv -o songs.zarr --text-model minilm[/b],
    [b]mgc extract songs.csv -o songs.zarr --retry-failed[/b],
    [b]mgc extract m4a.jsonl -o m4a.zarr --shard 3/8[/b]; docs/cluster.md has more for clusters
    """
    from .. import api

    allowed, every_nth = _allowed_failures(max_failures), parse_shard(shard)
    read = api.read_source(
        source, dataset=dataset, root=root, labels=labels, genres_from_folders=genres_from_folders,
        genre_level=genre_level, genre_delimiter=genre_delimiter, artist_delimiter=artist_delimiter,
        languages=language or (), min_labels=min_labels, require_lyrics=require_lyrics, limit=limit,
    )  # fmt: skip
    remark(quiet, read.remarks)
    with progress(quiet or as_json) as steps:
        report = api.extract(
            read.source, output, features=split_names(features), workers=workers,
            part_rows=part_rows, audio_backend=audio_backend, clip_s=clip_s, offset=offset, text_model=text_model,
            text_precision=text_precision, text_device=text_device, append=append, retry_failed=retry_failed,
            shard=every_nth, add=add, genre_names=genre_names,
            scheduler=_scheduler(scheduler, scheduler_file, tls_ca, tls_cert, tls_key, insecure_network),
            on_progress=steps,
        )  # fmt: skip
    emit(as_json, report.to_dict(), lambda: _print_extraction(report, add))
    hurt = report.failed - report.reasons.get("DROPPED", 0)  # a takedown is no failure
    if hurt > allowed(report.planned):
        to_stderr(f"{hurt} of {counted(report.planned, 'track')} failed, more than --max-failures {max_failures}")
        raise typer.Exit(3)


def plan(
    source: SourceArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The store to be: the prediction is kept beside it.", show_default=False),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tracks to try, drawn at random.", show_default="64; of fewer than 640 tracks a tenth, but 4"
        ),
    ] = None,
    dataset: Dataset = None,
    root: Root = None,
    labels: Labels = None,
    genres_from_folders: GenresFromFolders = False,
    genre_level: GenreLevel = None,
    genre_delimiter: GenreDelimiter = None,
    artist_delimiter: ArtistDelimiter = None,
    language: Language = None,
    min_labels: MinLabels = 0,
    require_lyrics: RequireLyrics = False,
    limit: Limit = None,
    features: Features = "mel,lyrics,genres",
    workers: Workers = None,
    part_rows: PartRows = None,
    audio_backend: AudioBackend = "fast",
    clip_s: ClipSeconds = 30.0,
    offset: Offset = "middle",
    text_model: TextModel = None,
    text_precision: TextPrecision = "auto",
    text_device: TextDevice = "cpu",
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict the hours, bytes and parts of an extraction, by trying some tracks of the collection on this machine.

    Workers and the text encoder have to start for that, as for the extraction: with a few songs, just extract.

    Options are those of [b]mgc extract[/b], which prints the prediction of the same -o beside what happened.

    Examples: [b]mgc plan music4all/ -o m4a.zarr[/b], [b]mgc plan songs.csv --workers 64 --sample 200[/b]
    """
    from .. import api

    read = api.read_source(
        source, dataset=dataset, root=root, labels=labels, genres_from_folders=genres_from_folders,
        genre_level=genre_level, genre_delimiter=genre_delimiter, artist_delimiter=artist_delimiter,
        languages=language or (), min_labels=min_labels, require_lyrics=require_lyrics, limit=limit,
    )  # fmt: skip
    remark(quiet, read.remarks)
    with progress(quiet or as_json) as steps:
        found = api.plan(
            read.source, output, features=split_names(features), workers=workers,
            part_rows=part_rows, audio_backend=audio_backend, clip_s=clip_s, offset=offset, text_model=text_model,
            text_precision=text_precision, text_device=text_device, sample=sample, on_progress=steps,
        )  # fmt: skip
    emit(as_json, found.to_dict(), lambda: _print_forecast(found, output))


def extractors(as_json: Json = False) -> None:
    """The extractors that are installed: features that join a store with [b]mgc extract ... --add NAME[/b]. One that
    cannot be loaded is named with its error; the exit status is then 2.

    Example: [b]mgc extractors[/b]. docs/extractors.md says how to write one.
    """
    from .. import api

    listed = api.extractors()
    found, broken = [one for one in listed if "error" not in one], [one for one in listed if "error" in one]
    names = ("name", "input", "dims", "shape", "dtype", "unit", "version", "from")
    rows = [[", ".join(map(str, one[n])) if isinstance(one[n], list) else one[n] for n in names] for one in found]
    emit(as_json, {"extractors": found, "broken": broken}, lambda: print_table("", names, rows))
    for one in broken:
        to_stderr(f"{one['error']} (installed by {one['from']}: mend or uninstall that)")
    if broken:
        raise typer.Exit(2)


def _scheduler(
    address: str | None, file: Path | None, ca: Path | None, cert: Path | None, key: Path | None, insecure: bool
) -> Scheduler | None:
    if address is None and file is None:
        return None
    from ..pipeline.extraction.cluster import Scheduler

    return Scheduler(address=address, file=file, tls_ca=ca, tls_cert=cert, tls_key=key, insecure_network=insecure)


def _allowed_failures(text: str) -> Callable[[int], float]:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1
    if value < 0:
        raise ConfigError(f"--max-failures {text!r}: want a share such as 5%, or a number of tracks")
    return (lambda planned: planned * value / 100) if text.endswith("%") else (lambda _: value)


def _print_datasets(known: Sequence[Mapping[str, str]]) -> None:
    for one in known:
        print(f"{one['name']}: {one['title']}")
        for label in ("needs", "terms"):
            text = f"{label}: {one[label]}"
            print(textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))
    print("Nothing is downloaded. SOURCE is read as what it looks like; --dataset NAME decides.")


def _print_source(found: Mapping[str, Any]) -> None:
    tracks, artists = counted(found["tracks"], "track"), found["artists"]
    by = counted(artists, "artist") if artists else "unnamed artists"
    print(f"{tracks}, {found['with_lyrics']} with lyrics, by {by}")
    print_table(counted(len(found["genres"]), "genre"), ["genre", "tracks"], found["genres"].items())
    if "manifest" in found:
        print(f"{tracks} written to {found['manifest']}")


def _print_extraction(report: ExtractReport, feature: str | None) -> None:
    print(
        f"planned {report.planned} = ok {report.ok} + failed {report.failed}"
        + (f" + pending {report.pending}" if report.pending else "")
    )
    if report.reasons:
        print_table("failed, by reason", ("reason", "tracks"), report.reasons.items())
        print(f"list them: mgc store failures {report.store}" + (f" --feature {feature}" if feature else ""))
    if report.flags:
        print_table("flags", ("flag", "tracks"), report.flags.items())
        print("a flag is no failure; docs/store.md says what each means")
    built = f"{counted(report.parts_built, 'part')} built" if report.parts_built else "nothing to do"
    print(f"{built} in {report.seconds:.1f} s; store: {report.store}")
    if report.forecast is not None:
        print(f"predicted: {_duration_range(report.forecast)} with {n_workers(report.forecast.workers)}; "
              f"it took {duration(report.seconds)}")  # fmt: skip


def _print_forecast(found: Forecast, store: Path | None) -> None:
    tracks, parts = counted(found.tracks, "track"), counted(found.parts, "part")
    print(f"{tracks} in {parts} of {found.part_rows}: {_duration_range(found)} with {n_workers(found.workers)}, "
          f"{found.n_bytes / 1e9:.2f} GB")  # fmt: skip
    print(f"from {found.sampled} of them, of which {found.failed} failed, tried on "
          f"{n_workers(found.measured_workers)}: {found.track_s * 1e3:.0f} ms a track and worker, "
          f"{found.start_s:.0f} s to start")  # fmt: skip
    if found.workers > max(1, found.measured_workers):
        print("more workers than were tried: each is taken to have a core of its own, as fast as these")
    if store is not None:
        print(f"kept beside {store}; `mgc extract ... -o {store}` tells it beside what happened")


def _duration_range(found: Forecast) -> str:
    return f"{duration(found.seconds)} ({duration(found.low_s)} to {duration(found.high_s)})"
