"""Remove an added feature set, so that its name, arrays and dimensions can be used again.

A rename of ``features/<name>.json`` to ``features/<name>.dropped`` decides: from then on no plan has the feature set.
Any process with write access may then delete its content; it deletes the marker last.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from ..claims import lock
from ..durable import fsync_dir, names_in
from ..errors import ConfigError
from ..format.plan import FEATURES, RESERVED, added_names, feature_set_key, read_plan, unfinished_removals
from ..format.records import COMMITS, ROWS, part_folder
from ..format.schema import array_name, length_name
from .creation import update_metadata
from .publish import refuse_busy, remove_empty_staging, sweep


def remove_feature_set(store: Path, name: str) -> None:
    """Remove the added feature set `name`; after a kill, the next reader or writer completes the removal.

    An open reader keeps the shards that it has mapped; other reads raise StoreCorruptError.

    Raises
    ------
    ConfigError
        If there is no such feature set, an extraction is running, or another process is removing the same feature set.
    """
    if name not in unfinished_removals(store):
        added = added_names(store)
        if name not in added:
            raise ConfigError(
                f"no added feature set {name!r}: {store} (added: {', '.join(added) or 'none'}). "
                "The features that a store was created with cannot be removed."
            )
        refuse_busy(store)
        with contextlib.suppress(FileNotFoundError):  # another process has decided the same
            (store / feature_set_key(name, 0)).replace(_marker(store, name))
        fsync_dir(store / FEATURES)
    finish_removals(store)
    refuse_running_removals(store)


def refuse_running_removals(store: Path) -> None:
    """Raise ConfigError if another process is removing a feature set."""
    for name in unfinished_removals(store):
        with lock(_marker(store, name)) as locked:
            if not locked and name in unfinished_removals(store):
                raise ConfigError(
                    f"another process is removing the feature set {name!r}: {store}. Wait for it, or stop it."
                )


def finish_removals(store: Path) -> None:
    """Complete every interrupted removal of a feature set, except where another process is running it."""
    for name in unfinished_removals(store):
        # Without the lock, a second process could delete a new feature set that was added with the same name.
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
    """Return the names of all possible arrays of a feature set, as the record that lists its arrays may be damaged."""
    kinds = ("status", "genre_embedding", "lyrics", "lyrics_tokens", "lyrics_tokens_full", "lyrics_pooled")
    return {name, length_name(name), *(array_name(kind, name) for kind in kinds)} - RESERVED


def _marker(store: Path, name: str) -> Path:
    return store / FEATURES / f"{name}.dropped"
