"""`mgc store`: look into a feature store, and look after it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..cache.errors import ConfigError
from ..cache.messages import counted, join_names
from ..cache.steps import within
from ..pipeline.sources.options import SourceOptions
from . import api
from .console import Listing, Terminal, command, print_list, print_table, to_stdout
from .options import (
    GenreNames,
    StoreArgument,
    TextDevice,
    TextModel,
    complete_text_model,
    json_flags,
    print_flags,
    read_flags,
    takes_flags,
)

if TYPE_CHECKING:
    from ..api.stores import FeatureRemoval, RepairReport
    from ..cache.upkeep.failures import Failures
    from ..cache.upkeep.info import StoreInfo
    from ..cache.upkeep.verify import Damage

store_app = typer.Typer(no_args_is_help=True, help="Inspect and maintain a feature store.")


def store_command(function: Callable[..., None]) -> Callable[..., None]:
    """Make the function ``store_NAME`` the command `mgc store NAME`."""
    store_app.command(function.__name__.removeprefix("store_"))(takes_flags(function))
    return function


@store_command
def store_info(
    *,
    store: StoreArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Print progress until all parts are extracted.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 5.0,
    terminal: Annotated[Terminal, json_flags],
) -> None:
    """Show the contents of a store: tracks, arrays, genres, recipe. With --watch, show the progress of its extractions.

    Examples: [b]mgc store info songs.zarr[/b], [b]mgc store info m4a.zarr --watch[/b]
    """
    if watch:
        _watch(store, every, terminal)
        return
    from ..cache.upkeep.info import describe_store

    info = describe_store(store)
    terminal.emit(info.to_dict(), lambda: print_info(info))


def _watch(store: Path, every_s: float, terminal: Terminal) -> None:
    from ..cache.upkeep.info import watch

    with terminal.progress() as steps:
        last_line = ""
        for now in watch(store, every_s=every_s):
            rate = "" if now.tracks_per_s is None else f", {now.tracks_per_s:g} tracks/s"
            note = f"{now.failed} failed, {counted(now.working, 'part')} at work{rate}"
            if terminal.as_json:
                print(json.dumps(now.to_dict()), flush=True)
            elif sys.stderr.isatty():
                steps("extract", now.ok + now.failed, now.planned, note)
            elif (line := f"{now.ok + now.failed} of {counted(now.planned, 'track')}, {note}") != last_line:
                print(line, flush=True)
                last_line = line
    if not terminal.as_json:
        to_stdout(f"{store}: complete, {counted(now.parts, 'part')}: ok {now.ok}, failed {now.failed}")


@store_command
def store_failures(
    *,
    store: StoreArgument,
    feature: Annotated[
        str | None, typer.Option(help="List tracks that lack this added feature set (--add), and why.")
    ] = None,
    listing: Annotated[Listing, typer.Option("--format", help="Form of the list.")] = Listing.TABLE,
    terminal: Annotated[Terminal, json_flags],
) -> None:
    """The tracks that failed, each with its reason; and what that leaves of each genre and split.

    Example: [b]mgc store failures songs.zarr --format csv > failed.csv[/b]
    """
    from ..cache.upkeep.failures import failures

    report = failures(store, feature)
    terminal.emit(report.to_dict(), lambda: print_failures(report, listing))


@store_command
def store_verify(
    *,
    store: StoreArgument,
    full: Annotated[bool, typer.Option("--full", help="Read every byte: hashes, decoding, finiteness.")] = False,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Compare a store with its records; exits with 4 where something is damaged.

    Example: [b]mgc store verify songs.zarr --full[/b]
    """
    with terminal.progress() as steps:
        damages = api.store_verify(store, full=full, on_progress=steps)
    document = {"store": str(store), "full": full, "damages": [damage.to_dict() for damage in damages]}
    terminal.emit(document, lambda: print_damages(damages, store, repair_advice(store)))
    if damages:
        raise typer.Exit(4)


