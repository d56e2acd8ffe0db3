"""Options that several commands share, and the conversion of flags to the options of the code.

A parameter ``Annotated[SourceOptions, source_flags]`` of a command stands for the flags of the function
:func:`source_flags`; see :func:`takes_flags`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from ..cache.errors import ConfigError
from ..cache.messages import did_you_mean
from ..cache.places import place
from ..pipeline.extraction.options import ExtractOptions, Scheduler
from ..pipeline.sources.options import GenreLevel, SourceOptions
from .console import Terminal, log_to_stderr, split_names

T = TypeVar("T")

TEXT_MODELS = ("bert-base-uncased", "minilm", "multilingual")
BUILT_IN_EXTRACTORS = ("musicnn", "musicnn_tags", "pooled_mel")


def complete_text_model(incomplete: str) -> list[str]:
    """Complete --text-model in the shell: built-in names and folders."""
    head, slash, start = incomplete.rpartition("/")
    folders: list[str] = []
    with contextlib.suppress(OSError):
        folders = sorted(path.name for path in Path(f"{head}{slash}" or ".").iterdir() if path.is_dir())
    is_hidden = start.startswith(".")
    matching = [name for name in folders if name.startswith(start) and name.startswith(".") == is_hidden]
    names = [name for name in TEXT_MODELS if name.startswith(incomplete)]
    return names + [f"{head}{slash}{name}/" for name in matching]


def complete_extractor(incomplete: str) -> list[str]:
    """Complete --add in the shell: extractors of installed packages, without importing them."""
    names = {*BUILT_IN_EXTRACTORS, *(point.name for point in metadata.entry_points(group="mgc.extractors"))}
    return sorted(name for name in names if name.startswith(incomplete))


def _load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a YAML file the defaults of the options of this command."""
    if path is None:
        return None
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path}: {type(values).__name__} found. Write lines such as `epochs: 20`.")
    options = {
        long.removeprefix("--"): parameter.name
        for parameter in ctx.command.params
        for long in parameter.opts
        if long.startswith("--") and parameter.name not in ("config", "help")
    }
    for key in values:
        if str(key).replace("_", "-") not in options:
            hint = did_you_mean(str(key).replace("_", "-"), sorted(options))
            raise ConfigError(f"--config {path}: unknown key {key!r}; {hint}")
    ctx.default_map = {str(options[str(key).replace("_", "-")]): value for key, value in values.items()}
    return path


Config = Annotated[
    Path | None,
    typer.Option("--config", callback=_load_config, is_eager=True, help="YAML file with values for these options."),
]
Seed = Annotated[int, typer.Option(help="Random seed.")]
SOURCE = typer.Argument(
    metavar="SOURCE",
    help="Data set folder, audio folder, or table (CSV, TSV, JSON Lines, Parquet).",
    show_default=False,
)
SourceArgument = Annotated[Path, SOURCE]
GenreDelimiter = Annotated[str | None, typer.Option(help="Separator of genres in a cell, such as ',' or '|'.")]
MergeGenres = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Merge genre spellings: table (columns from, to), or 'common'."),
]
GenreNames = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Genre name prompts: table (columns genre, text), or 'common'."),
]
OtherLabels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Table (columns id, genres) that replaces the store's genres.")
]
StoreArgument = Annotated[
    Path, typer.Argument(metavar="STORE", help="Feature store: path or URL.", parser=place, show_default=False)
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or its best/.", show_default=False)]
ModelArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder, its best/, or hf://OWNER/NAME.", show_default=False)
]
TextModel = Annotated[
    str | None,
    typer.Option(
        help="bert-base-uncased, minilm, multilingual, hf://OWNER/NAME, or a folder.",
        show_default="bert-base-uncased",
        autocompletion=complete_text_model,
    ),
]
LyricsEncoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Encoding of lyrics files that are not UTF-8, such as cp1251.", show_default="detected"
    ),
]
AudioModel = Annotated[
    str | None,
    typer.Option(metavar="hf:MODEL", help="Audio encoder: hf:FOLDER, or hf:OWNER/NAME on the Hugging Face hub."),
]
AudioDevice = Annotated[Literal["cpu", "cuda"], typer.Option(help="Device of the audio encoder.")]
TextDevice = Annotated[Literal["cpu", "cuda"], typer.Option(help="Device of the text encoder.")]


def takes_flags(function: Callable[..., T]) -> Callable[..., T]:
    """Replace each parameter ``Annotated[X, flags]`` of `function` by the parameters of the function `flags`.

    When the result is called with these, `flags` builds the X for `function`.
    """
    makers: dict[str, Callable[..., Any]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        maker = next(filter(inspect.isfunction, getattr(parameter.annotation, "__metadata__", ())), None)
        if maker is None:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
        else:
            makers[parameter.name] = takes_flags(maker)
            parameters += inspect.signature(makers[parameter.name]).parameters.values()

    @functools.wraps(function)
    def with_flags(**flags: Any) -> T:
        for name, maker in makers.items():
            flags[name] = maker(**{flag: flags.pop(flag) for flag in inspect.signature(maker).parameters})
        return function(**flags)

    with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_flags


def json_flags(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> Terminal:
    return Terminal(as_json=as_json)


def print_flags(
    *,
    terminal: Annotated[Terminal, json_flags],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no remarks.")] = False,
) -> Terminal:
    return dataclasses.replace(terminal, quiet=quiet)


def verbose_flags(
    *,
    terminal: Annotated[Terminal, print_flags],
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", callback=log_to_stderr, help="Log each part and epoch.")
    ] = False,
) -> Terminal:
    return dataclasses.replace(terminal, verbose=verbose)


def read_flags(
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Data set format of SOURCE (see `mgc manifest --list`).",
            show_default="detected",
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Base folder of audio paths.", show_default="folder of SOURCE")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Table: id or path, with any of genres, artist, song, language, split."),
    ] = None,
    genres_from_folders: Annotated[
        bool, typer.Option("--genres-from-folders", help="Use the first folder name as the genre.")
    ] = False,
    genre_level: Annotated[
        GenreLevel | None,
        typer.Option(
            help="FMA genre hierarchy: own genres, with all ancestors, or top level.",
            show_default="all",
        ),
    ] = None,
    genre_delimiter: GenreDelimiter = None,
    artist_delimiter: Annotated[str | None, typer.Option(help="Separator of artists in a cell.")] = None,
    lyrics_encoding: LyricsEncoding = None,
    detect_language: Annotated[
        bool, typer.Option("--detect-language", help="Detect missing languages from the lyrics.")
    ] = False,
    merge_genres: MergeGenres = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Ignore the tags of audio files.")] = False,
) -> SourceOptions:
    flags = locals()
    return SourceOptions(tags=not flags.pop("no_tags"), **flags)


