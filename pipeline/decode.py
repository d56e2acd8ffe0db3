"""Decoding a stretch of an audio file to mono at its own rate, by libsndfile and, where that falls short, by FFmpeg.

Both decoders end a damaged or cut file without a word, so what comes out is always compared with what the file's own
structure says (:class:`mgc.pipeline.formats.Sound`). FFmpeg is held to the one demuxer that the content calls for and
reads from an open file: it opens no other file, no playlist and no address.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from ..cache.errors import ClipError
from ..cache.format.schema import Reason
from .formats import MPEG, Caps, Sound

Float32 = npt.NDArray[np.float32]

FULL_SCALE = np.float32(1 - 2.0**-15)
"""The largest sample of a 16-bit file, 32767/32768: at or above it, a sample counts as clipped."""

MPEG_SLACK = 4 * 1152
"""Samples by which decoders may trim an MPEG stream: encoder delay, end padding, a first frame that leans on none."""

_BLOCK_VALUES = 1 << 22  # 16 MiB: a stereo clip at 48 kHz in one read
_STRETCH_FRAMES = 1 << 15  # 256 KiB of stereo


@dataclass(frozen=True, kw_only=True)
class Window:
    """Source frames to decode, ``[first, stop)``; the clip begins at `start`; `first` lets filters settle."""

    first: int
    start: int
    stop: int


Plan = Callable[[int, int], Window]
"""``plan(rate_hz, length) -> Window``: where in a sound of `length` frames the clip lies."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded window.

    Attributes
    ----------
    mono : (n,) float32, the mean of the channels, from ``window.first`` on.
    length : frames in the whole file that can be decoded, whatever its header says.
    share : decoded over declared length, where the container declares one.
    whole : nothing that should be there was missing.
    """

    mono: Float32
    window: Window
    length: int
    rate_hz: int
    channels: int
    clipped_share: float
    finite: bool
    gaps: bool = False
    share: float | None = None
    whole: bool = True
    by_libsndfile: bool = True


def decode(path: Path, sound: Sound, plan: Plan, caps: Caps) -> Decoded:
    """Decode the window that `plan` asks for, by the first decoder that gives all of it.

    Raises
    ------
    ClipError
        ``TOO_LARGE``, ``BAD_HEADER``, ``UNSUPPORTED_CODEC``, ``DECODE_ERROR``, ``NOT_AUDIO`` or ``EMPTY``.
    """
    broken = sound.walk is not None and sound.walk.breaks > 0
    first = _with_libsndfile(path, sound, plan, caps) if sound.container.libsndfile else None
    if first is not None and first.whole:
        return replace(first, gaps=broken)
    from .decode_ffmpeg import decode_with_ffmpeg

    try:
        second = decode_with_ffmpeg(path, sound, plan, caps)
    except ClipError:
        if first is None or 2 * len(first.mono) < min(first.window.stop, first.length) - first.window.first:
            raise
        return replace(first, gaps=True)
    if first is not None and len(first.mono) > len(second.mono):
        return replace(first, gaps=True)
    return replace(second, gaps=broken) if sound.walk else second  # where MPEG files are joined, FFmpeg stumbles


def check_caps(rate_hz: int, channels: int, length: int, caps: Caps) -> None:
    """Raise ``TOO_LARGE`` for more channels, samples a second, or seconds than the caps allow."""
    if channels > caps.max_channels:
        raise ClipError(Reason.TOO_LARGE, f"{channels} channels; the cap is {caps.max_channels}")
    if rate_hz > caps.max_rate_hz:
        raise ClipError(Reason.TOO_LARGE, f"{rate_hz} samples a second; the cap is {caps.max_rate_hz}")
    if length > caps.max_seconds * rate_hz:
        raise ClipError(Reason.TOO_LARGE, f"{length / rate_hz:.0f} s of sound; the cap is {caps.max_seconds:.0f} s")


class Mixer:
    """Mixes blocks of channels down to mono, and notes what a mix would hide."""

    def __init__(self) -> None:
        self._over = 0
        self._values = 0
        self.finite = True

    @property
    def clipped_share(self) -> float:
        return self._over / self._values if self._values else 0.0

    def mix(self, block: Float32) -> Float32:
        """(n, channels) -> (n,): the mean of the channels, ``0.5 * (L + R)`` for two.

        Stretch by stretch, so that each pass but the first finds its samples in the cache; and columns are added one by
        one, as NumPy's ``mean`` over the short axis of interleaved samples takes twenty times as long.
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


def _with_libsndfile(path: Path, sound: Sound, plan: Plan, caps: Caps) -> Decoded | None:
    """None where libsndfile cannot take the file, or cannot tell where it ends."""
    try:
        file = soundfile.SoundFile(os.fsencode(path))
    except soundfile.LibsndfileError:
        return None
    with file:
        rate_hz, channels = file.samplerate, file.channels
        check_caps(rate_hz, channels, 0, caps)
        length, slack = file.frames, MPEG_SLACK if sound.container is MPEG else 0
        if sound.walk and not 0 <= sound.walk.samples - length <= slack:
            length = sound.walk.samples
        if sound.walk is not None or sound.share is not None:  # lengths that were counted
            check_caps(rate_hz, channels, length, caps)
        if length == 0 or length > caps.max_seconds * rate_hz or file.frames + slack < length:
            return None  # an unknown length is 2^63 - 1; libsndfile reads no further than its own idea of the length
        window = plan(rate_hz, length)
        mixer = Mixer()
        mono, whole = _read(file, window, mixer)
        expected = min(window.stop, length) - window.first
        if sound.container is not MPEG or sound.walk is not None:  # the length of other MPEG streams is a guess
            whole = whole and len(mono) >= expected - slack
        if whole and window.first + len(mono) < window.stop:
            length = window.first + len(mono)
        elif whole and sound.container.declares_length:
            whole = _end_is_there(file)
    share = sound.share if sound.share is not None else 1.0 if sound.container.declares_length else None
    return Decoded(
        mono=mono,
        window=window,
        length=length,
        rate_hz=rate_hz,
        channels=channels,
        clipped_share=mixer.clipped_share,
        finite=mixer.finite,
        share=share,
        whole=whole,
    )


def _read(file: soundfile.SoundFile, window: Window, mixer: Mixer) -> tuple[Float32, bool]:
    """The samples of `window` that libsndfile gives, and whether it gave them without complaint."""
    block_frames = min(max(1, _BLOCK_VALUES // file.channels), window.stop)
    buffer = np.empty((block_frames, file.channels), dtype=np.float32)
    parts: list[Float32] = []
    try:
        position = 0
        if window.first and file.seekable():
            position = file.seek(window.first)
        while position < window.stop:
            bound = window.first if position < window.first else window.stop  # not seekable: read up to the start
            n_frames = min(block_frames, bound - position)
            block = file.read(n_frames, dtype="float32", always_2d=True, out=buffer[:n_frames])
            if position >= window.first:
                parts.append(mixer.mix(block))
            position += len(block)
            if len(block) < n_frames:  # the end; soundfile seeks after each read, and would lead back behind a gap
                break
    except soundfile.LibsndfileError:
        return _joined(parts), False
    return _joined(parts), True


def _end_is_there(file: soundfile.SoundFile) -> bool:
    try:
        file.seek(file.frames - 1)
        return len(file.read(1, dtype="float32")) == 1
    except soundfile.LibsndfileError:
        return False


def _joined(parts: list[Float32]) -> Float32:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
