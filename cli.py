"""The command line: parse, call one library function, print, exit. Nothing heavy is imported before a command runs.

Exit codes: 0 done; 1 a fault of ours; 2 refused (bad input); 3 finished, but more tracks failed than allowed; 4 damage
found; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import csv
import difflib
import errno
import json
import logging
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from . import __version__
from .cache.errors import ConfigError, MgcError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .api import DemoReport, Prediction, Predictions
    from .pipeline.extract import ExtractReport
    from .pipeline.forecast import Forecast
    from .pipeline.workers import Scheduler

app = typer.Typer(
    name="mgc",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Multi-label music genre classification from sound and lyrics.\n\n"
    "[b]mgc extract[/b] turns a collection into a feature store, once; [b]mgc train[/b] learns from the store; "
    "[b]mgc predict[/b] names the genres of songs nobody has seen. Start with [b]mgc demo[/b].",
)
store_app = typer.Typer(no_args_is_help=True, help="Look into a feature store, and look after it.")
app.add_typer(store_app, name="store")


class Listing(StrEnum):
    """Form of a printed list."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


def _load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a YAML file the defaults of the options of this command."""
    if path is None:
        return None
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path}: cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path}: want lines like `option: value`, found {type(values).__name__}")
    options = {
        long.removeprefix("--"): parameter.name
        for parameter in ctx.command.params
        for long in parameter.opts
        if long.startswith("--") and parameter.name not in ("config", "help")
    }
    for key in values:
        if str(key).replace("_", "-") not in options:
            near = difflib.get_close_matches(str(key).replace("_", "-"), options, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"this command knows: {', '.join(sorted(options))}"
            raise ConfigError(f"--config {path}: unknown key {key!r}; {hint}")
    ctx.default_map = {str(options[str(key).replace("_", "-")]): value for key, value in values.items()}
    return path


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=lambda wanted: _log_to_stderr(wanted), help="Tell each part and epoch."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", callback=_load_config, is_eager=True, help="YAML file with values for these options."),
]
Seed = Annotated[int, typer.Option(help="Decides everything random.")]
SOURCE = typer.Argument(
    metavar="SOURCE",
    help="A data set's folder (see `mgc manifest --list`), CSV, TSV, JSON Lines, Parquet, or a folder of audio.",
    show_default=False,
)
SourceArgument = Annotated[Path, SOURCE]
Dataset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Read SOURCE as this data set; `mgc manifest --list` has the names.",
                 show_default="what it looks like"),
]  # fmt: skip
GenreLevel = Annotated[
    Literal["own", "all", "top"] | None,
    typer.Option(help="Of FMA's genre hierarchy: a track's own genres, with their ancestors, or the top ones.",
                 show_default="all"),
]  # fmt: skip
Root = Annotated[Path | None, typer.Option(help="Folder that audio paths start from.", show_default="the table's own")]
Labels = Annotated[Path | None, typer.Option(help="Table with the genres of a folder's files (columns id, genres).")]
GenresFromFolders = Annotated[bool, typer.Option("--genres-from-folders", help="The first folder names the genre.")]
ArtistDelimiter = Annotated[str | None, typer.Option(help="What separates artists inside a cell.")]
GenreDelimiter = Annotated[str | None, typer.Option(help="What separates genres inside a cell, such as ',' or '|'.")]
GenreNames = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="How genres are read aloud to the text encoder: a table (genre, text), or 'common'."
    ),
]
OtherLabels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Genres by track (columns id, genres) instead of the store's.")
]
Language = Annotated[list[str] | None, typer.Option(help="Keep tracks in this language; may be given several times.")]
MinLabels = Annotated[int, typer.Option(min=0, help="Keep tracks with at least this many genres.")]
RequireLyrics = Annotated[bool, typer.Option("--require-lyrics", help="Keep tracks that have lyrics.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Keep the first N tracks.")]
StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="A feature store.", show_default=False)]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or its best/.", show_default=False)]
Features = Annotated[str, typer.Option(help="Which features, separated by commas.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Worker processes; 0 runs in this one.", show_default="one a core")
]
PartRows = Annotated[int | None, typer.Option(min=1, help="Tracks a part.", show_default="128; 16 below 2048 tracks")]
AudioBackend = Annotated[Literal["fast", "librosa"], typer.Option(help="librosa is the slow reference.")]
ClipSeconds = Annotated[float, typer.Option(min=0.1, help="Seconds of each track that are kept.")]
Offset = Annotated[Literal["start", "middle"], typer.Option(help="Where a longer file is cut.")]
TextModel = Annotated[
    str | None,
    typer.Option(
        help="bert-base-uncased, minilm, or a folder with a BERT-like model.", show_default="bert-base-uncased"
    ),
]
TextPrecision = Annotated[
    Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 where this CPU computes in it.")
]
TextDevice = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the text encoder runs.")]


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what the demo makes.")] = Path("demo"),
    songs: Annotated[
        int | None, typer.Option(min=40, help="Songs to make.", show_default="240; 160 where the CPU lacks bf16")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of training.", show_default="15")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """The whole path on the built-in collection: generate, extract, train, evaluate, predict, report.

    Example: [b]mgc demo -o demo[/b]
    """
    from . import api

    with _progress(quiet or as_json) as steps:
        done = api.demo(output, n_songs=songs, epochs=epochs, seed=seed, on_progress=steps)
    _emit(as_json, done.to_dict(), lambda: _print_demo(done))


@app.command()
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
    from . import api

    if list_:
        known = api.known_datasets()
        _emit(as_json, {"datasets": known}, lambda: _print_datasets(known))
        return
    if source is None:
        raise ConfigError("name a SOURCE; `mgc manifest --list` says what is read")

    read = api.read_source(
        source, dataset=dataset, root=root, labels=labels, genres_from_folders=genres_from_folders,
        genre_level=genre_level, genre_delimiter=genre_delimiter, artist_delimiter=artist_delimiter,
        languages=language or (), min_labels=min_labels, require_lyrics=require_lyrics, limit=limit,
    )  # fmt: skip
    _remark(quiet, read.remarks)
    if output is None:
        _emit(as_json, found := read.to_dict(), lambda: _print_source(found))
        return
    written = api.write_manifest(read, output)
    _remark(quiet, written.remarks)
    _emit(as_json, written.to_dict(), lambda: print(f"{written.tracks} tracks written to {output}"))


@app.command()
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
        str | None, typer.Option(metavar="NAME", help="Let the extractor NAME join the store, or --text-model as NAME.")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Let new tracks of SOURCE join a store.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed tracks again.")] = False,
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
    from . import api

    allowed, every_nth = _allowed_failures(max_failures), _shard(shard)
    read = api.read_source(
        source, dataset=dataset, root=root, labels=labels, genres_from_folders=genres_from_folders,
        genre_level=genre_level, genre_delimiter=genre_delimiter, artist_delimiter=artist_delimiter,
        languages=language or (), min_labels=min_labels, require_lyrics=require_lyrics, limit=limit,
    )  # fmt: skip
    _remark(quiet, read.remarks)
    with _progress(quiet or as_json) as steps:
        report = api.extract(
            read.source, output, features=_names(features), workers=workers,
            part_rows=part_rows, audio_backend=audio_backend, clip_s=clip_s, offset=offset, text_model=text_model,
            text_precision=text_precision, text_device=text_device, append=append, retry_failed=retry_failed,
            shard=every_nth, add=add, genre_names=genre_names,
            scheduler=_scheduler(scheduler, scheduler_file, tls_ca, tls_cert, tls_key, insecure_network),
            on_progress=steps,
        )  # fmt: skip
    _emit(as_json, report.to_dict(), lambda: _print_extraction(report))
    hurt = report.failed - report.reasons.get("DROPPED", 0)  # a takedown is no failure
    if hurt > allowed(report.planned):
        _say(f"{hurt} of {report.planned} tracks failed, more than --max-failures {max_failures}")
        raise typer.Exit(3)


@app.command()
def plan(
    source: SourceArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The store to be: the prediction is kept beside it.", show_default=False),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Tracks to try, drawn at random.")] = 64,
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

    Options are those of [b]mgc extract[/b], which prints the prediction of the same -o beside what happened.

    Examples: [b]mgc plan music4all/ -o m4a.zarr[/b], [b]mgc plan songs.csv --workers 64 --sample 200[/b]
    """
    from . import api

    read = api.read_source(
        source, dataset=dataset, root=root, labels=labels, genres_from_folders=genres_from_folders,
        genre_level=genre_level, genre_delimiter=genre_delimiter, artist_delimiter=artist_delimiter,
        languages=language or (), min_labels=min_labels, require_lyrics=require_lyrics, limit=limit,
    )  # fmt: skip
    _remark(quiet, read.remarks)
    with _progress(quiet or as_json) as steps:
        found = api.plan(
            read.source, output, features=_names(features), workers=workers,
            part_rows=part_rows, audio_backend=audio_backend, clip_s=clip_s, offset=offset, text_model=text_model,
            text_precision=text_precision, text_device=text_device, sample=sample, on_progress=steps,
        )  # fmt: skip
    _emit(as_json, found.to_dict(), lambda: _print_forecast(found, output))


