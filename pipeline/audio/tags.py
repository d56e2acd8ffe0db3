"""Tags before and after the audio data."""

from __future__ import annotations

import mmap
import re

Bytes = bytes | mmap.mmap

_ID3V1_BYTES = 128
_APE_ITEM = re.compile(rb".{8}[\x20-\x7e]{2,255}\0", re.DOTALL)  # size, flags, key
_LYRICS3_MAX_BYTES = 1 << 20


def is_much(n_bytes: int, of: int) -> bool:
    """Return whether a number of bytes that are neither audio nor tags is more than programs usually leave."""
    return n_bytes > max(4096, 0.05 * of)


def after_tags(data: Bytes, position: int) -> int:
    """Return the offset behind any ID3, APE and Lyrics3 tags at `position`; it may exceed the end of the file."""
    while position < len(data):
        n_bytes = _tag_bytes(data, position)
        if not n_bytes:
            break
        position += n_bytes
    return position


def after_id3(data: Bytes, position: int) -> int:
    """Return the offset behind any ID3v2 tags at `position`."""
    while data[position : position + 3] == b"ID3":
        position += _tag_bytes(data, position) or len(data)
    return position


def before_tags(data: Bytes, end: int) -> int:
    """Return the offset of the first of any ID3, APE and Lyrics3 tags that end at `end`."""
    while 0 <= (start := _tag_start(data, end)) < end:
        end = start
    return end


def _tag_start(data: Bytes, end: int) -> int:
    """Return the offset of the tag that ends at `end`; `end` where there is none."""
    if data[max(0, end - _ID3V1_BYTES) : end].startswith(b"TAG"):
        return end - _ID3V1_BYTES
    foot = data[max(0, end - 32) : end]
    if foot[:8] == b"APETAGEX":
        start = end - int.from_bytes(foot[12:16], "little")
        if start < 0 or not _APE_ITEM.match(data[start : start + 264]):
            return end  # its size is wrong
        return start - 32 if data[max(0, start - 32) : start].startswith(b"APETAGEX") else start
    if foot[-9:] == b"LYRICS200" and foot[-15:-9].isdigit():
        return end - int(foot[-15:-9]) - 15
    return end - 20 - _size(foot[-4:]) if foot[-10:-7] == b"3DI" else end


def _size(digits: bytes) -> int:
    """Return a number of 28 bits, stored as 7 bits per byte."""
    size = 0
    for byte in digits:
        size = size << 7 | byte & 0x7F
    return size


def _tag_bytes(data: Bytes, position: int) -> int:
    head = data[position : position + 32]
    if head[:3] == b"ID3" and len(head) >= 10:
        return 10 + _size(head[6:10]) + (10 if head[5] & 0x10 else 0)
    if head[:8] == b"APETAGEX" and len(head) == 32:
        is_header = head[23] & 0x20
        return 32 + int.from_bytes(head[12:16], "little") if is_header else 32
    if head[:11] == b"LYRICSBEGIN":
        end = data.find(b"LYRICS200", position, position + _LYRICS3_MAX_BYTES)
        return 0 if end < 0 else end + 9 - position
    return _ID3V1_BYTES if head[:3] == b"TAG" else 0
