"""Options that several commands share."""

from __future__ import annotations

import contextlib
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..cache.errors import ConfigError
from ..cache.messages import did_you_mean
from .console import log_to_stderr

TEXT_MODELS = ("bert-base-uncased", "minilm")
BUILT_IN_EXTRACTORS = ("pooled_mel",)


def complete_text_model(incomplete: str) -> list[str]:
    """What the shell offers for --text-model: the names that are known, and folders."""
    head, slash, begun = incomplete.rpartition("/")
    found = [name for name in TEXT_MODELS if name.startswith(incomplete)]
    with contextlib.suppress(OSError):
        inside = sorted(one.name for one in Path(f"{head}{slash}" or ".").iterdir() if one.is_dir())
        hidden = begun.startswith(".")
        found += [f"{head}{slash}{name}/" for name in inside
                  if name.startswith(begun) and name.startswith(".") == hidden]  # fmt: skip
    return found


def complete_extractor(incomplete: str) -> list[str]:
    """What the shell offers for --add: extractors that are installed, by their packages' word: none is imported."""
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
            hint = did_you_mean(str(key).replace("_", "-"), sorted(options))
            raise ConfigError(f"--config {path}: unknown key {key!r}; {hint}")
    ctx.default_map = {str(options[str(key).replace("_", "-")]): value for key, value in values.items()}
    return path


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=lambda wanted: log_to_stderr(wanted), help="Tell each part and epoch."),
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
        help="bert-base-uncased, minilm, or a folder with a BERT-like model.",
        show_default="bert-base-uncased",
        autocompletion=complete_text_model,
    ),
]
TextPrecision = Annotated[
    Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 where this CPU computes in it.")
]
TextDevice = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the text encoder runs.")]


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """``3/8`` as (3, 8)."""
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise ConfigError(f"--shard {text!r}: want I/N with I from 1 to N, such as 3/8")
    return int(i), int(n)
