"""`mgc store`: inspect and maintain a feature store."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..cache.errors import ConfigError
from ..cache.messages import counted, size
from ..cache.places import place
from ..cache.steps import within
from ..pipeline.sources.options import SourceOptions
from . import api
from .console import Listing, Terminal, command, to_stdout
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
from .store_output import print_damages, print_failures, print_info, print_removal, print_repair, repair_advice

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


def track_flags(
    genre: Annotated[list[str] | None, typer.Option(help="Select tracks of this genre; repeatable.")] = None,
    artist: Annotated[list[str] | None, typer.Option(help="Select tracks by this artist; repeatable.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="Select tracks in this language; repeatable.")] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Select tracks of this split (train, validation, test); repeatable.")
    ] = None,
) -> dict[str, Any]:
    return locals()


def name_flags(
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
    selection: Annotated[dict[str, Any], track_flags],
    names: Annotated[dict[str, Any], name_flags],
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
        result = api.store_select(store, output, **selection, **names, on_progress=steps)
    terminal.remark(result.remarks)
    text = f"{output}: {result.tracks} of {counted(result.of, 'track')} with features"
    terminal.emit(result.to_dict(), lambda: to_stdout(text))


@store_command
def store_merge(
    *,
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE...", help="Stores to merge: paths or URLs.", parser=place, show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Store to write; a sealed HDF5 file if it ends with .h5.", show_default=False
        ),
    ],
    prefix: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="First folder of ids and paths; give one per store.", show_default="none"),
    ] = None,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Merge stores with the same recipe into a new store, bit for bit, and verify it.

    Failed tracks are left out.

    Examples:
      mgc store merge north.zarr south.zarr -o all.zarr
      mgc store merge a.zarr b.zarr --prefix north --prefix south -o all.zarr
    """
    with terminal.progress() as steps:
        result = api.store_merge(stores, output, prefixes=prefix or (), on_progress=steps)
    terminal.remark(result.remarks)
    text = f"{output}: {counted(result.tracks, 'track')} of {len(result.merged)} stores"
    terminal.emit(result.to_dict(), lambda: to_stdout(text))


@store_command
def store_export(
    *,
    store: StoreArgument,
    to: Annotated[
        Literal["npy", "parquet", "lhotse", "webdataset"],
        typer.Option("--to", help="Format to write.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)],
    feature: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Export this array; repeatable.", show_default="all arrays"),
    ] = None,
    selection: Annotated[dict[str, Any], track_flags],
    licence: Annotated[
        str | None, typer.Option(metavar="NAME", help="Licence for the data set card, such as cc-by-4.0.")
    ] = None,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """Export features and labels in a format of other tools.

    Repeat the command to continue an interrupted export.
    Failed tracks are left out.

    Examples:
      mgc store export songs.zarr --to npy -o songs-npy --feature lyrics_pooled
      mgc store export songs.zarr --to parquet -o songs-parquet --split test
      mgc store export songs.zarr --to lhotse -o songs-lhotse
    """
    with terminal.progress() as steps:
        result = api.store_export(store, output, to, **selection, features=feature, licence=licence, on_progress=steps)
    terminal.remark(result.remarks)
    text = (
        f"{output}: {counted(result.tracks, 'track')}, {counted(result.files, 'file')} ({size(result.bytes)}), "
        f"{result.written} written"
    )
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