def source_flags(
    options: Annotated[SourceOptions, read_flags],
    language: Annotated[list[str] | None, typer.Option(help="Keep tracks in this language; repeatable.")] = None,
    min_labels: Annotated[int, typer.Option(min=0, help="Keep tracks with at least this many genres.")] = 0,
    require_lyrics: Annotated[bool, typer.Option("--require-lyrics", help="Keep tracks with lyrics.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Keep the first N tracks.")] = None,
) -> SourceOptions:
    return dataclasses.replace(
        options, languages=tuple(language or ()), min_labels=min_labels, require_lyrics=require_lyrics, limit=limit
    )


def feature_flags(
    features: Annotated[str, typer.Option(help="Features, separated by commas.")] = "mel,lyrics,genres",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Worker processes; 0 uses the main process.",
            show_default="one per core; 0 for under 20 s of work",
        ),
    ] = None,
    part_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Tracks per part.", show_default="128; 16 below 2048 tracks; at most 256 MiB"),
    ] = None,
    audio_backend: Annotated[
        Literal["fast", "librosa"], typer.Option(help="Decoder and mel; librosa is the slow reference.")
    ] = "fast",
    clip_s: Annotated[float, typer.Option(min=0.1, help="Clip length in seconds.")] = 30.0,
    offset: Annotated[
        Literal["start", "middle"], typer.Option(help="Position of the clip in a longer file.")
    ] = "middle",
    text_model: TextModel = None,
    text_precision: Annotated[
        Literal["auto", "fp32", "bf16", "int8"],
        typer.Option(help="Precision of the text encoder; auto: bf16 where native; int8: less exact."),
    ] = "auto",
    text_backend: Annotated[
        Literal["auto", "torch", "openvino"], typer.Option(help="Library of the text encoder; auto: torch.")
    ] = "auto",
    text_max_tokens: Annotated[
        int | None,
        typer.Option(
            min=16, max=2**15, help="Maximum length of lyrics in tokens.", show_default="512, or the model's limit"
        ),
    ] = None,
    text_device: TextDevice = "cpu",
) -> ExtractOptions:
    return ExtractOptions(**locals() | {"features": tuple(split_names(features))})


def cluster_flags(
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Address of a running Dask scheduler, such as tls://head:8786."),
    ] = None,
    scheduler_file: Annotated[Path | None, typer.Option(help="File with the scheduler's address.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="PEM file with the cluster's certificate authority.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file with the client certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with the client key.")] = None,
    insecure_network: Annotated[
        bool, typer.Option("--insecure-network", help="Allow an unencrypted scheduler on another machine.")
    ] = False,
) -> Scheduler | None:
    if scheduler is None and scheduler_file is None:
        return None
    tls = {"tls_ca": tls_ca, "tls_cert": tls_cert, "tls_key": tls_key}
    return Scheduler(address=scheduler, file=scheduler_file, insecure_network=insecure_network, **tls)


def content_flags(
    options: Annotated[ExtractOptions, feature_flags],
    genre_names: GenreNames = None,
    add: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Add feature set NAME: of extractor NAME, --text-model or --audio-model.",
            autocompletion=complete_extractor,
        ),
    ] = None,
    audio_model: AudioModel = None,
    audio_layers: Annotated[
        str, typer.Option(metavar="LAYERS", help="Layers to store: last, all, or numbers such as 4,8.")
    ] = "last",
    audio_pooling: Annotated[
        Literal["mean", "frames"], typer.Option(help="Store the mean over time, or all frames.")
    ] = "mean",
    audio_precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Precision of the audio encoder.")] = "fp32",
    audio_device: AudioDevice = "cpu",
    append: Annotated[bool, typer.Option("--append", help="Add new tracks of SOURCE to the store.")] = False,
) -> ExtractOptions:
    flags = dict(locals())
    del flags["options"]
    return dataclasses.replace(options, **flags)


def extract_flags(
    options: Annotated[ExtractOptions, content_flags],
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry failed tracks; with --add, those that failed in NAME.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Build every N-th part from the I-th, for job arrays.")
    ] = None,
    *,
    scheduler: Annotated[Scheduler | None, cluster_flags],
) -> ExtractOptions:
    flags = locals() | {"shard": parse_shard(shard)}
    del flags["options"]
    return dataclasses.replace(options, **flags)


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Parse ``3/8`` as (3, 8)."""
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise ConfigError(f"--shard {text!r}: not I/N with I from 1 to N. Give a value such as 3/8.")
    return int(i), int(n)