@store_command
def store_repair(
    *,
    store: StoreArgument,
    source: Annotated[Path | None, typer.Option(help="Source of the store: extracts damaged parts again.")] = None,
    options: Annotated[SourceOptions, read_flags],
    text_model: TextModel = None,
    text_device: TextDevice = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0 runs in this one.")] = 0,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Verify in full, move damaged parts to quarantine/, rewrite metadata; with --source extract the parts again.

    Example: [b]mgc store repair songs.zarr --source music4all/[/b]
    """
    with terminal.progress() as steps:
        read = None if source is None else api.read_source(source, options, on_progress=steps).source
        report = api.store_repair(
            store, read, text_model=text_model, text_device=text_device, workers=workers, on_progress=steps
        )
    terminal.emit(report.to_dict(), lambda: print_repair(report, store, with_source=read is not None))
    if report.left:
        raise typer.Exit(4)


@store_command
def store_convert(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="A store in either form.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="TO", help="The other form: to make.", show_default=False)],
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Make the sealed HDF5 form of a Zarr store, or the Zarr form of a sealed one; the two are compared.

    Examples: [b]mgc store convert songs.zarr songs.h5[/b], [b]mgc store convert songs.h5 songs.zarr[/b]
    """
    from ..cache.upkeep.hdf5_writer import convert

    with terminal.progress() as steps:
        convert(source, target, on_progress=within(steps, step="convert"))
    terminal.emit({"store": str(target), "made_from": str(source)}, lambda: to_stdout(f"{target}: equal to {source}"))


def selection_flags(
    genre: Annotated[list[str] | None, typer.Option(help="Tracks of this genre; several times: of any.")] = None,
    artist: Annotated[list[str] | None, typer.Option(help="Tracks by this artist; several times: by any.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="Tracks in this language; several times: in any.")] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Tracks of the source's train, validation or test split; several: of any.")
    ] = None,
    genre_names: GenreNames = None,
    text_model: Annotated[
        str | None,
        typer.Option(
            help="Path of the store's own text encoder, for --genre-names.",
            show_default="by its name",
            autocompletion=complete_text_model,
        ),
    ] = None,
    text_device: TextDevice = "cpu",
) -> dict[str, Any]:
    return locals()


@store_command
def store_select(
    *,
    store: StoreArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The smaller store; .h5 makes the sealed form.", show_default=False)
    ],
    selection: Annotated[dict[str, Any], selection_flags],
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Write a smaller store: the tracks that have features and all that is asked for, bit for bit. Failed ones stay.

    With --genre-names the genres are embedded again, by other names; all else is copied.

    Examples: [b]mgc store select m4a.zarr --split test -o test.h5[/b],
    [b]mgc store select m4a.zarr --genre jazz --genre soul --language en -o some.zarr[/b],
    [b]mgc store select m4a.zarr --genre-names common -o named.zarr[/b]
    """
    with terminal.progress() as steps:
        result = api.store_select(store, output, **selection, on_progress=steps)
    terminal.remark(result.remarks)
    text = f"{output}: {result.tracks} of the {result.of} tracks that have features"
    terminal.emit(result.to_dict(), lambda: to_stdout(text))


@store_command
def store_drop(
    *,
    store: StoreArgument,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Tracks to take down.", show_default=False)
    ] = None,
    feature: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Delete this added feature set (--add), bytes included."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted; change nothing.")] = False,
    terminal: Annotated[Terminal, json_flags],
) -> None:
    """Take tracks down: hidden at once and for good; `mgc store compact` then removes their bytes. Or, with --feature,
    delete an added feature set at once, bytes included; its name can then be used again.

    Examples: [b]mgc store drop songs.zarr 0A1b2C3d4E5f6G7h[/b], [b]mgc store drop songs.zarr --feature loudness[/b]
    """
    if bool(ids) == (feature is not None):
        raise ConfigError("name the tracks to take down, or features with --feature NAME, and not both")
    if feature is not None:
        removal = api.store_drop_feature(store, feature, dry_run=dry_run)
        terminal.emit(removal.to_dict(), lambda: print_removal(removal))
        return
    new = api.store_drop(store, ids or (), dry_run=dry_run)
    advice = "nothing was changed" if dry_run else f"their bytes go with: {command('store', 'compact', store)}"
    terminal.emit(
        {"store": str(store), "dropped": new, "dry_run": dry_run},
        lambda: to_stdout(f"{counted(len(new), 'track')} {'would be ' if dry_run else ''}taken down; {advice}"),
    )


@store_command
def store_compact(store: StoreArgument, terminal: Annotated[Terminal, print_flags]) -> None:
    """Make parts anew without the tracks taken down, and empty quarantine/. Run no extraction meanwhile.

    Example: [b]mgc store compact songs.zarr[/b]
    """
    with terminal.progress() as steps:
        parts = api.store_compact(store, on_progress=steps)
    terminal.emit({"store": str(store), "parts": parts}, lambda: to_stdout(f"{counted(parts, 'part')} made anew"))


def print_info(info: StoreInfo) -> None:
    to_stdout(f"{info.store}: mgc feature store, format {info.format_version}, {info.bytes / 2**20:.1f} MiB")
    to_stdout(f"planned {info.planned} = ok {info.ok} + failed {info.failed} + pending {info.pending}")
    print_table("arrays", ("name", "dims", "shape", "dtype", "unit"), map(astuple, info.arrays))
    if info.added:
        columns = ("name", "made by", "ok", "failed", "pending")
        print_table("features that joined", columns, map(astuple, info.added))
    recipe = info.recipe.to_dict()
    prompts = {name: text for name, text in recipe.pop("genre_names", {}).items() if name in info.genres}
    parameters = [(f"{part}.{key}", value) for part, values in recipe.items() for key, value in values.items()]
    print_table("recipe", ("parameter", "value"), parameters)
    if prompts:
        print_table("genre name prompts", ("genre", "text"), prompts.items())
    print_table("genres", ("genre", "tracks"), info.genres.items())


def print_failures(report: Failures, listing: Listing) -> None:
    rows = report.to_dict()["failures"]
    print_list(rows, ("id", "path", "reason", "detail", "attempts"), listing, empty="no track failed")
    if listing is Listing.TABLE and rows:
        for name, coverage in report.coverage.items():
            cells = [(row.name, row.planned, row.ok, f"{row.share:.1%}") for row in coverage if row.ok < row.planned]
            if cells:
                print_table(f"{name}s that lost tracks", (name, "planned", "ok", "share"), cells)


def print_damages(damages: Sequence[Damage], store: Path, advice: str) -> None:
    if not damages:
        to_stdout(f"{store}: as recorded")
        return
    rows = [(item.key, item.kind, item.part, item.array, join_names(item.tracks, 3), item.detail) for item in damages]
    print_table("damage", ("object", "kind", "part", "array", "tracks", "detail"), rows)
    to_stdout(advice)


def repair_advice(store: Path) -> str:
    if store.is_file():
        return "a sealed store cannot be mended: restore the file from a copy"
    return f"mend it, {_from_source(store)}"


def print_removal(removal: FeatureRemoval) -> None:
    features = f"{removal.store}: the features {removal.feature}"
    if removal.info is None or removal.bytes is None:
        to_stdout(f"{features} are taken out; others can join by that name")
        return
    to_stdout(
        f"{features} ({removal.info.made_by}) would be taken out; {counted(removal.info.ok, 'track')} have them, "
        f"{removal.bytes / 2**20:.1f} MiB; nothing was changed"
    )


def print_repair(report: RepairReport, store: Path, *, with_source: bool) -> None:
    built = counted(report.parts_built, "part")
    if report.damages:
        to_stdout(f"{counted(len(report.damages), 'damage')} found, {len(report.left)} left, {built} made again")
    elif report.parts_built:
        to_stdout(f"{store}: as recorded; {built} made that {'was' if report.parts_built == 1 else 'were'} pending")
    else:
        to_stdout(f"{store}: as recorded, nothing to mend")
    if report.left:
        restore = "this source does not give them back: restore them from a copy of the store"
        advice = f"{repair_advice(store)}\nor restore them from a copy"
        print_damages(report.left, store, restore if with_source else advice)
        return
    if report.pending:
        to_stdout(f"{counted(report.pending, 'track')} pending")
    for name, pending in report.pending_added.items():
        to_stdout(f"{counted(pending, 'track')} of the features {name} pending")
    for name, reason in report.not_built.items():
        to_stdout(f"the features {name} cannot be made: {reason}")
    if not (report.pending or report.pending_added or report.not_built):
        return
    if not with_source:
        to_stdout(f"make them, {_from_source(store)}")
    elif report.not_built:
        to_stdout("once that is mended, run this command again")
    else:
        to_stdout("not all of their tracks are in this source: run this again with the one that has them")


def _from_source(store: Path) -> str:
    return f"SOURCE being what it was extracted from: {command('store', 'repair', store, '--source', 'SOURCE')}"
