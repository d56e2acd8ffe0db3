"""Tags that programs put in front of a sound or behind it."""

from __future__ import annotations

import mmap

Bytes = bytes | mmap.mmap

_ID3V1_BYTES = 128
_LYRICS3_MAX_BYTES = 1 << 20


def is_much(n_bytes: int, of: int) -> bool:
    """Whether so many bytes of a file that are neither sound nor tags are more than programs leave there."""
    return n_bytes > max(4096, 0.05 * of)


def after_tags(data: Bytes, position: int) -> int:
    """Offset behind any ID3, APE and Lyrics3 tags at `position`; beyond the end where a tag says that it is larger."""
    while position < len(data):
        n_bytes = _tag_bytes(data, position)
        if not n_bytes:
            break
        position += n_bytes
    return position


def _tag_bytes(data: Bytes, position: int) -> int:
    head = data[position : position + 32]
    if head[:3] == b"ID3" and len(head) >= 10:
        size = 0
        for byte in head[6:10]:  # 28 bits, seven a byte
            size = size << 7 | byte & 0x7F
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:8] == b"APETAGEX" and len(head) == 32:
        is_header = head[23] & 0x20
        return 32 + int.from_bytes(head[12:16], "little") if is_header else 32
    if head[:11] == b"LYRICSBEGIN":
        end = data.find(b"LYRICS200", position, position + _LYRICS3_MAX_BYTES)
        return 0 if end < 0 else end + 9 - position
    return _ID3V1_BYTES if head[:3] == b"TAG" else 0
