"""What the commands that look after a store print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache.messages import counted
from .console import command, print_table, some


def print_info(info: Mapping[str, Any]) -> None:
    print(f"{info['store']}: mgc feature store, format {info['format_version']}, {info['bytes'] / 2**20:.1f} MiB")
    print(f"planned {info['planned']} = ok {info['ok']} + failed {info['failed']} + pending {info['pending']}")
    print_table(
        "arrays", ("name", "dims", "shape", "dtype", "unit"), [list(array.values()) for array in info["arrays"]]
    )
    if info["added"]:
        print_table("features that joined", ("name", "made by", "ok", "failed", "pending"),
                    [list(one.values()) for one in info["added"]])  # fmt: skip
    parts = {name: part for name, part in info["recipe"].items() if name != "genre_names"}
    print_table("recipe", ("parameter", "value"), [(f"{f}.{k}", v) for f, p in parts.items() for k, v in p.items()])
    aloud = {name: text for name, text in info["recipe"].get("genre_names", {}).items() if name in info["genres"]}
    if aloud:
        print_table("genres read aloud as", ("genre", "text"), aloud.items())
    print_table("genres", ("genre", "tracks"), info["genres"].items())


def print_damages(damages: Sequence[Mapping[str, Any]], store: Path, advice: str) -> None:
    if not damages:
        print(f"{store}: as recorded")
        return
    rows = [(one["key"], one["kind"], one["part"], one["array"], some(one["tracks"]), one["detail"]) for one in damages]
    print_table("damage", ("object", "kind", "part", "array", "tracks", "detail"), rows)
    print(advice)


def mend(store: Path) -> str:
    if store.is_file():
        return "a sealed store cannot be mended: restore the file from a copy"
    return f"mend it, {_from_source(store)}"


def dropped_feature(found: Mapping[str, Any]) -> str:
    if not found["dry_run"]:
        return f"{found['store']}: the features {found['feature']} are taken out; others can join by that name"
    return (f"{found['store']}: the features {found['feature']} ({found['made_by']}) would be taken out; "
            f"{counted(found['ok'], 'track')} have them, {found['bytes'] / 2**20:.1f} MiB; "
            "nothing was changed")  # fmt: skip


def print_repair(done: Mapping[str, Any], store: Path, *, with_source: bool) -> None:
    built = counted(done["parts_built"], "part")
    if done["damages"]:
        print(f"{counted(len(done['damages']), 'damage')} found, {len(done['left'])} left, {built} made again")
    elif done["parts_built"]:
        print(f"{store}: as recorded; {built} made that {'was' if done['parts_built'] == 1 else 'were'} pending")
    else:
        print(f"{store}: as recorded, nothing to mend")
    if done["left"]:
        restore = "this source does not give them back: restore them from a copy of the store"
        print_damages(done["left"], store, restore if with_source else f"{mend(store)}\nor restore them from a copy")
        return
    if done["pending"]:
        print(f"{counted(done['pending'], 'track')} pending")
    for name, pending in done["pending_added"].items():
        print(f"{counted(pending, 'track')} of the features {name} pending")
    for name, why in done["not_built"].items():
        print(f"the features {name} cannot be made: {why}")
    if not (done["pending"] or done["pending_added"] or done["not_built"]):
        return
    if not with_source:
        print(f"make them, {_from_source(store)}")
    elif done["not_built"]:
        print("once that is mended, run this command again")
    else:
        print("not all of their tracks are in this source: run this again with the one that has them")


def _from_source(store: Path) -> str:
    return f"SOURCE being what it was extracted from: {command('store', 'repair', store, '--source', 'SOURCE')}"
