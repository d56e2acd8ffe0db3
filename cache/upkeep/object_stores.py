"""Verify stores in object stores, and copy stores from, to and between object stores and local folders."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..format.documents import is_record_key
from ..places import ObjectPath
from ..reading.mirror import Mirror
from ..steps import Progress, silent
from .verify import Damage, verify


def verify_remote(url: ObjectPath, *, full: bool = False, on_progress: Progress = silent) -> list[Damage]:
    """Compare a store in an object store with its records, as :func:`verify` does; nothing is written there.

    Parameters
    ----------
    full : download every object, one part at a time.
    """
    mirror = Mirror.open(url)
    mirror.fetch(key for key in mirror.listing if is_record_key(key) or key.endswith("zarr.json"))

    @contextmanager
    def content(keys: Collection[str]) -> Iterator[None]:
        objects = [key for key in keys if not is_record_key(key)]
        mirror.fetch(objects)
        try:
            yield
        finally:
            mirror.release(objects)

    with mirror.errors():
        damages = verify(mirror.folder, full=full, content=content, on_progress=on_progress)
    return [replace(damage, detail=damage.detail.replace(str(mirror.folder), str(url))) for damage in damages]
