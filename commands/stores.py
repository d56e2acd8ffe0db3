"""`mgc store`: inspect and maintain a feature store."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..cache.errors import ConfigError
from ..cache.messages import counted, join_names, size
from ..cache.places import ObjectPath, place
from ..cache.steps import within
from ..pipeline.sources.options import SourceOptions
from . import api
from .console import Listing, Terminal, command, print_list, print_table, to_stdout
from .options import (
    AudioDevice,
    AudioModel,
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
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between updates of --watch.")] = 5.0,
    terminal: Annotated[Terminal, json_flags],
) -> None:
    """Show the tracks, arrays, genres and recipe of a store, or the progress of its extraction.

    Examples:
      mgc store info songs.zarr
      mgc store info m4a.zarr --watch
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
            note = f"{now.failed} failed, {counted(now.working, 'part')} in progress{rate}"
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
    feature: Annotated[str | None, typer.Option(help="List the failures of this added feature set (--add).")] = None,
    listing: Annotated[Listing, typer.Option("--format", help="Format of the list.")] = Listing.TABLE,
    terminal: Annotated[Terminal, json_flags],
) -> None:
    """List failed tracks with reason codes, and the share of ok tracks per genre and split.

    Example:
      mgc store failures songs.zarr --format csv > failed.csv
    """
    from ..cache.upkeep.failures import failures

    report = failures(store, feature)
    terminal.emit(report.to_dict(), lambda: print_failures(report, listing))


@store_command
def store_verify(
    *,
    store: StoreArgument,
    full: Annotated[bool, typer.Option("--full", help="Read every byte: hashes, decoding, finite values.")] = False,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Compare a store with its commit records; exit code 4 reports damage.

    Example:
      mgc store verify songs.zarr --full
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
    source: Annotated[Path | None, typer.Option(help="Source of the store, to extract damaged parts again.")] = None,
    options: Annotated[SourceOptions, read_flags],
    text_model: TextModel = None,
    text_device: TextDevice = "cpu",
    audio_model: AudioModel = None,
    audio_device: AudioDevice = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0 uses the main process.")] = 0,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Verify a store in full, move damaged parts to quarantine/ and rewrite damaged metadata.

    With --source, the parts are extracted again.

    Example:
      mgc store repair songs.zarr --source music4all/
    """
    with terminal.progress() as steps:
        read = None if source is None else api.read_source(source, options, on_progress=steps).source
        report = api.store_repair(
            store,
            read,
            text_model=text_model,
            text_device=text_device,
            audio_model=audio_model,
            audio_device=audio_device,
            workers=workers,
            on_progress=steps,
        )
    terminal.emit(report.to_dict(), lambda: print_repair(report, store, with_source=read is not None))
    if report.left:
        raise typer.Exit(4)


@store_command
def store_convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="FROM", help="Store to read: Zarr or HDF5.", parser=place, show_default=False),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="TO", help="Store to write, in the other format.", parser=place, show_default=False),
    ],
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Convert a Zarr store to a sealed HDF5 file, or back, and compare the two.

    Examples:
      mgc store convert songs.zarr songs.h5
      mgc store convert songs.h5 songs.zarr
    """
    from ..cache.upkeep.hdf5_writer import convert

    with terminal.progress() as steps:
        convert(source, target, on_progress=within(steps, step="convert"))
    terminal.emit({"store": str(target), "made_from": str(source)}, lambda: to_stdout(f"{target}: equal to {source}"))


@store_command
def store_copy(
    source: Annotated[
        Path,
        typer.Argument(metavar="FROM", help="Zarr store to copy: path or URL.", parser=place, show_default=False),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="TO", help="Path or URL of the copy.", parser=place, show_default=False)
    ],
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Copy a Zarr store between local folders and object stores, and compare all hashes.

    Repeat the command to continue an interrupted copy or to update an old one.

    Examples:
      mgc store copy songs.zarr s3://bucket/songs.zarr
      mgc store copy s3://bucket/songs.zarr songs.zarr
    """
    with terminal.progress() as steps:
        result = api.store_copy(source, target, on_progress=steps)
    terminal.remark(result.remarks)
    text = f"{target}: {counted(result.objects, 'file')} written ({size(result.bytes)}), {result.skipped} already there"
    terminal.emit(result.to_dict(), lambda: to_stdout(text))


def selection_flags(
    genre: Annotated[list[str] | None, typer.Option(help="Select tracks of this genre; repeatable.")] = None,
    artist: Annotated[list[str] | None, typer.Option(help="Select tracks by this artist; repeatable.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="Select tracks in this language; repeatable.")] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Select tracks of this split (train, validation, test); repeatable.")
    ] = None,
    genre_names: GenreNames = None,
    text_model: Annotated[
        str | None,
        typer.Option(
            help="Path of the store's text encoder, for --genre-names.",
            show_default="found by name",
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
        Path,
        typer.Option(
            "--output", "-o", help="Store to write; a sealed HDF5 file if it ends with .h5.", show_default=False
        ),
    ],
    selection: Annotated[dict[str, Any], selection_flags],
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Copy selected tracks into a new store, bit for bit.

    Failed tracks are left out.
    --genre-names computes new genre embeddings from other prompts.

    Examples:
      mgc store select m4a.zarr --split test -o test.h5
      mgc store select m4a.zarr --genre jazz --genre soul -o some.zarr
      mgc store select m4a.zarr --genre-names common -o named.zarr
    """
    with terminal.progress() as steps:
        result = api.store_select(store, output, **selection, on_progress=steps)
    terminal.remark(result.remarks)
    text = f"{output}: {result.tracks} of {counted(result.of, 'track')} with features"
    terminal.emit(result.to_dict(), lambda: to_stdout(text))


@store_command
def store_drop(
    *,
    store: StoreArgument,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of tracks to take down.", show_default=False)
    ] = None,
    feature: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Added feature set (--add) to delete."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the effect; change nothing.")] = False,
    terminal: Annotated[Terminal, json_flags],
) -> None:
    """Take tracks down permanently, or delete an added feature set.

    Tracks are hidden at once; [b]mgc store compact[/b] deletes their bytes.
    --feature deletes an added feature set with its bytes.

    Examples:
      mgc store drop songs.zarr 0A1b2C3d4E5f6G7h
      mgc store drop songs.zarr --feature loudness
    """
    if bool(ids) == (feature is not None):
        raise ConfigError("give either the ids of tracks to take down, or an added feature set with --feature NAME")
    if feature is not None:
        removal = api.store_drop_feature(store, feature, dry_run=dry_run)
        terminal.emit(removal.to_dict(), lambda: print_removal(removal))
        return
    new = api.store_drop(store, ids or (), dry_run=dry_run)
    advice = "nothing was changed" if dry_run else f"delete their bytes with: {command('store', 'compact', store)}"
    terminal.emit(
        {"store": str(store), "dropped": new, "dry_run": dry_run},
        lambda: to_stdout(f"{counted(len(new), 'track')} {'would be ' if dry_run else ''}taken down; {advice}"),
    )


