"""A file for the HDF5 library to write through, which ends the process if its own writes fail while it closes."""

from __future__ import annotations

import io
from pathlib import Path


class SurvivingFile(io.FileIO):
    """A new file whose first failed write is kept for :meth:`raise_fault`; from then on nothing reaches the disk.

    HDF5 frees objects that are still dirty after a failed write, and crashes. It is told that every write worked; who
    uses this file asks now and then, and at the end, whether that was true.
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
        """Write all of `data`, or keep it in memory once a write has failed."""
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
        """Read back, what never reached the disk included."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        start = self.tell()
        n_read = super().readinto(view)
        for place, data in self._unwritten.items():
            first, last = max(place, start), min(place + len(data), start + len(view))
            if first < last:
                view[first - start : last - start] = data[first - place : last - place]
                n_read = max(n_read, last - start)
        self.seek(start + n_read)
        return n_read

    def truncate(self, size: int | None = None, /) -> int:
        """Set the size, unless the disk is known to be at fault."""
        if self._fault is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self._fault = error
        return self.tell() if size is None else size
