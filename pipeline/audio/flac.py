"""Find the last frames of a FLAC file, which may continue beyond the declared length or end before the file."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass

_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_HEADER_MAX_BYTES = 16
_SEARCH_MIN_BYTES = 1 << 15
_BLOCKS = (0, 192, *(576 << i for i in range(4)), 0, 0, *(256 << i for i in range(8)))  # by code; 6 and 7: see below it


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """Content of the STREAMINFO block, and the start of the frames; zero means unknown.

    Attributes
    ----------
    start : offset of the first frame.
    max_frame_bytes : of any frame; at most the bytes of an uncompressed block, if it is not declared.
    n_samples : per channel.
    """

    start: int
    block: int
    max_frame_bytes: int
    n_samples: int


def read_stream_info(data: mmap.mmap, first: int) -> StreamInfo:
    """Read the metadata of the FLAC file at `first`."""
    start, last = first + 4, False
    while not last and start + 4 <= len(data):
        last = bool(data[start] & 0x80)
        start += 4 + _integer(data, start + 1, 3)
    shape = _integer(data, first + 18, 8)  # 20 bits of rate, 3 of channels, 5 of sample size, 36 of length
    n_channels, n_bits = (shape >> 41 & 7) + 1, (shape >> 36 & 31) + 1
    block = _integer(data, first + 10, 2)
    return StreamInfo(
        start=start,
        block=block,
        max_frame_bytes=_integer(data, first + 15, 3) or block * n_channels * (n_bits // 8 + 1) + 64,
        n_samples=shape & (1 << 36) - 1,
    )


def frames_at_end(data: mmap.mmap, info: StreamInfo, end: int) -> tuple[int, int]:
    """Return the end of the last frame before `end`, and the samples up to the last of two successive frames.

    Both are 0 if no frame is found. A header is valid if its checksum matches.
    """
    begin = max(info.start, end - max(_SEARCH_MIN_BYTES, 4 * info.max_frame_bytes))
    behind, n_samples, stops = 0, 0, set[int]()
    for match in _SYNC.finditer(data, begin, end):
        span = _frame_samples(data[match.start() : match.start() + _HEADER_MAX_BYTES], info.block)
        if span is None:
            continue
        behind = match.start() + info.max_frame_bytes
        if span[0] in stops:
            n_samples = max(n_samples, span[1])
        stops.add(span[1])
    return behind, n_samples


def _frame_samples(header: bytes, fixed_block: int) -> tuple[int, int] | None:
    """Return the first sample of a frame and the one behind it; None where the bytes are no frame header."""
    if len(header) < _HEADER_MAX_BYTES or header[3] & 1 or header[3] >> 4 > 10 or header[2] & 15 == 15:
        return None
    extra = 0
    while extra < 7 and header[4] << extra & 0x80:  # as many leading ones as bytes, like UTF-8
        extra += 1
    width = max(1, extra)
    number = header[4] & 0x7F >> extra
    for byte in header[5 : 4 + width]:
        number = number << 6 | byte & 0x3F
    position, code = 4 + width, header[2] >> 4
    block = _BLOCKS[code]
    if code in (6, 7):
        block = int.from_bytes(header[position : position + code - 5], "big") + 1
        position += code - 5
    position += {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    if not block or extra == 1 or position >= len(header) or _crc8(header[:position]) != header[position]:
        return None
    first = number if header[1] & 1 else number * fixed_block
    return first, first + block


def _crc8(header: bytes) -> int:
    remainder = 0
    for byte in header:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder << 1 ^ (0x107 if remainder & 0x80 else 0)
    return remainder


def _integer(data: mmap.mmap, position: int, width: int) -> int:
    return int.from_bytes(data[position : position + width], "big")
