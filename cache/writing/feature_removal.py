"""Taking features out of a store that they joined: their name, arrays and dimensions are free again.

One rename decides, ``features/<name>.json`` to ``features/<name>.dropped``: no plan holds them from then on. What they
left is then removed, by anyone who may write and any number of times; the marker goes last.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..durable import fsync_dir
from ..errors import ConfigError
from ..format.plan import FEATURES, RESERVED, being_dropped, feature_set_key, joined_names, read_plan
from .creation import update_metadata
from .publish import refuse_busy, remove_empty_staging, sweep


def drop_feature(store: Path, name: str) -> None:
    """Take out the features that joined a store as `name`; killed half-way, the next reader or writer ends it.

    Readers that have the store open keep what they have mapped, and are refused the rest.

    Raises
    ------
    ConfigError
        If no such features joined, or an extraction is at work on the store.
    """
    if name not in being_dropped(store):
        joined = joined_names(store)
        if name not in joined:
            raise ConfigError(
                f"{store}: no features {name!r} joined it, but {', '.join(joined) or 'none at all'}; what a store was "
                "made with stays"
            )
        refuse_busy(store)
        (store / feature_set_key(name, 0)).replace(_marker(store, name))
        fsync_dir(store / FEATURES)
    finish_drops(store)


def finish_drops(store: Path) -> None:
    """Remove what is left of features whose taking out is decided; does nothing when done."""
    for name in being_dropped(store):
        with _held(_marker(store, name)) as held:
            if held:
                _remove(store, name)


def _remove(store: Path, name: str) -> None:
    if not (store / feature_set_key(name, 0)).exists():  # else somebody put the record back, from a copy
        for key in (f"commits/{name}/*.json", f"{FEATURES}/{name}.json", f"{FEATURES}/{name}.*.json"):
            sweep(store, key)
        update_metadata(store)
        remove_empty_staging(store)
        arrays = _arrays(name) - {key.partition("/")[0] for key in read_plan(store).metadata}
        for folder in (f"commits/{name}", f"rows/{name}", *arrays):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(store / folder)
        for record in (store / FEATURES).glob(f"{name}.*.json"):
            record.unlink(missing_ok=True)
        for folder in ("commits", "rows", "."):
            fsync_dir(store / folder)
    _marker(store, name).unlink(missing_ok=True)
    fsync_dir(store / FEATURES)


def _arrays(name: str) -> set[str]:
    """Whatever arrays features of that name can have had; the record that says which may be hurt."""
    text = (f"{kind}_{name}" for kind in ("lyrics", "lyrics_tokens", "lyrics_tokens_full", "lyrics_pooled"))
    return {name, f"status_{name}", f"genre_embedding_{name}", *text} - RESERVED


def _marker(store: Path, name: str) -> Path:
    return store / FEATURES / f"{name}.dropped"


@contextmanager
def _held(marker: Path) -> Iterator[bool]:
    """Whether this process is the one that removes: a second one, late, would take away what has joined again since."""
    import fcntl  # POSIX; reading a store needs it not

    try:
        handle = os.open(marker, os.O_RDWR)  # NFS locks exclusively only what is open for writing
    except FileNotFoundError:
        yield False
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield marker.exists() and os.path.samestat(os.fstat(handle), marker.stat())
    finally:
        os.close(handle)