@app.command()
def extractors(as_json: Json = False) -> None:
    """The extractors that are installed: features that join a store with [b]mgc extract ... --add NAME[/b].

    Example: [b]mgc extractors[/b]. docs/extractors.md says how to write one.
    """
    from . import api

    found = api.extractors()
    names = ("name", "input", "dims", "shape", "dtype", "unit", "version", "from")
    rows = [[", ".join(map(str, one[n])) if isinstance(one[n], list) else one[n] for n in names] for one in found]
    _emit(as_json, {"extractors": found}, lambda: _table("", names, rows))


@store_app.command("info")
def store_info(
    store: StoreArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Tell how far it is, until every part is there.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 5.0,
    as_json: Json = False,
) -> None:
    """What a store holds: tracks, arrays, genres, recipe. With --watch, how far its extractions are, wherever they run.

    Examples: [b]mgc store info songs.zarr[/b], [b]mgc store info m4a.zarr --watch[/b]
    """
    if watch:
        _watch(store, every, as_json)
        return
    from .cache.info import describe_store

    info = describe_store(store)
    _emit(as_json, info, lambda: _print_info(info))


def _watch(store: Path, every_s: float, as_json: bool) -> None:
    from .cache.progress import watch

    with _progress(as_json) as steps:
        shown = ""
        for now in watch(store, every_s=every_s):
            rate = "" if now.tracks_per_s is None else f", {now.tracks_per_s:g} tracks/s"
            note = f"{now.failed} failed, {now.working} parts at work{rate}"
            if as_json:
                print(json.dumps(now.to_dict()), flush=True)
            elif sys.stderr.isatty():
                steps("extract", now.ok + now.failed, now.planned, note)
            elif (line := f"{now.ok + now.failed} of {now.planned} tracks, {note}") != shown:
                print(line, flush=True)
                shown = line
    if not as_json:
        print(f"{store}: all {now.parts} parts are there: ok {now.ok}, failed {now.failed}")


@store_app.command("failures")
def store_failures(
    store: StoreArgument,
    listing: Annotated[Listing, typer.Option("--format", help="Form of the list.")] = Listing.TABLE,
    as_json: Json = False,
) -> None:
    """The tracks that failed, each with its reason; and what that leaves of each genre and split.

    Example: [b]mgc store failures songs.zarr --format csv > failed.csv[/b]
    """
    from .cache.failures import failures

    found = failures(store)
    if as_json:
        _emit(True, found, lambda: None)
        return
    _print_list(found["failures"], ("id", "path", "reason", "detail", "attempts"), listing, empty="no track failed")
    if listing is Listing.TABLE and found["failures"]:
        for name, rows in found["coverage"].items():
            hurt = [row for row in rows if row["ok"] < row["planned"]]
            if hurt:
                cells = [(row["name"], row["planned"], row["ok"], f"{row['share']:.1%}") for row in hurt]
                _table(f"{name}s that lost tracks", (name, "planned", "ok", "share"), cells)