@store_command
def store_compact(store: StoreArgument, terminal: Annotated[Terminal, print_flags]) -> None:
    """Rewrite parts without their taken-down tracks, and empty quarantine/.

    Do not run an extraction at the same time.

    Example:
      mgc store compact songs.zarr
    """
    with terminal.progress() as steps:
        parts = api.store_compact(store, on_progress=steps)
    terminal.emit({"store": str(store), "parts": parts}, lambda: to_stdout(f"{counted(parts, 'part')} rewritten"))


def print_info(info: StoreInfo) -> None:
    to_stdout(f"{info.store}: mgc feature store, format {info.format_version}, {size(info.bytes)}")
    to_stdout(f"planned {info.planned} = ok {info.ok} + failed {info.failed} + pending {info.pending}")
    arrays = [
        (array.name, ", ".join(array.dims), " x ".join(map(str, array.shape)), array.dtype, array.unit)
        for array in info.arrays
    ]
    print_table("arrays", ("name", "dims", "shape", "dtype", "unit"), arrays)
    if info.added:
        columns = ("name", "made by", "ok", "failed", "pending")
        print_table("added feature sets", columns, map(astuple, info.added))
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
                print_table(f"{name}s with failed tracks", (name, "planned", "ok", "share"), cells)


def print_damages(damages: Sequence[Damage], store: Path, advice: str) -> None:
    if not damages:
        to_stdout(f"{store}: no damage found")
        return
    rows = [(item.key, item.kind, item.part, item.array, join_names(item.tracks, 3), item.detail) for item in damages]
    print_table("damage", ("object", "kind", "part", "array", "tracks", "detail"), rows)
    to_stdout(advice)


def repair_advice(store: Path) -> str:
    if isinstance(store, ObjectPath):
        return "Repair the local store, then copy it again with `mgc store copy`."
    if store.is_file():
        return "A sealed store cannot be repaired. Restore the file from a copy."
    return f"Repair the store from its source: {_from_source(store)}"


def print_removal(removal: FeatureRemoval) -> None:
    feature_set = f"{removal.store}: feature set {removal.feature}"
    if removal.info is None or removal.bytes is None:
        to_stdout(f"{feature_set} deleted. Its name can be used again.")
        return
    to_stdout(
        f"{feature_set} ({removal.info.made_by}) of {counted(removal.info.ok, 'track')}, {size(removal.bytes)}, "
        "would be deleted. Nothing was changed."
    )


def print_repair(report: RepairReport, store: Path, *, with_source: bool) -> None:
    built = counted(report.parts_built, "part")
    if report.damages:
        found = counted(len(report.damages), "difference")
        to_stdout(f"{found} from the commit records found, {len(report.left)} left, {built} extracted again")
    elif report.parts_built:
        to_stdout(f"{store}: no damage found; {counted(report.parts_built, 'pending part')} extracted")
    else:
        to_stdout(f"{store}: no damage found, nothing to repair")
    if report.left:
        restore = "This source cannot restore them. Restore them from a copy of the store."
        advice = f"{repair_advice(store)}\nor restore them from a copy."
        print_damages(report.left, store, restore if with_source else advice)
        return
    if report.pending:
        to_stdout(f"{counted(report.pending, 'track')} pending")
    for name, pending in report.pending_added.items():
        to_stdout(f"{counted(pending, 'track')} pending in feature set {name}")
    for name, reason in report.not_built.items():
        to_stdout(f"feature set {name} cannot be extracted: {reason}")
    if not (report.pending or report.pending_added or report.not_built):
        return
    if not with_source:
        to_stdout(f"Extract them from the source: {_from_source(store)}")
    elif report.not_built:
        to_stdout("Fix this, then repeat the command.")
    else:
        to_stdout("This source lacks some of the tracks. Repeat the command with the source that has them.")


def _from_source(store: Path) -> str:
    return command("store", "repair", store, "--source", "SOURCE")
