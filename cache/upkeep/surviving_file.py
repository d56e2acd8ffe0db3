"""A file for the HDF5 library to write through, which ends the process if its own writes fail while it closes."""

from __future__ import annotations

import io
from pathlib import Path


class SurvivingFile(io.FileIO):
    """A new file that keeps the first error of a write for :meth:`raise_fault`; later writes do not reach the disk.

    HDF5 frees objects that are still dirty after a failed write, and crashes. This file reports every write as
    successful; its user calls :meth:`raise_fault` regularly and at the end.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+")
        self._fault: OSError | None = None
        self._unwritten: dict[int, bytes] = {}
        self._path = path

    def raise_fault(self) -> None:
        """Raise the first error of a write, if there was one."""
        if self._fault is not None:
            raise OSError(self._fault.errno, self._fault.strerror, str(self._path)) from self._fault

    def write(self, data: object, /) -> int:
        """Write all of `data`; after a failed write, keep it in memory."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        start, done = self.tell(), 0
        while self._fault is None and done < len(view):
            try:
                done += super().write(view[done:])
            except OSError as error:
                self._fault = error
        if done < len(view):
            self._unwritten[start] = bytes(view)
            self.seek(start + len(view))
        return len(view)

    def readinto(self, buffer: object, /) -> int:
        """Read back, including data that never reached the disk."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        start = self.tell()
        n_read = super().readinto(view)
        for offset, data in self._unwritten.items():
            first, last = max(offset, start), min(offset + len(data), start + len(view))
            if first < last:
                view[first - start : last - start] = data[first - offset : last - offset]
                n_read = max(n_read, last - start)
        self.seek(start + n_read)
        return n_read

    def truncate(self, size: int | None = None, /) -> int:
        """Set the size, unless a write has failed."""
        if self._fault is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self._fault = error
        return self.tell() if size is None else size