@store_app.command("verify")
def store_verify(
    store: StoreArgument,
    full: Annotated[bool, typer.Option("--full", help="Read every byte: hashes, decoding, finiteness.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a store with its records; exits with 4 where something is damaged.

    Example: [b]mgc store verify songs.zarr --full[/b]
    """
    from . import api

    with _progress(quiet or as_json) as steps:
        damages = [damage.to_dict() for damage in api.store_verify(store, full=full, on_progress=steps)]
    _emit(
        as_json,
        {"store": str(store), "full": full, "damages": damages},
        lambda: _print_damages(damages, store, _mend(store)),
    )
    if damages:
        raise typer.Exit(4)


@store_app.command("repair")
def store_repair(
    store: StoreArgument,
    source: Annotated[Path | None, typer.Option(help="What it was extracted from: makes hurt parts again.")] = None,
    dataset: Dataset = None,
    root: Root = None,
    labels: Labels = None,
    genres_from_folders: GenresFromFolders = False,
    genre_level: GenreLevel = None,
    genre_delimiter: GenreDelimiter = None,
    artist_delimiter: ArtistDelimiter = None,
    text_model: TextModel = None,
    text_device: TextDevice = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0 runs in this one.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify in full, put damaged parts into quarantine/, write metadata anew; with --source make the parts again.

    Example: [b]mgc store repair songs.zarr --source music4all/[/b]
    """
    from . import api

    read = None
    if source is not None:
        read = api.read_source(
            source, dataset=dataset, root=root, labels=labels, genres_from_folders=genres_from_folders,
            genre_level=genre_level, genre_delimiter=genre_delimiter, artist_delimiter=artist_delimiter,
        ).source  # fmt: skip
    with _progress(quiet or as_json) as steps:
        done = api.store_repair(
            store, read, text_model=text_model, text_device=text_device, workers=workers, on_progress=steps
        )
    _emit(as_json, done, lambda: _print_repair(done, store, with_source=read is not None))
    if done["left"]:
        raise typer.Exit(4)


@store_app.command("convert")
def store_convert(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="A store in either form.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="TO", help="The other form: to make.", show_default=False)],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the sealed HDF5 form of a Zarr store, or the Zarr form of a sealed one; the two are compared.

    Examples: [b]mgc store convert songs.zarr songs.h5[/b], [b]mgc store convert songs.h5 songs.zarr[/b]
    """
    from .cache.forms import convert

    with _progress(quiet or as_json) as steps:
        convert(source, target, on_progress=lambda done, total: steps("convert", done, total, ""))
    _emit(as_json, {"store": str(target), "made_from": str(source)}, lambda: print(f"{target}: equal to {source}"))


@store_app.command("select")
def store_select(
    store: StoreArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The smaller store; .h5 makes the sealed form.", show_default=False)
    ],
    genre: Annotated[list[str] | None, typer.Option(help="Tracks of this genre; several times: of any.")] = None,
    artist: Annotated[list[str] | None, typer.Option(help="Tracks by this artist; several times: by any.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="Tracks in this language; several times: in any.")] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Tracks of the source's train, validation or test split; several: of any.")
    ] = None,
    genre_names: GenreNames = None,
    text_model: Annotated[
        str | None, typer.Option(help="Where the store's own text encoder lies, for that.", show_default="by its name")
    ] = None,
    text_device: TextDevice = "cpu",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a smaller store: the tracks that have features and all that is asked for, bit for bit. Failed ones stay.

    With --genre-names the genres are embedded again, by other names; all else is copied.

    Examples: [b]mgc store select m4a.zarr --split test -o test.h5[/b],
    [b]mgc store select m4a.zarr --genre jazz --genre soul --language en -o some.zarr[/b],
    [b]mgc store select m4a.zarr --genre-names common -o named.zarr[/b]
    """
    from . import api

    with _progress(quiet or as_json) as steps:
        done = api.store_select(
            store, output, genre=genre, artist=artist, language=language, split=split, genre_names=genre_names,
            text_model=text_model, text_device=text_device, on_progress=steps,
        )  # fmt: skip
    _remark(quiet, done["remarks"])
    _emit(as_json, done, lambda: print(f"{output}: {done['tracks']} of the {done['of']} tracks that have features"))


@store_app.command("drop")
def store_drop(
    store: StoreArgument,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Tracks to take down.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Take tracks down: hidden at once and for good; `mgc store compact` then removes their bytes.

    Example: [b]mgc store drop songs.zarr 0A1b2C3d4E5f6G7h[/b]
    """
    from . import api

    new = api.store_drop(store, ids)
    _emit(
        as_json,
        {"store": str(store), "dropped": new},
        lambda: print(f"{len(new)} tracks taken down; their bytes go with: mgc store compact {store}"),
    )


@store_app.command("compact")
def store_compact(store: StoreArgument, as_json: Json = False, quiet: Quiet = False) -> None:
    """Make parts anew without the tracks taken down, and empty quarantine/. Run no extraction meanwhile.

    Example: [b]mgc store compact songs.zarr[/b]
    """
    from . import api

    with _progress(quiet or as_json) as steps:
        parts = api.store_compact(store, on_progress=steps)
    _emit(as_json, {"store": str(store), "parts": parts}, lambda: print(f"{parts} parts made anew"))


@app.command()
def train(
    store: StoreArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.", show_default=False)],
    preset: Annotated[
        Literal["paper", "plus"] | None,
        typer.Option(help="paper: the paper's random split too; plus: four additions to it, see docs/model.md."),
    ] = None,
    model: Annotated[
        Literal["ours", "santana", "pandeya"] | None,
        typer.Option(
            help="santana (sound alone), pandeya (sound and words joined): the paper's baselines, reconstructed.",
            show_default="ours",
        ),
    ] = None,
    split: Annotated[
        Literal["auto", "manifest", "artist", "stratified", "random"] | None,
        typer.Option(help="How tracks are divided 70/10/20.", show_default="auto; random with --preset paper"),
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="NAME", help="Text features that joined with --add NAME.")] = None,
    labels: OtherLabels = None,
    genre_delimiter: GenreDelimiter = None,
    genres_file: Annotated[Path | None, typer.Option(help="Genres to learn, one a line.")] = None,
    top_genres: Annotated[int | None, typer.Option(min=1, help="Learn the N most frequent genres.")] = None,
    min_genre_count: Annotated[int | None, typer.Option(min=0, help="Learn genres with at least N tracks.")] = None,
    min_labels: Annotated[int | None, typer.Option(min=1, help="Use tracks with N or more kept genres.")] = None,
    encoder: Annotated[Literal["base", "lite", "tiny"] | None, typer.Option(help="Size of the audio CNN.")] = None,
    modalities: Annotated[
        Literal["both", "audio", "lyrics"] | None, typer.Option(help="Learn from both parts or from one.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any further option, listed above; as often as needed."),
    ] = None,
    no_contrastive: Annotated[bool, typer.Option("--no-contrastive", help="Without the audio-lyrics loss.")] = False,
    no_attention: Annotated[bool, typer.Option("--no-attention", help="Without cross-modal attention.")] = False,
    no_graph: Annotated[bool, typer.Option("--no-graph", help="Without the genre graph.")] = False,
    lambda_: Annotated[
        float | None, typer.Option("--lambda", min=0, max=1, help="Weight of the audio-lyrics loss (Eq. 7).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs.", show_default="100")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Tracks a step.", show_default="16")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate of Adam.", show_default="1e-4")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after N epochs without a better validation mAP.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    precision: Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 where it is native.")] = "auto",
    seed: Seed = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Only operations that give the same bits every time.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that is there.")] = False,
    save_every: Annotated[
        float | None,
        typer.Option(min=0, help="Minutes between checkpoints inside an epoch; its end is one.", show_default="10"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it would be, time a few steps, write nothing.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Learn genres from a feature store.

    SIGTERM and Ctrl-C save where the run is before they end it, within 10 s; [b]--resume[/b] goes on from there.

    Examples: [b]mgc train songs.zarr -o runs/first[/b], [b]mgc train m4a.zarr -o runs/paper --preset paper[/b],
    [b]mgc train songs.zarr -o runs/raw --set graph_similarity=raw --set heads=1[/b]

    --set takes (first the default; docs/model.md explains each)

    [b]model[/b]: heads=4, width=256, dropout=0.1, ffn=false, uniform_attention=false, lyrics_pooling=mean|cls,
    graph_conditional=rhs|lhs, graph_similarity=centred|raw, graph_normalisation=symmetric|row|ml-gcn,
    graph_threshold=0.4, graph_reweight=0.25, graph_hidden=1024, logit_scale=false, bias=true, normalise=true,
    projection_dim=256, tau_init=0.07, mel_reference=one|max, mel_top_db=null

    [b]training[/b]: loss=bce|asymmetric, bce_reduction=mean|sum, prior_bias=false, modality_dropout=0,
    spec_augment=false, optimizer=adam|adamw, schedule=halving|cosine, lr_halve_every=50, warmup_epochs=0,
    weight_decay=0, grad_clip=1, split_seed=0, home=auto|device|host|mapped
    """
    from . import api

    asked = {
        "model": model, "split": split, "top_genres": top_genres, "min_genre_count": min_genre_count,
        "min_labels": min_labels, "encoder": encoder, "modalities": modalities, "lambda_": lambda_, "epochs": epochs,
        "batch_size": batch_size, "lr": lr, "patience": patience, "device": device, "precision": precision,
        "seed": seed, "contrastive": not no_contrastive, "attention": not no_attention, "graph": not no_graph,
        "deterministic": deterministic,
    }  # fmt: skip
    options = {name: value for name, value in asked.items() if value is not None}
    if dry_run:
        with _progress(quiet or as_json) as steps:
            found = api.train_dry_run(
                store, output, preset=preset, genres_file=genres_file, labels=labels,
                genre_delimiter=genre_delimiter, text=text, options=options, settings=settings or (), on_progress=steps,
            )  # fmt: skip
        _emit(as_json, found, lambda: _print_dry_run(found))
        return
    with _stopping_gently() as stop, _progress(quiet or as_json) as steps:
        result = api.train(
            store,
            output,
            preset=preset,
            genres_file=genres_file,
            labels=labels,
            genre_delimiter=genre_delimiter,
            text=text,
            options=options,
            settings=settings or (),
            resume=resume,
            save_every_s=None if save_every is None else 60 * save_every,
            stop=stop,
            on_progress=steps,
        )
    _emit(as_json, result, lambda: _print_training(result))


@app.command()
def evaluate(
    run: RunArgument,
    store: StoreArgument,
    split: Annotated[
        Literal["train", "validation", "test", "all"], typer.Option(help="Which tracks of the run; all: every track.")
    ] = "test",
    labels: OtherLabels = None,
    genre_delimiter: GenreDelimiter = None,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score a trained model on stored tracks: every metric, and a row a genre.

    Example: [b]mgc evaluate runs/first songs.zarr[/b]
    """
    from . import api

    with _progress(quiet or as_json) as steps:
        metrics = api.evaluate(
            run, store, split=split, labels=labels, genre_delimiter=genre_delimiter, on_progress=steps
        )
    _emit(as_json, metrics, lambda: _print_metrics(metrics))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="An evaluated run.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another.", show_default=False)],
    common: Annotated[bool, typer.Option("--common", help="Compare on the test tracks that both have.")] = False,
    replicates: Annotated[int, typer.Option(min=1, help="Bootstrap draws of artists.")] = 1000,
    seed: Seed = 0,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Paired differences of two runs on their test tracks, with 95 % intervals over artists.

    Example: [b]mgc compare runs/audio runs/both[/b]
    """
    from . import api

    result = api.compare(first, second, common=common, n_replicates=replicates, seed=seed)
    _emit(as_json, result, lambda: _print_comparison(result, quiet))


@app.command()
def ablate(
    store: StoreArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder: made, or continued.", show_default=False)],
    tables: Annotated[
        str | None,
        typer.Option(
            help="Some of systems, components, lambda, lambda-sum, plus, separated by commas.",
            show_default="all but lambda-sum",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each configuration.")] = 3,
    folds: Annotated[
        int | None, typer.Option(min=3, help="Cross-validation in N folds, pooled: for small collections.")
    ] = None,
    fold_by: Annotated[Literal["artist", "song"], typer.Option(help="What stays in one fold of --folds.")] = "artist",
    preset: Annotated[
        Literal["paper", "plus"] | None, typer.Option(help="paper: the paper's random split too.")
    ] = None,
    split: Annotated[
        Literal["auto", "manifest", "artist", "stratified", "random"] | None,
        typer.Option(help="How tracks are divided 70/10/20.", show_default="auto; random with --preset paper"),
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="NAME", help="Text features that joined with --add NAME.")] = None,
    names_store: Annotated[
        Path | None,
        typer.Option(
            "--genre-names-store", metavar="STORE", help="The same tracks with other genre names read aloud: for plus."
        ),
    ] = None,
    labels: OtherLabels = None,
    genre_delimiter: GenreDelimiter = None,
    genres_file: Annotated[Path | None, typer.Option(help="Genres to learn, one a line.")] = None,
    top_genres: Annotated[int | None, typer.Option(min=1, help="Learn the N most frequent genres.")] = None,
    min_genre_count: Annotated[int | None, typer.Option(min=0, help="Learn genres with at least N tracks.")] = None,
    min_labels: Annotated[int | None, typer.Option(min=1, help="Use tracks with N or more kept genres.")] = None,
    encoder: Annotated[Literal["base", "lite", "tiny"] | None, typer.Option(help="Size of the audio CNN.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs.", show_default="100")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Tracks a step.", show_default="16")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate.", show_default="1e-4")] = None,
    lr_halve_every: Annotated[int | None, typer.Option(min=1, help="Epochs.", show_default="50")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any further option of `mgc train`; as often as needed."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    precision: Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 where it is native.")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Processes; more than one have one thread each.")] = 1,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do every n-th run only: for job arrays on one folder.")
    ] = None,
    no_train: Annotated[bool, typer.Option("--no-train", help="Only write the tables of what is finished.")] = False,
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", help="Keep models and checkpoints of finished runs.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and estimate their time from measured epochs.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """The paper's tables on your tracks, beside its published numbers; run again, it continues where it stopped.

    Examples: [b]mgc ablate m4a.zarr -o ablation --preset paper[/b],
    [b]mgc ablate songs.zarr -o small --folds 5 --encoder tiny --epochs 20[/b]
    """
    from . import api

    asked = {
        "split": split, "top_genres": top_genres, "min_genre_count": min_genre_count, "min_labels": min_labels,
        "encoder": encoder, "epochs": epochs, "batch_size": batch_size, "lr": lr, "lr_halve_every": lr_halve_every,
        "device": device, "precision": precision,
    }  # fmt: skip
    with _stopping_gently() as stop, _progress(quiet or as_json) as steps:
        result = api.ablate(
            store, output, tables=None if tables is None else _names(tables),
            n_seeds=seeds, n_folds=folds, fold_by=fold_by, preset=preset, genres_file=genres_file,
            labels=labels, genre_delimiter=genre_delimiter, text=text, names_store=names_store,
            options={name: value for name, value in asked.items() if value is not None}, settings=settings or (),
            jobs=jobs,
            shard=_shard(shard), training=not no_train, keep_runs=keep_runs, dry_run=dry_run,
            stop=stop, on_progress=steps,
        )  # fmt: skip
    if dry_run:
        _emit(as_json, result, lambda: _print_planned_runs(result))
        return
    _emit(as_json, result, lambda: _print_ablation(result))
    if result["failures"]:
        raise typer.Exit(3)


@app.command()
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
    text_model: Annotated[
        str | None, typer.Option(help="Where the model's own text encoder lies here.", show_default="found by name")
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

    song.txt beside song.mp3 is taken as its lyrics. Examples: [b]mgc predict runs/first song.mp3 --lyrics song.txt[/b],
    [b]mgc predict runs/first songs.zarr -o scores.parquet[/b],
    [b]find music -name '*.flac' | mgc predict runs/first - -o scores.csv[/b]
    """
    from . import api

    listed = inputs == [Path("-")]
    if listed:
        inputs = [Path(line) for line in sys.stdin.read().splitlines() if line.strip()]
        if not inputs:
            raise ConfigError("standard input names no songs; give one path a line")
    with _progress(quiet or as_json) as steps:
        result = api.predict(
            run, inputs, lyrics=lyrics, missing_ok=listed, output=output, threshold=threshold, text_model=text_model,
            text_device=text_device, workers=workers, on_progress=steps,
        )  # fmt: skip
    _remark(quiet, result.remarks)
    if output is not None:
        _emit(as_json, {"model": str(run), **result.to_dict()}, lambda: _print_written(result))
    elif as_json:
        _emit(True, {"model": str(run), **result.to_dict()}, lambda: None)
    elif listing is Listing.TABLE:
        _print_predictions(result.predictions, top)
    else:
        rows = [prediction.to_dict() for prediction in result.predictions]
        flat = [
            {"id": row["id"], "reason": row["reason"], "detail": row["detail"], "genres": "|".join(row["genres"])}
            | {f"score: {genre}": score for genre, score in row["scores"].items()}
            for row in rows
        ]
        columns = list(dict.fromkeys(name for row in flat for name in row))
        _print_list(rows if listing is Listing.JSONL else flat, columns, listing, empty="no song")
    if result.n_failed == result.n_tracks:
        raise typer.Exit(2)


@app.command()
def report(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Page to write.", show_default="RUN/report.html")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page about a run.

    Example: [b]mgc report runs/first[/b]
    """
    from . import api

    page = api.report(run, output)
    _emit(as_json, {"report": str(page)}, lambda: print(f"report: {page}"))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_ROOM = "; make room and give the same command again: what was finished is kept"
_OF_THE_DISK = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EIO: "; see whether the disk is sound, then give the same command again: what was finished is kept",
    errno.EROFS: "; name a place that can be written to",
}
"""Faults that are neither ours nor the input's, with what to do; fsync and its like do not say of which file."""


def main() -> NoReturn:
    """Entry point of the ``mgc`` command."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except MgcError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        if error.filename is None and error.errno not in _OF_THE_DISK:
            traceback.print_exc()
            sys.exit(1)
        _say(f"error: {error.filename or 'the disk'}: {error.strerror}{_OF_THE_DISK.get(error.errno or 0, '')}")
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        _say("error: this is a fault of mgc, not of your input; please report it with the lines above")
        sys.exit(1)
    raise AssertionError("typer exits")


def _terminated(*_: object) -> NoReturn:
    _say("terminated; a store keeps the parts that are committed, a run its last checkpoint")
    sys.exit(143)


PATIENCE_S = 8
"""How long work may take to come to a stop that loses nothing."""


@contextmanager
def _stopping_gently() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGTERM or SIGINT into a question that work asks itself; a second, or `PATIENCE_S`, ends it."""
    received: list[int] = []

    def ask(number: int, _: object) -> None:
        if received:
            sys.exit(128 + received[0])
        received.append(number)
        signal.alarm(PATIENCE_S)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    try:
        yield lambda: bool(received)
    except StoppedError as stopped:
        _say(str(stopped))
        sys.exit(128 + received[0])
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _log_to_stderr(wanted: bool) -> bool:
    if wanted:
        handler = _Sayer()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger = logging.getLogger("mgc")
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
    return wanted


class _Sayer(logging.Handler):
    """Log lines to the stderr of the moment, which a progress bar replaces while it is up."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(self.format(record))


def _remark(quiet: bool, remarks: Iterable[str]) -> None:
    if not quiet:
        for remark in remarks:
            _say(remark)


def _emit(as_json: bool, data: Mapping[str, Any], show: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False, default=str))
    else:
        show()


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int, str], None]]:
    """A bar on stderr for each step of long work; none where stderr is no terminal, plain lines of steps instead."""
    if quiet:
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        seen: set[str] = set()

        def say_once(step: str, done: int, total: int, note: str) -> None:
            if step not in seen:
                seen.add(step)
                _say(f"{step} ...")

        yield say_once
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int, note: str) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, note="")
            bars.update(tasks[step], completed=done, total=total, note=note)

        yield show


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",")]


def _shard(text: str | None) -> tuple[int, int] | None:
    """``3/8`` as (3, 8)."""
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise ConfigError(f"--shard {text!r}: want I/N with I from 1 to N, such as 3/8")
    return int(i), int(n)


def _scheduler(
    address: str | None, file: Path | None, ca: Path | None, cert: Path | None, key: Path | None, insecure: bool
) -> Scheduler | None:
    if address is None and file is None:
        return None
    from .pipeline.workers import Scheduler

    return Scheduler(address=address, file=file, tls_ca=ca, tls_cert=cert, tls_key=key, insecure_network=insecure)


def _allowed_failures(text: str) -> Callable[[int], float]:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1
    if value < 0:
        raise ConfigError(f"--max-failures {text!r}: want a share such as 5%, or a number of tracks")
    return (lambda planned: planned * value / 100) if text.endswith("%") else (lambda _: value)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    width = None if sys.stdout.isatty() else 120
    Console(width=width, markup=False, highlight=False).print(table)


def _print_list(rows: Sequence[Mapping[str, Any]], names: Sequence[str], listing: Listing, *, empty: str) -> None:
    if listing is Listing.JSONL:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    elif listing is Listing.CSV:
        writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif rows:
        _table("", names, [[row[name] for name in names] for row in rows])
    else:
        print(empty)


def _print_datasets(known: Sequence[Mapping[str, str]]) -> None:
    for one in known:
        print(f"{one['name']}: {one['title']}")
        for label in ("needs", "terms"):
            text = f"{label}: {one[label]}"
            print(textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))
    print("Nothing is downloaded. SOURCE is read as what it looks like; --dataset NAME decides.")


def _print_source(found: Mapping[str, Any]) -> None:
    print(f"{found['tracks']} tracks, {found['with_lyrics']} with lyrics, by {found['artists'] or 'unnamed'} artists")
    _table(f"{len(found['genres'])} genres", ["genre", "tracks"], found["genres"].items())


def _print_extraction(report: ExtractReport) -> None:
    print(
        f"planned {report.planned} = ok {report.ok} + failed {report.failed}"
        + (f" + pending {report.pending}" if report.pending else "")
    )
    if report.reasons:
        _table("failed, by reason", ("reason", "tracks"), report.reasons.items())
        print(f"list them: mgc store failures {report.store}")
    if report.flags:
        _table("flags", ("flag", "tracks"), report.flags.items())
    built = f"{report.parts_built} parts built" if report.parts_built else "nothing to do"
    print(f"{built} in {report.seconds:.1f} s; store: {report.store}")
    if report.forecast is not None:
        print(f"predicted: {_duration_range(report.forecast)} with {_workers(report.forecast.workers)}; "
              f"it took {_duration(report.seconds)}")  # fmt: skip


def _print_forecast(found: Forecast, store: Path | None) -> None:
    print(f"{found.tracks} tracks in {found.parts} parts of {found.part_rows}: {_duration_range(found)} with "
          f"{_workers(found.workers)}, {found.n_bytes / 1e9:.2f} GB")  # fmt: skip
    print(f"from {found.sampled} of them, of which {found.failed} failed, tried on {_workers(found.measured_workers)}: "
          f"{found.track_s * 1e3:.0f} ms a track and worker, {found.start_s:.0f} s to start")  # fmt: skip
    if found.workers > max(1, found.measured_workers):
        print("more workers than cores here: each is taken to have a core of its own, as fast as these")
    if store is not None:
        print(f"kept beside {store}; `mgc extract ... -o {store}` tells it beside what happened")


def _duration_range(found: Forecast) -> str:
    return f"{_duration(found.seconds)} ({_duration(found.low_s)} to {_duration(found.high_s)})"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _workers(n: int) -> str:
    return "this process" if n == 0 else f"{n} worker{'s' if n > 1 else ''}"


def _print_info(info: Mapping[str, Any]) -> None:
    print(f"{info['store']}: mgc feature store, format {info['format_version']}, {info['bytes'] / 2**20:.1f} MiB")
    print(f"planned {info['planned']} = ok {info['ok']} + failed {info['failed']} + pending {info['pending']}")
    _table("arrays", ("name", "dims", "shape", "dtype", "unit"), [list(array.values()) for array in info["arrays"]])
    parts = {name: part for name, part in info["recipe"].items() if name != "genre_names"}
    _table("recipe", ("parameter", "value"), [(f"{f}.{k}", v) for f, p in parts.items() for k, v in p.items()])
    aloud = {name: text for name, text in info["recipe"].get("genre_names", {}).items() if name in info["genres"]}
    if aloud:
        _table("genres read aloud as", ("genre", "text"), aloud.items())
    _table("genres", ("genre", "tracks"), info["genres"].items())


def _print_damages(damages: Sequence[Mapping[str, Any]], store: Path, advice: str) -> None:
    if not damages:
        print(f"{store}: as recorded")
        return
    rows = [
        (one["key"], one["kind"], one["part"], one["array"], _some(one["tracks"]), one["detail"]) for one in damages
    ]
    _table("damage", ("object", "kind", "part", "array", "tracks", "detail"), rows)
    print(advice)


def _mend(store: Path) -> str:
    if store.is_file():
        return "a sealed store cannot be mended: restore the file from a copy"
    return f"mend it: mgc store repair {store} --source SOURCE"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _print_repair(done: Mapping[str, Any], store: Path, *, with_source: bool) -> None:
    if not done["damages"]:
        print(f"{store}: as recorded, nothing to mend")
    else:
        print(f"{len(done['damages'])} damages found, {len(done['left'])} left, {done['parts_built']} parts made again")
    if done["left"]:
        restore = "this source does not give them back: restore them from a copy of the store"
        _print_damages(done["left"], store, restore if with_source else f"{_mend(store)}; or restore them from a copy")
    elif done["pending"]:
        print(f"{done['pending']} tracks are pending; run `mgc extract` as before, or repair with --source")
    for name, pending in done["pending_added"].items():
        print(f"{pending} tracks of the text features {name} are pending; run `mgc extract --add {name}` as before")


def _print_dry_run(found: Mapping[str, Any]) -> None:
    for line in found["kept"]:
        print(line)
    sizes = ", ".join(f"{name} {size}" for name, size in found["split"].items() if name != "policy")
    print(f"split {found['split']['policy']}: {sizes}; {len(found['genres'])} genres")
    for warning in found["warnings"]:
        print(f"warning: {warning}")
    print(f"features kept in: {found['features']}")
    print(
        f"{found['n_parameters']:,} parameters; a checkpoint is {found['checkpoint_bytes'] / 1e6:.1f} MB, "
        "two are kept and a third is there while it is written"
    )
    print(
        f"batches of {found['batch_size']}, {found['steps_per_epoch']} steps an epoch, on {found['device']} in "
        f"{found['precision']}"
    )
    print(
        f"about {found['seconds_per_epoch']:.1f} s an epoch by {found['timed_steps']} real steps, {found['epochs']} "
        f"epochs in {found['epochs'] * found['seconds_per_epoch'] / 3600:.2f} h; "
        f"reading the features first: {found['seconds_to_read']:.1f} s"
    )
    if found["run_exists"]:
        print(f"there is a run in {found['run']} already: go on with --resume, or give another folder")
    print("nothing was written")


def _print_training(result: Mapping[str, Any]) -> None:
    for line in result["remarks"]:
        print(line)
    best = result["best_validation_map"]
    print(
        f"best epoch {result['best_epoch']} of {result['epochs']}, "
        f"validation mAP {'undefined' if best is None else format(best, '.3f')}, "
        f"loss {_number(result['first_loss'])} -> {_number(result['last_loss'])}, "
        f"{result['seconds']:.0f} s on {result['device']} in {result['precision']}"
    )
    print(
        f"learning rate {result['learning_rate']:g}, threshold {result['threshold']:.3f} "
        f"(tuned on {result['threshold_tuned_on']} validation tracks)"
    )
    if result["report"]:
        print(f"report: {result['report']}")
    print(f"next: mgc evaluate {result['run']} {result['store']}")


METRIC_ROWS = ("jaccard", "f1", "subset_accuracy", "hamming_loss", "micro_f1", "macro_f1")


def _print_metrics(result: Mapping[str, Any]) -> None:
    metrics, baselines = result["metrics"], result["baselines"]
    print(
        f"{result['split']}: {metrics['n_tracks']} tracks, {metrics['n_groups']} artists; epoch {result['epoch']}, "
        f"learning rate {result['lr']:g}, tuned threshold {result['threshold']:.3f}"
    )
    for warning in result["warnings"]:
        print(f"warning: {warning}")
    systems = {
        **{shown: (metrics, column) for column, shown in DECIDED_BY.items() if column is not None},
        "prior": (baselines["label_prior"], "fixed"),
        "majority": (baselines["majority"], "fixed"),
        "frequency": (baselines["label_frequency"], "fixed"),
    }
    rows: list[tuple[str, ...]] = []
    for name in METRIC_ROWS:
        cells = [values["columns"][column][name] for values, column in systems.values()]
        rows.append((name.replace("_", " "), _estimate(cells[0]), *(_number(cell["value"]) for cell in cells[1:])))
    empty = [f"{values['columns'][column]['empty_share']:.3f}" for values, column in systems.values()]
    _table("metrics", ("", *systems), [*rows, ("nothing predicted", *empty)])
    for name in ("mean_average_precision", "roc_auc"):
        prior = _number(baselines["label_prior"][name]["value"])
        print(f"{name.replace('_', ' ')}: {_estimate(metrics[name])}; of the label prior: {prior}")
    _print_parts(result["parts"])
    told = result["calibration"]
    print(
        f"calibration: expected error {_number(told['expected_calibration_error'])} over {told['n_pairs']} scores in "
        f"{len(told['bins'])} bins, a genre {_number(told['classwise_calibration_error'])}; Brier "
        f"{_number(told['brier'])} (each genre's share as its score: {_number(told['brier_of_genre_shares'])})"
    )
    _table(
        "genres, at the tuned threshold",
        ("genre", "support", "AP", "precision", "recall", "F1"),
        [
            (
                row["genre"],
                row["support"],
                _number(row["average_precision"]),
                *(_number(row[name]["tuned"]) for name in ("precision", "recall", "f1")),
            )
            for row in sorted(metrics["genres"], key=lambda row: -row["support"])
        ],
    )
    if metrics["undefined_genres"]:
        print(f"without a track here, so without a figure: {', '.join(metrics['undefined_genres'])}")
    print("brackets: 95 % bootstrap intervals, resampling artists")


DECIDED_BY = {
    None: "ranking",
    "fixed": "at 0.5",
    "tuned": "tuned",
    "tuned_per_genre": "tuned a genre",
    "top1_where_empty": "0.5 or top 1",
}
"""Columns of metrics as a terminal has room for."""


def _print_parts(parts: Mapping[str, Any]) -> None:
    """Scores of the tracks by what they have; nothing where all of them have the same."""
    rows = [
        (
            name,
            part["n_tracks"],
            _estimate(part["mean_average_precision"]),
            *(_estimate(part["columns"][column]["jaccard"]) for column in ("fixed", "tuned")),
        )
        for name, part in parts.items()
        if part["n_tracks"]
    ]
    if len(rows) > 1:
        _table("by what tracks have", ("", "tracks", "mAP", "Jaccard at 0.5", "Jaccard tuned"), rows)


def _print_comparison(result: Mapping[str, Any], quiet: bool) -> None:
    rows = []
    for row in result["differences"]:
        low, high = row["difference"]["low"], row["difference"]["high"]
        rows.append((
            f"{row['metric'].replace('_', ' ')}, {DECIDED_BY.get(row['column'], row['column'])}",
            _number(row["first"]["value"]), _number(row["second"]["value"]),
            "-" if row["difference"]["value"] is None else f"{row['difference']['value']:+.3f}",
            "" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]",
            f"{row['better']} is better" if row["decided"] else "undecided",
        ))  # fmt: skip
    _table(
        f"first {result['first']}, second {result['second']}: {result['n_tracks']} test tracks, "
        f"{result['n_groups']} artists",
        ("metric", "first", "second", "difference", "95 % interval", ""),
        rows,
    )
    if result["n_only_first"] or result["n_only_second"]:
        print(f"left out: {result['n_only_first']} tracks only of the first, {result['n_only_second']} of the second")
    if not quiet:
        _say(
            "paired bootstrap over artists; undecided: the interval holds 0. Where nothing differs, about one metric "
            "in twenty is decided by chance"
        )


def _print_planned_runs(result: Mapping[str, Any]) -> None:
    rows = [
        (run["key"], ", ".join(run["fills"]), run["seed"], run["fold"], run["state"], f"{run['seconds'] / 60:.1f}")
        for run in result["runs"]
    ]
    _table("runs", ("run", "fills", "seed", "fold", "state", "minutes"), rows)
    for system, seconds in result["epoch_s"].items():
        print(f"an epoch of {system}: about {seconds:.1f} s")
    over = "" if result["jobs"] == 1 else f" over {result['jobs']} jobs"
    print(f"{len(rows)} runs, about {result['seconds'] / 3600:.1f} hours to go{over}")


def _print_ablation(result: Mapping[str, Any]) -> None:
    names = {"accuracy": "accuracy", "f1": "F", "accuracy_tuned": "tuned", "map": "mAP", "empty_share": "empty"}
    for table in result["tables"]:
        published = any(row["published"] for row in table["rows"])
        heads = [*names.values(), f"accuracy - {table['reference']}", ""]
        heads += ["published", "published F"] if published else []
        rows = []
        for row in table["rows"]:
            cells, known = row["metrics"], row["published"] or {}
            difference = (cells.get("accuracy") or {}).get("difference")
            rows.append([
                row["name"], *(_number(cells[name]["value"]) if name in cells else "-" for name in names),
                *(("", "") if difference is None else (_estimate(difference), cells["accuracy"]["verdict"])),
                *([known.get("accuracy"), known.get("f1")] if published else []),
            ])  # fmt: skip
        _table(table["title"], ("", *heads), rows)
    about = result["caption"]
    print(f"{about['runs_finished']} of {about['runs']} runs finished")
    if result["claimed"]:
        print(f"{len(result['claimed'])} more are at work in other processes; run again for their rows")
    for failure in result["failures"]:
        print(f"failed: {', '.join(failure['serves'])}: {failure['reason']}")
    for remark in result["remarks"]:
        print(remark)
    print(f"written: {', '.join(result['files'])}")


def _estimate(estimate: Mapping[str, float | None]) -> str:
    low, high = estimate["low"], estimate["high"]
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return _number(estimate["value"]) + interval


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _print_predictions(predictions: Sequence[Prediction], top: int) -> None:
    for prediction in predictions:
        if not prediction.scores:
            print(f"{prediction.id}: failed, {prediction.reason}: {prediction.detail}")
            continue
        print(f"{prediction.id}: {', '.join(prediction.genres) or 'no genre passes its threshold'}")
        best = sorted(prediction.scores.items(), key=lambda item: -item[1])[:top]
        width = max(len(genre) for genre, _ in best)
        for genre, score in best:
            mark = "*" if genre in prediction.genres else " "
            print(f"  {mark} {genre:<{width}}  {'█' * round(score * 30):<30} {score:.3f}")


def _print_written(result: Predictions) -> None:
    scored = result.n_tracks - result.n_failed
    print(f"{result.output}: {result.n_tracks} tracks, {scored} with scores, {result.n_failed} without")
    if result.reasons:
        _table("without scores, by reason", ("reason", "tracks"), result.reasons.items())


def _print_demo(report: DemoReport) -> None:
    metrics, baselines = report.metrics["metrics"], report.metrics["baselines"]
    ours, majority = (values["columns"]["fixed"]["jaccard"]["value"] for values in (metrics, baselines["majority"]))
    training = report.training
    for remark in report.remarks:
        print(remark)
    print(
        f"{report.extraction['planned']} generated songs, {len(training['genres'])} genres; "
        f"tested on {metrics['n_tracks']} songs by artists not trained on"
    )
    print(f"learning rate {training['learning_rate']:g}, {training['epochs']} epochs, threshold 0.5 (the paper's)")
    print(f"test Jaccard {ours:.3f}; always the most usual genres: {majority:.3f}; ratio {ours / majority:.2f}")
    print(f"a new song, truly {', '.join(report.new_song_genres)}:")
    _print_predictions([report.prediction], 5)
    print("seconds: " + ", ".join(f"{step} {taken:g}" for step, taken in report.seconds.items()))
    print(f"report: {report.report}")
