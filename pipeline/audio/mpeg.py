"""Walk the frames of an MPEG audio stream (MP3, MP2, MP1, and AAC in ADTS) without decoding.

Only the frames themselves give the length of such a stream. A Xing or VBRI header may be wrong. Without one,
decoders guess from the first frame's bit rate (libsndfile then stops early in a variable stream that begins loud). The
walk counts the frames and the breaks between them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from .tags import Bytes, after_tags, before_tags, is_much

_KBPS = {  # (MPEG-1, layer) -> kbit/s by the header's index 1 to 14
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44_100, 48_000, 32_000)
_AAC_RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_SYNC = re.compile(rb"\xff[\xe2-\xff]")
_TAG_NAMES = (b"Xing", b"Info", b"VBRI")
_FREE_FORMAT_MAX_BYTES = 8192
_CHAIN = 3  # headers in a row that make a stream, where the first one may be chance
_ADTS_SECOND = (b"\xf0", b"\xf1", b"\xf8", b"\xf9")


@dataclass(frozen=True)
class Header:
    """One frame header. `n_bytes` is 0 in a free-format stream, whose frames do not state their size.

    `stream` is the same in all frames of a stream.
    """

    stream: int
    n_bytes: int
    n_samples: int
    rate_hz: int


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Totals of the frames: samples per channel, before any trimming of encoder delay, and breaks between frames.

    `stop` is where a stream of another layer or rate begins, None where this one is the last.
    """

    samples: int
    rate_hz: int
    breaks: int
    stop: int | None = None


def find_stream(data: Bytes, first: int, stop: int, chain: int = _CHAIN) -> int | None:
    """Return the offset of the first frame of an MPEG stream that starts in ``[first, stop)``, if any does.

    A chain of `chain` headers is a stream, as is a shorter one that ends exactly at the end of the data. A free-format
    stream is accepted only at `first` itself, as its headers occur too easily by chance.
    """
    for match in _SYNC.finditer(data, first, stop):
        at = match.start()
        header = _header_at(data, at)
        if header is None:
            continue
        if (
            _is_chain(data, at, chain, may_end=chain == _CHAIN)
            if header.n_bytes
            else at == first and _free_format_repeats(data, at)
        ):
            return at
    return None


def is_adts(data: Bytes, first: int) -> bool:
    """Return whether the frame at `first` is one of AAC."""
    return data[first + 1] & 0xF6 == 0xF0


def walk(data: Bytes, first: int) -> Walk | None:
    """Count the frames from `first` on; None if frames do not declare their size (free format)."""
    header = _header_at(data, first)
    if header is None or not header.n_bytes:
        return None
    stream, rate_hz = header.stream, header.rate_hz
    samples, breaks, position, end = 0, 0, first, before_tags(data, len(data))
    if any(name in data[first : first + 44] for name in _TAG_NAMES):
        position += header.n_bytes
    while position < end:
        header = _header_at(data, position)
        if header is not None and header.stream == stream and header.n_bytes:
            position += header.n_bytes
            samples += header.n_samples if position <= end else 0
            continue
        resumed, behind_tags = _resume(data, position, stream), after_tags(data, position)
        if resumed is None or resumed >= end:
            breaks += is_much(end - behind_tags, end - first)
            break
        breaks += behind_tags == position < resumed  # concatenated files keep their tags
        position = resumed
        following = _header_at(data, resumed)
        if following is not None and following.stream != stream:
            return Walk(samples=samples, rate_hz=rate_hz, breaks=breaks, stop=resumed)
    return Walk(samples=samples, rate_hz=rate_hz, breaks=breaks)


def _is_chain(data: Bytes, first: int, n_headers: int = _CHAIN, *, may_end: bool = True) -> bool:
    """Return whether headers of one stream follow one another; with `may_end`, fewer do if the data end with them."""
    header = _header_at(data, first)
    if header is None or not header.n_bytes:
        return False
    position = first
    for _ in range(n_headers - 1):
        position += header.n_bytes
        if position >= len(data):
            return may_end and (first == 0 or position == len(data))
        following = _header_at(data, position)
        if following is None or following.stream != header.stream or not following.n_bytes:
            return False
        header = following
    return True


def _free_format_repeats(data: Bytes, first: int) -> bool:
    """Return the size of a free-format frame: the distance to the next similar header, without the padding byte."""
    sync = data[first : first + 2]
    distance = data.find(sync, first + 24, first + _FREE_FORMAT_MAX_BYTES) - first
    third = first + 2 * distance
    return distance > 0 and any(data[at : at + 2] == sync for at in (third - 1, third, third + 1))


def _resume(data: Bytes, lost: int, stream: int) -> int | None:
    """Return where frames continue after a break, by three headers in a row, of the same stream or of another."""
    position = data.find(b"\xff", lost)
    while position >= 0:
        header = _header_at(data, position)
        if header is not None and _is_chain(data, position, may_end=header.stream == stream):
            return position
        position = data.find(b"\xff", position + 1)
    return None


def _header_at(data: Bytes, position: int) -> Header | None:
    head = data[position : position + 4]
    return _adts_header(data[position : position + 7]) if head[1:2] in _ADTS_SECOND else _header(head)


def _adts_header(head: bytes) -> Header | None:
    rate = head[2] >> 2 & 15 if len(head) == 7 else 15
    n_bytes = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 if len(head) == 7 else 0
    if head[0] != 0xFF or rate >= len(_AAC_RATES_HZ) or n_bytes <= 7:
        return None
    stream = 1 << 16 | (head[2] & 0xFD) << 8 | head[3] & 0xC0  # profile, rate and channels, but no private bit
    return Header(stream, n_bytes, 1024 * ((head[6] & 3) + 1), _AAC_RATES_HZ[rate])


@lru_cache(maxsize=8192)
def _header(head: bytes) -> Header | None:
    """Parse a frame header of four bytes; cached, as a stream has few different ones."""
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
