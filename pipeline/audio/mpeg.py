"""Walking the frames of an MPEG audio stream (MP3, MP2, MP1) without decoding it.

Nothing but the frames themselves says how long such a stream is: a Xing or VBRI header may lie, and without one
decoders guess from the first frame's bit rate (libsndfile then stops early in a variable stream that begins loud). The
walk counts the frames, and the places where the chain of frames is broken.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from functools import lru_cache

_KBPS = {  # (MPEG-1, layer) -> kbit/s by the header's index 1 to 14
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44_100, 48_000, 32_000)
_SYNC = re.compile(rb"\xff[\xe2-\xff]")
_TAG_NAMES = (b"Xing", b"Info", b"VBRI")
_FREE_FORMAT_MAX_BYTES = 8192
Bytes = bytes | mmap.mmap
_CHAIN = 3  # headers in a row that make a stream, where the first one may be chance


@dataclass(frozen=True)
class Header:
    """One frame header. `n_bytes` is 0 in a free-format stream, whose frames do not tell their size."""

    stream: int
    n_bytes: int
    n_samples: int
    rate_hz: int


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What the frames add up to: samples a channel, before any trimming of encoder delay; breaks in the chain."""

    samples: int
    rate_hz: int
    breaks: int


def find_stream(data: Bytes, first: int, reach: int) -> int | None:
    """Offset of the first frame of an MPEG stream that starts within `reach` bytes of `first`, if any does.

    A chain of three headers counts, as does a shorter one that fills the data exactly to the end. A free-format stream
    is taken only at `first` itself: its headers are too easily met by chance.
    """
    head = data[first : first + reach]
    for match in _SYNC.finditer(head):
        at = first + match.start()
        header = _header(data[at : at + 4])
        if header is None:
            continue
        if _is_chain(data, at) if header.n_bytes else at == first and _free_format_repeats(data, at):
            return at
    return None


def walk(data: Bytes, first: int) -> Walk | None:
    """Count the frames from `first` on; None where frames do not tell their size (free format)."""
    header = _header(data[first : first + 4])
    if header is None or not header.n_bytes:
        return None
    stream, rate_hz = header.stream, header.rate_hz
    samples, breaks, position, end = 0, 0, first, len(data)
    if any(name in data[first : first + 44] for name in _TAG_NAMES):
        position += header.n_bytes
    while position < end:
        header = _header(data[position : position + 4])
        if header is not None and header.stream == stream and header.n_bytes:
            position += header.n_bytes
            samples += header.n_samples if position <= end else 0
            continue
        resumed = _resume(data, position, stream)
        if resumed is None:
            break
        breaks += data[position : position + 3] != b"ID3"  # files joined end to end keep their tags
        position = resumed
    return Walk(samples=samples, rate_hz=rate_hz, breaks=breaks)


def _is_chain(data: Bytes, first: int) -> bool:
    header = _header(data[first : first + 4])
    if header is None or not header.n_bytes:
        return False
    position = first
    for _ in range(_CHAIN - 1):
        position += header.n_bytes
        if position >= len(data):
            return first == 0 or position == len(data)
        following = _header(data[position : position + 4])
        if following is None or following.stream != header.stream or not following.n_bytes:
            return False
        header = following
    return True


def _free_format_repeats(data: Bytes, first: int) -> bool:
    """A free-format frame is as long as the distance to the next header like it, give or take the padding byte."""
    sync = data[first : first + 2]
    distance = data.find(sync, first + 24, first + _FREE_FORMAT_MAX_BYTES) - first
    third = first + 2 * distance
    return distance > 0 and any(data[at : at + 2] == sync for at in (third - 1, third, third + 1))


def _resume(data: Bytes, lost: int, stream: int) -> int | None:
    """Where the same stream goes on after a break, three headers in a row."""
    position = data.find(b"\xff", lost + 1)
    while position >= 0:
        header = _header(data[position : position + 4])
        if header is not None and header.stream == stream and _is_chain(data, position):
            return position
        position = data.find(b"\xff", position + 1)
    return None


@lru_cache(maxsize=8192)
def _header(head: bytes) -> Header | None:
    """What four bytes say, if they begin a frame; a stream has few different ones."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    second, third = head[1], head[2]
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)  # version: 0 is MPEG 2.5, 2 is MPEG-2, 3 is MPEG-1
    index, rate = third >> 4, third >> 2 & 3
    if version == 1 or layer == 4 or index == 15 or rate == 3:
        return None
    mpeg1 = version == 3
    rate_hz = _RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    n_samples = 384 if layer == 1 else 1152 if layer == 2 or mpeg1 else 576
    stream = (second & 0x1E) << 8 | third & 0x0C
    if index == 0:
        return Header(stream, 0, n_samples, rate_hz)
    slot = 4 if layer == 1 else 1
    kbps = _KBPS[mpeg1, layer][index - 1]
    n_slots = n_samples // 8 // slot * kbps * 1000 // rate_hz + (third >> 1 & 1)
    return Header(stream, n_slots * slot, n_samples, rate_hz)
