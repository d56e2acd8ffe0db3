"""What is hurt is put aside.

Repairing has two halves. Here, a damaged part is moved into ``quarantine/`` and so is pending again; metadata that the
plan determines is written anew. Extraction (:mod:`mgc.pipeline.extraction.repair`) then makes again what is pending.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from ..durable import fingerprint, fsync_dir, replace_file, seal
from ..format import layout
from ..format.plan import PLAN_FILE
from ..format.records import QUARANTINE, commit_key, keys_of_part, quarantine_folder
from ..writing.publish import STAGING, refuse_busy, sweep
from .salvage import SalvagedPlan
from .verify import Damage


def put_aside(store: Path, damages: Iterable[Damage]) -> list[Damage]:
    """Quarantine hurt parts and foreign objects; write plan, generation records and Zarr metadata anew where they are
    determined by what is whole.

    Returns
    -------
    list of Damage
        What is left: it needs the source (tables of the plan, genre embeddings) or a copy.
    """
    refuse_busy(store)
    salvaged = SalvagedPlan(store)
    left = []
    parts: set[tuple[int, str]] = set()
    for damage in damages:
        if damage.part is not None:
            parts.add((damage.part, damage.feature_set or ""))
        elif damage.kind == "foreign":
            _move(store, damage.key, f"{QUARANTINE}/foreign/{damage.key}")
        elif not _rewritten(store, salvaged, damage):
            left.append(damage)
    for part, feature_set in sorted(parts):
        _quarantine(store, salvaged, part, feature_set or None)
    return left


def _rewritten(store: Path, salvaged: SalvagedPlan, damage: Damage) -> bool:
    """Write anew what the rest of the store determines; False where it does not."""
    plan = salvaged.plan
    if damage.key == PLAN_FILE:
        if plan.generations[0].record["plan"] != fingerprint(dict(plan.document)):
            return False
        replace_file(store / damage.key, seal(dict(plan.document)))
    elif damage.key.startswith("generations/"):
        number = int(damage.key.partition("/")[2].removesuffix(".json"))
        replace_file(store / damage.key, seal(dict(plan.generations[number].record)))
    elif damage.key.startswith("features/"):
        name, _, n = damage.key.partition("/")[2].removesuffix(".json").partition(".")
        if int(n or 0) < len(plan.added[name].records):
            replace_file(store / damage.key, seal(dict(plan.added[name].records[int(n or 0)])))
        else:  # of genres that came later: nobody knows its hash, and `extract --add` embeds them again
            for key in (damage.key, *sorted(salvaged.orphans(name))):
                _move(store, key, f"{QUARANTINE}/foreign/{key}")
    elif damage.key.endswith("zarr.json"):
        layout.install_metadata(store, {damage.key: plan.metadata[damage.key]}, store / STAGING)
        sweep(store, "metadata.json")
        with contextlib.suppress(OSError):
            (store / STAGING).rmdir()
    else:
        return False
    return True


def _quarantine(store: Path, salvaged: SalvagedPlan, part: int, feature_set: str | None) -> None:
    """Take a part back: its record first, so that a kill in between leaves it pending."""
    n, _ = salvaged.records.get((feature_set or "", part), (0, None))
    folder = quarantine_folder(part, n, feature_set)
    (store / folder).mkdir(parents=True, exist_ok=True)
    fsync_dir(store / QUARANTINE)
    key = commit_key(part, n, feature_set)
    _move(store, key, f"{folder}/{key}")
    for key in sorted(keys_of_part(salvaged.plan, part, feature_set), key=lambda key: not key.startswith("status")):
        _move(store, key, f"{folder}/{key}")


def _move(store: Path, key: str, to: str) -> None:
    if not (store / key).exists():
        return
    (store / to).parent.mkdir(parents=True, exist_ok=True)
    (store / key).replace(store / to)
    fsync_dir((store / to).parent)
    fsync_dir((store / key).parent)
