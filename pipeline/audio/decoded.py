"""Common parts of the decoders: byte range, window, result, downmix, limits."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ...cache.errors import ClipError
from ...cache.format.schema import Flag, Reason
from .containers import Caps

Float32 = npt.NDArray[np.float32]

FULL_SCALE = np.float32(1 - 2.0**-15)
"""The largest sample of a 16-bit file, 32767/32768: at or above it, a sample counts as clipped."""

MPEG_SLACK = 4 * 1152
"""Samples that decoders may trim from an MPEG stream: encoder delay, end padding, a first frame without history."""

_STRETCH_FRAMES = 1 << 15  # 256 KiB of stereo


@dataclass(frozen=True, kw_only=True)
class Window:
    """Source frames to decode, ``[first, stop)``; the clip begins at `start`; `first` lets filters settle."""

    first: int
    start: int
    stop: int


PlaceClip = Callable[[int, int], Window]
"""``plan(rate_hz, length) -> Window``: where in audio of `length` frames the clip lies."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded window.

    Attributes
    ----------
    mono : (n,) float32, the mean of the channels, from ``window.first`` on.
    length : decodable frames in the whole file, whatever its header declares.
    mixer : properties of the samples in the window.
    share : decoded over declared length, where the container declares one.
    whole : no samples were missing.
    by_libsndfile : libsndfile, given the path of the file, reads the same.
    """

    mono: Float32
    window: Window
    length: int
    rate_hz: int
    channels: int
    mixer: Mixer
    gaps: bool = False
    share: float | None = None
    whole: bool = True
    by_libsndfile: bool = True


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """Position of a clip in its file, and its flags.

    Attributes
    ----------
    offset_s : start of the clip in the file, in seconds.
    seconds : decodable length of the audio in the whole file, whatever its header declares.
    sample_rate_hz, channels : of the source.
    """

    offset_s: float
    seconds: float
    sample_rate_hz: int
    channels: int
    flags: Flag


def check_caps(rate_hz: int, channels: int, length: int, caps: Caps) -> None:
    """Raise ``TOO_LARGE`` for more channels, samples per second, or seconds than the limits allow."""
    if channels > caps.max_channels:
        raise ClipError(Reason.TOO_LARGE, f"{channels} channels; the limit is {caps.max_channels}")
    if rate_hz > caps.max_rate_hz:
        raise ClipError(Reason.TOO_LARGE, f"{rate_hz} samples per second; the limit is {caps.max_rate_hz}")
    if length > caps.max_seconds * rate_hz:
        raise ClipError(Reason.TOO_LARGE, f"{length / rate_hz:.0f} s of audio; the limit is {caps.max_seconds:.0f} s")


class Mixer:
    """Mix blocks of channels down to mono, and record properties that the mix hides."""

    def __init__(self) -> None:
        self._over = 0
        self._values = 0
        self.finite = True

    @property
    def clipped_share(self) -> float:
        return self._over / self._values if self._values else 0.0

    def add(self, other: Mixer) -> None:
        """Merge the properties of another mixer."""
        self._over += other._over
        self._values += other._values
        self.finite = self.finite and other.finite

    def mix(self, block: Float32) -> Float32:
        """Mix (n, channels) down to (n,): the mean of the channels, ``0.5 * (L + R)`` for two.

        Works in blocks, so that every pass except the first finds its samples in the CPU cache. Columns are added one
        by one, as NumPy's ``mean`` over the short axis of interleaved samples takes twenty times as long.
        """
        mono = np.empty(len(block), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # such samples are refused as NONFINITE, not warned about
            for first in range(0, len(block), _STRETCH_FRAMES):
                stretch = slice(first, first + _STRETCH_FRAMES)
                self._note(block[stretch])
                _mean(block[stretch], mono[stretch])
        return mono

    def _note(self, stretch: Float32) -> None:
        low, high = float(stretch.min()), float(stretch.max())
        self.finite = self.finite and bool(np.isfinite(low) and np.isfinite(high))
        self._values += stretch.size
        if high >= FULL_SCALE or low <= -FULL_SCALE:
            self._over += int(np.count_nonzero(np.abs(stretch) >= FULL_SCALE))


def _mean(stretch: Float32, mean: Float32) -> None:
    """(n, channels) -> (n,), written to `mean`."""
    n_channels = stretch.shape[1]
    if n_channels == 1:
        mean[:] = stretch[:, 0]
        return
    np.add(stretch[:, 0], stretch[:, 1], out=mean)
    for channel in range(2, n_channels):
        mean += stretch[:, channel]
    mean /= np.float32(n_channels)


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
        if not view:
            return 0  # also far beyond the end, where no file can be sought
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
