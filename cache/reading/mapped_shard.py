"""Memory-map one shard file of a Zarr v3 array and read it through its shard index.

The inner codecs must be ``bytes, crc32c``, so that an inner chunk is its plain little-endian values and a checksum of
four bytes (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/). The checksum of the index is
checked when the file is mapped, that of a chunk when it is first read.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from ..durable import open_regular
from ..errors import StoreCorruptError
from ..format.schema import ArraySpec

NO_CHUNK = 2**64 - 1
"""Offset in a shard index of a chunk that has no bytes: all its values are fill."""
CHECKSUM_BYTES = 4


class MappedShard:
    """Shard of one part of an array. A missing file reads as fill; :class:`ZarrReader` checks if it may be missing.

    Raises
    ------
    StoreCorruptError
        If the file is too short, or its index or a chunk does not match its checksum.
    """

    def __init__(self, path: Path, spec: ArraySpec, part_rows: int) -> None:
        self._path = path
        self._spec = spec
        self._chunk_shape = spec.inner[1:]
        self._dtype = np.dtype(spec.dtype)
        self._n_bytes = math.prod(self._chunk_shape) * self._dtype.itemsize
        self._map: mmap.mmap | None = None
        self._offsets: list[list[int]] = []
        with contextlib.suppress(FileNotFoundError):
            self._map = _map_file(path)
            n_tail = index_bytes(spec, part_rows)
            tail = np.frombuffer(self._map, np.uint8, offset=max(len(self._map) - n_tail, 0))
            index = read_index(path, tail, len(self._map), spec, part_rows)
            del tail  # a view would keep the map open
            # Lists, as indexing NumPy arrays one number at a time would add 10 % to the 100 us of reading a clip.
            self._offsets = index[..., 0].tolist()
            self._checked = [[False] * index.shape[1] for _ in range(part_rows)]

    def fetch(self, row: int, length: int) -> None:
        """Request the chunks for :meth:`read_into` from the disk without waiting; skip chunks that were read before."""
        if self._map is None:
            return
        for k in range(-(-length // self._chunk_shape[0])):
            offset = self._offsets[row][k]
            if not self._checked[row][k] and offset != NO_CHUNK:
                start = offset // mmap.PAGESIZE * mmap.PAGESIZE
                self._map.madvise(mmap.MADV_WILLNEED, start, offset + self._n_bytes + CHECKSUM_BYTES - start)

    def read_into(self, out: npt.NDArray[Any], row: int) -> None:
        """Fill `out` with the first ``len(out)`` values of a row of the part, along the first dimension."""
        if self._map is None:
            out[...] = self._spec.fill
            return
        step = self._chunk_shape[0]
        for k in range(-(-len(out) // step)):
            target = out[k * step : (k + 1) * step]
            offset = self._offsets[row][k]
            if offset == NO_CHUNK:
                target[...] = self._spec.fill
                continue
            if not self._checked[row][k]:
                self._check(self._map, row, k, offset)
            chunk: npt.NDArray[Any] = np.ndarray(self._chunk_shape, self._dtype, self._map, offset)
            target[...] = chunk[: len(target)]

    def close(self) -> None:
        """Close the file."""
        if self._map is not None:
            with contextlib.suppress(BufferError):  # a NumPy view still uses the map; it is closed with the view
                self._map.close()
            self._map = None

    def _check(self, data: mmap.mmap, row: int, k: int, offset: int) -> None:
        check_chunk(self._path, np.frombuffer(data, np.uint8, self._n_bytes + CHECKSUM_BYTES, offset), self._spec, row)
        self._checked[row][k] = True


def chunk_bytes(spec: ArraySpec) -> int:
    """Return the size of an inner chunk of an array in a shard, with its checksum."""
    return math.prod(spec.inner[1:]) * np.dtype(spec.dtype).itemsize + CHECKSUM_BYTES


def index_bytes(spec: ArraySpec, part_rows: int) -> int:
    """Return the size of the index at the end of a shard of an array, with its checksum."""
    return 8 * math.prod(_index_shape(spec, part_rows)) + CHECKSUM_BYTES


def read_index(
    path: Path, tail: npt.NDArray[np.uint8], n_shard: int, spec: ArraySpec, part_rows: int
) -> npt.NDArray[np.uint64]:
    """Return the shard index, (part_rows, chunk, 2): offset and size of each inner chunk.

    Parameters
    ----------
    path : of the shard, for messages.
    tail : last :func:`index_bytes` bytes of the shard.
    n_shard : size of the shard in bytes.

    Raises
    ------
    StoreCorruptError
        If the shard is too short, or the index is damaged or does not fit the array.
    """
    n_tail = index_bytes(spec, part_rows)
    start = n_shard - n_tail
    if start < 0 or len(tail) != n_tail or not _matches(tail):
        raise StoreCorruptError(f"{path}: the shard index is damaged. Run `mgc store repair`.")
    index = tail[:-CHECKSUM_BYTES].copy().view("<u8").reshape(_index_shape(spec, part_rows))
    present = index[..., 0] != NO_CHUNK
    offsets, sizes = index[..., 0][present], index[..., 1][present]
    wrong_size = (sizes != chunk_bytes(spec)).any()
    if wrong_size or (offsets > np.uint64(start)).any() or (offsets + sizes > np.uint64(start)).any():
        raise StoreCorruptError(f"{path}: the shard index does not fit the array {spec.name}. Run `mgc store repair`.")
    return index


def check_chunk(path: Path, chunk: npt.NDArray[np.uint8], spec: ArraySpec, row: int) -> None:
    """Compare an inner chunk with the checksum at its end.

    Raises
    ------
    StoreCorruptError
    """
    if not _matches(chunk):
        raise StoreCorruptError(
            f"{path}: {spec.name} of row {row} of the part does not match its checksum. "
            "Run `mgc store repair`, or restore the file from a copy."
        )


def _index_shape(spec: ArraySpec, part_rows: int) -> tuple[int, int, int]:
    return part_rows, -(-spec.tail[0] // spec.inner[1]), 2


def max_mapped_files() -> int:
    """Return the maximum number of mapped shards; before Python 3.13 each map keeps a file descriptor open."""
    if sys.version_info >= (3, 13):
        return 30_000  # of the 65 530 maps per process that Linux allows
    import resource

    return max(16, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))


def _map_file(path: Path) -> mmap.mmap:
    with open_regular(path) as file:
        try:
            if sys.version_info >= (3, 13):
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, trackfd=False)
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise StoreCorruptError(f"{path}: the file is empty. Run `mgc store repair`.") from error


def _matches(data: npt.NDArray[np.uint8]) -> bool:
    return int(google_crc32c.value(data[:-CHECKSUM_BYTES])) == int(data[-CHECKSUM_BYTES:].view("<u4")[0])
