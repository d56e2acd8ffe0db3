"""Print the results of `mgc store`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.messages import counted, join_names, size
from ..cache.places import ObjectPath
from .console import Listing, command, print_list, print_table, to_stdout

if TYPE_CHECKING:
    from ..api.stores import FeatureRemoval, RepairReport
    from ..cache.upkeep.failures import Failures
    from ..cache.upkeep.info import StoreInfo
    from ..cache.upkeep.verify import Damage


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
        return "Repair a local copy, then copy it again with `mgc store copy`; or extract to a new URL."
    if store.is_file():
        return "A sealed store cannot be repaired. Restore the file from a copy."
    return f"Repair the store from its source: {from_source(store)}"


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
        to_stdout(f"Extract them from the source: {from_source(store)}")
    elif report.not_built:
        to_stdout("Fix this, then repeat the command.")
    else:
        to_stdout("This source lacks some of the tracks. Repeat the command with the source that has them.")


def from_source(store: Path) -> str:
    return command("store", "repair", store, "--source", "SOURCE")
