"""Read a range of a file as if it were a file of its own."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO


class FileRange(io.RawIOBase):
    """The bytes ``[first, stop)`` of a file; up to its end without `stop`."""

    def __init__(self, path: Path, first: int, stop: int | None) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._first = first
        stop = os.fstat(self._file.fileno()).st_size if stop is None else stop
        self._n_bytes = max(0, stop - first)  # the file may have been truncated meanwhile
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._n_bytes}[whence]
        if position < 0:
            raise OSError(22, "seek before the start")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._n_bytes - self._position)]
        self._file.seek(self._first + self._position)
        n_read = self._file.readinto(view) or 0
        self._position += n_read
        return n_read

    def close(self) -> None:
        self._file.close()
        super().close()


def open_range(path: Path, first: int, stop: int | None) -> BinaryIO:
    """Open the bytes ``[first, stop)`` of the file at `path`."""
    return path.open("rb") if not first and stop is None else io.BufferedReader(FileRange(path, first, stop))
