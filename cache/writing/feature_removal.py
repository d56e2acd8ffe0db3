"""Removal of an added feature set: its name, arrays and dimensions become free again.

One rename decides, ``features/<name>.json`` to ``features/<name>.dropped``: from then on no plan holds the feature set.
Any process that may write then removes its content, repeatedly if need be; the marker goes last.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from ..claims import lock
from ..durable import fsync_dir, names_in
from ..errors import ConfigError
from ..format.plan import FEATURES, RESERVED, added_names, feature_set_key, read_plan, unfinished_drops
from ..format.records import COMMITS, ROWS, part_folder
from ..format.schema import array_name
from .creation import update_metadata
from .publish import refuse_busy, remove_empty_staging, sweep


def drop_feature(store: Path, name: str) -> None:
    """Remove the added feature set `name`; if this is killed, the next reader or writer completes it.

    Readers that have the store open keep what they have mapped, and are refused the rest.

    Raises
    ------
    ConfigError
        If there is no such feature set, an extraction is running on the store, or another process is removing the same.
    """
    if name not in unfinished_drops(store):
        added = added_names(store)
        if name not in added:
            raise ConfigError(
                f"{store}: no features {name!r} joined it, but {', '.join(added) or 'none at all'}; what a store was "
                "made with stays"
            )
        refuse_busy(store)
        with contextlib.suppress(FileNotFoundError):  # another process has decided the same
            (store / feature_set_key(name, 0)).replace(_marker(store, name))
        fsync_dir(store / FEATURES)
    finish_drops(store)
    refuse_running_drops(store)


def refuse_running_drops(store: Path) -> None:
    """Refuse work that must not run while another process removes features.

    Raises
    ------
    ConfigError
    """
    for name in unfinished_drops(store):
        with lock(_marker(store, name)) as locked:
            if not locked and name in unfinished_drops(store):
                raise ConfigError(
                    f"{store}: another process is removing the features {name!r}; wait for it, or stop it"
                )


def finish_drops(store: Path) -> None:
    """Complete the removal of feature sets that is decided; do nothing if that is done, or another process is at it."""
    for name in unfinished_drops(store):
        # One process removes: a second one, late, would remove a feature set that was added by the same name since.
        with lock(_marker(store, name)) as locked:
            if locked:
                _remove(store, name)


def _remove(store: Path, name: str) -> None:
    if not (store / feature_set_key(name, 0)).exists():  # else the record was restored from a copy
        for key in (f"{part_folder(COMMITS, name)}/*.json", f"{FEATURES}/{name}.json", f"{FEATURES}/{name}.*.json"):
            sweep(store, key)
        update_metadata(store)
        remove_empty_staging(store)
        arrays = _arrays(name) - {key.partition("/")[0] for key in read_plan(store).metadata}
        for folder in (part_folder(COMMITS, name), part_folder(ROWS, name), *arrays):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(store / folder)
        for record in names_in(store / FEATURES, f"{name}.*.json"):
            (store / FEATURES / record).unlink(missing_ok=True)
        for folder in (COMMITS, ROWS, "."):
            fsync_dir(store / folder)
    _marker(store, name).unlink(missing_ok=True)
    fsync_dir(store / FEATURES)


def _arrays(name: str) -> set[str]:
    """Return all arrays that a feature set of that name can have; the record that lists them may be damaged."""
    kinds = ("status", "genre_embedding", "lyrics", "lyrics_tokens", "lyrics_tokens_full", "lyrics_pooled")
    return {name, *(array_name(kind, name) for kind in kinds)} - RESERVED


def _marker(store: Path, name: str) -> Path:
    return store / FEATURES / f"{name}.dropped"
