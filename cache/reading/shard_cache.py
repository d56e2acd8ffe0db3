"""A bounded local cache of whole shards, by their sha256, for stores in object stores.

Several processes may share it: a file appears by one rename, and its name is the hash of its content.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from pathlib import Path

from ..errors import ConfigError
from ..messages import size as bytes_text

FOLDER, SIZE = "MGC_CACHE_DIR", "MGC_CACHE_GB"
"""Environment variables: folder of the cache, and its largest size in GB (10^9 bytes)."""

DEFAULT_GB = 20.0


class ShardCache:
    """Files of shards, at most `limit` bytes of them.

    Attributes
    ----------
    folder : where they are; created by the first :meth:`add`.
    limit : the smaller of :data:`SIZE` and half of the free space when it was opened.

    Raises
    ------
    ConfigError
        If :data:`SIZE` is not a number.
    """

    def __init__(self) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.folder = Path(os.environ.get(FOLDER) or Path(home, "mgc")) / "shards"
        text = os.environ.get(SIZE, str(DEFAULT_GB))
        try:
            limit = int(float(text) * 1e9)
        except (ValueError, OverflowError):
            limit = -1
        if limit < 0:
            raise ConfigError(f"{SIZE}={text!r}: not a size in GB. Use a number, or 0 for no cache.")
        existing = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.is_dir())
        self.limit = min(limit, shutil.disk_usage(existing).free // 2 + self._used())
        self._in_use: set[str] = set()

    @property
    def note(self) -> str:
        """Return a sentence on folder and size."""
        return (
            f"downloaded shards are kept in {self.folder}, at most {bytes_text(self.limit)} (change: {FOLDER}, {SIZE})"
        )

    def find(self, sha256: str, size: int) -> Path | None:
        """Return the file of a shard, or None; a file of another size is removed."""
        path = self.folder / sha256
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == size:
                os.utime(path)  # the oldest file is removed first
                self._in_use.add(sha256)
                return path
            path.unlink()
        return None

    def has_room(self, size: int) -> bool:
        """Return whether a shard of `size` bytes fits next to those that this process uses; remove others for it."""
        files = self._files()
        used = sum(entry_size for _, entry_size, _ in files)
        for _, entry_size, path in sorted(files):
            if used + size <= self.limit:
                break
            if path.name not in self._in_use:
                path.unlink(missing_ok=True)
                used -= entry_size
        return used + size <= self.limit

    def add(self, data: bytes, sha256: str) -> Path | None:
        """Write a shard, and return its file; None if the data do not have this sha256."""
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".{uuid.uuid4().hex}.partial"
        try:
            draft.write_bytes(data)
            draft.replace(self.folder / sha256)
        finally:
            draft.unlink(missing_ok=True)
        self._in_use.add(sha256)
        return self.folder / sha256

    def remove(self, sha256: str) -> None:
        """Remove a shard that is damaged."""
        (self.folder / sha256).unlink(missing_ok=True)

    def _files(self) -> list[tuple[float, int, Path]]:
        files = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    facts = entry.stat()
                    files.append((facts.st_mtime, facts.st_size, Path(entry.path)))
        return files

    def _used(self) -> int:
        return sum(size for _, size, _ in self._files())
