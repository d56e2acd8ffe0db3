"""Find, without decoding, the sample data of a file, and other files concatenated to it.

Kinds of files are named by their demuxer, as in :class:`mgc.pipeline.audio.containers.Container`.
"""

from __future__ import annotations

import itertools
import mmap
import re
from collections.abc import Iterator

from .flac import frames_at_end, read_stream_info
from .tags import after_tags, before_tags, is_much

_UNDECLARED_SIZES = {0, 0xFFFFFFFF}  # what programs leave there that write to a pipe; and near 2 GiB, see payload
_KEYS = {  # kind -> bytes of a file by which another file of its kind is found, first and last
    **dict.fromkeys(("flac", "au", "caf", "w64", "asf", "ape", "tta", "tak", "dsf", "iff", "matroska"), (0, 8)),
    **dict.fromkeys(("wav", "aiff"), (8, 16)),
    "voc": (0, 20),
    "amr": (0, 6),
}
_KEY_MIN_BYTES = 6
_LARGE_BOXES = (b"mdat", b"moov", b"moof")  # of a file that is cut, one of these is cut
_OTHER_FILES = {
    b"RIFF",
    b"RIFX",
    b"RF64",
    b"FORM",
    b"fLaC",
    b"OggS",
    b"wvpk",
    b"caff",
    b"MAC ",
    b"MPCK",
    b"TTA1",
    b"tBaK",
}
_AUDIO_HEADS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"fLaC", b"Speex   ")
_CODED = (  # DTS (16 and 14 bits, either order) and S/PDIF bursts, as if they were 16-bit samples
    b"\x7f\xfe\x80\x01",
    b"\xfe\x7f\x01\x80",
    b"\x1f\xff\xe8\x00",
    b"\xff\x1f\x00\xe8",
    b"\x72\xf8\x1f\x4e",
)
_AC3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_AMR_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 7, 6, 6, 0, 0, 0, 1)  # of a frame, by its type
_AMR_WIDE_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 6, 0, 0, 0, 1, 1)
_MPEG_TAGS = (0x50, 0x55)
_CODED_WITHIN_BYTES = 1 << 14
_BLOCK_BYTES = 1 << 20


def payload(data: mmap.mmap, first: int, kind: str) -> tuple[int, int | None]:
    """Return the offset and declared size of the sample data of the file at `first`; None where no size is declared."""
    if kind == "au":
        order = "big" if data[first : first + 1] == b"." else "little"
        start, size = first + _integer(data, first + 4, order), _integer(data, first + 8, order)
    elif kind in ("wav", "aiff"):
        start, size = _riff_payload(data, first)
    elif kind == "caf":
        start, size = _caf_payload(data, first)
    elif kind == "w64":
        start, size = _w64_payload(data, first)
    elif kind == "voc":
        start, size = first, _voc_blocks(data, first)[-1][0] - first
    else:
        return first, None
    undeclared = size in _UNDECLARED_SIZES or abs(size - 0x7FFF_FFFF) < 0x2000
    return start, None if undeclared else size


def file_starts(data: mmap.mmap, first: int, kind: str) -> list[int]:
    """Return the offsets of files of one kind that are concatenated from `first` on; `[first]` if there is only one.

    A file begins where the first bytes of the file at `first` occur again, behind the sample data if its size is known.
    """
    if kind == "ogg":
        return _ogg_links(data, first)
    if kind == "wv":
        return [position for position, begins, _ in _wavpack_blocks(data, first) if begins]
    if kind == "mov":
        return [first, *(at for at, name, _ in _boxes(data, first, len(data)) if name == b"ftyp" and at > first)]
    starts, (shift, stop) = [first], _KEYS.get(kind, (0, 0))
    key = data[first + shift : first + stop]
    if len(key) < _KEY_MIN_BYTES:
        return starts
    while True:
        start, size = payload(data, starts[-1], kind)
        found = _find(data, key, max(starts[-1] + shift + 1, start + (size or 0)))
        if found is None:
            return starts
        starts.append(found - shift)


def lost_tail(data: mmap.mmap, first: int, end: int, kind: str) -> bool:
    """Return whether much of the file lies behind its audio, and is neither a tag nor another part of its structure."""
    (start, size), end = payload(data, first, kind), before_tags(data, end)
    if kind == "flac":
        behind, _ = frames_at_end(data, read_stream_info(data, first), end)
        return is_much(end - (behind or first), end - first)
    if kind == "ogg":
        start, size = _ogg_page(data, data.rfind(b"OggS", first, end)), 0
    elif kind == "mov":
        start, size = max((behind for *_, behind in _boxes(data, first, end)), default=end), 0
    elif kind in ("ac3", "dts", "amr"):
        start, size = _frames_end(data, first, end, kind), 0
    elif kind == "wv":
        start, size = max((behind for *_, behind in _wavpack_blocks(data, first)), default=end), 0
    if size is None:
        return False
    position = start + size
    if kind in ("wav", "aiff"):
        for name, body, n_bytes in _chunks(data, position + size % 2, end, _order(data, first)):
            if name in (b"data", b"SSND"):
                return True  # decoders read one of them
            if body + n_bytes > end:
                break
            position = body + n_bytes + n_bytes % 2
    elif kind == "caf":
        while re.fullmatch(rb"[\x20-\x7e]{4}", data[position : position + 4]):
            behind = position + 12 + _integer(data, position + 4, "big", 8)
            if behind > end:
                break
            position = behind
    elif kind == "w64":
        position += -size % 8
        while 24 <= (n_bytes := _integer(data, position + 16, "little", 8)) <= end - position:
            position += n_bytes + -n_bytes % 8
    return is_much(end - after_tags(data, position), end - first)


def misread_by_libsndfile(data: mmap.mmap, first: int, end: int, kind: str) -> bool:
    """Return whether libsndfile reads only a part of the file, or reads coded audio as samples.

    This applies to multiplexed Ogg streams, FLAC frames beyond the declared length, and MP3,
    DTS or S/PDIF in a WAV file.
    """
    if kind == "ogg":
        return _streams_side_by_side(data, first) > 1
    if kind == "flac":
        info = read_stream_info(data, first)
        return 0 < info.n_samples < frames_at_end(data, info, before_tags(data, end))[1]
    if kind != "wav":
        return False
    if _integer(data, data.find(b"fmt ", first, first + 4096) + 8, "little", 2) in _MPEG_TAGS:
        return True  # it guesses their length
    start, _ = payload(data, first, kind)
    head = data[start : min(end, start + _CODED_WITHIN_BYTES)]
    return any(head.find(sync, head.find(sync) + 1) > 0 for sync in _CODED if sync in head)


def voc_fault(data: mmap.mmap, first: int) -> str | None:
    """Return why the blocks of a VOC file cannot be read as one recording; None if they can."""
    formats, extended, bits = set(), b"", 0
    blocks = _voc_blocks(data, first)
    for (position, kind), (following, _) in itertools.pairwise(blocks):
        body = position + 4
        if kind == 8:
            extended = data[body : body + 4]
        elif kind == 1:
            formats.add(extended or data[body : body + 2])
            extended, bits = b"", 8
        elif kind == 9:
            formats.add(data[body : body + 8])
            bits = data[body + 4]
        if kind in (2, 9) and bits == 16 and (following - body) % 2:
            return "VOC blocks of 16-bit samples that end in the middle of one"
    return "VOC blocks of several sample rates or formats" if len(formats) > 1 else None


def _voc_blocks(data: mmap.mmap, first: int) -> list[tuple[int, int]]:
    """Return the offset and kind of each block of a VOC file; the last is its end, of kind 0."""
    blocks, position = [], first + _integer(data, first + 20, "little", 2)
    while position < len(data) and data[position]:
        blocks.append((position, data[position]))
        position += 4 + _integer(data, position + 1, "little", 3)
    return [*blocks, (position, 0)]


def _find(data: mmap.mmap, key: bytes, first: int) -> int | None:
    """Return the result of ``data.find``, several times as fast."""
    for block in range(first, len(data), _BLOCK_BYTES):
        at = data[block : block + _BLOCK_BYTES + len(key) - 1].find(key)
        if at >= 0:
            return block + at
    return None


def _ogg_links(data: mmap.mmap, first: int) -> list[int]:
    """Return where the links of a chained Ogg begin: first pages of streams that follow pages of other streams."""
    links, position, opening = [first], first, True
    while (position := data.find(b"OggS", position)) >= 0 and position + 27 <= len(data):
        begins = bool(data[position + 5] & 2)
        if begins and not opening:
            links.append(position)
        opening = begins
        position = _ogg_page(data, position)
    return links


def _ogg_page(data: mmap.mmap, position: int) -> int:
    """Return the offset behind the page at `position`."""
    lacing = data[position + 27 : position + 27 + _integer(data, position + 26, "big", 1)]
    return position + 27 + len(lacing) + sum(lacing)


def _streams_side_by_side(data: mmap.mmap, first: int) -> int:
    """Return the audio streams of the Ogg file, or link of a chain, at `first`."""
    n_streams, position = 0, first
    while data[position : position + 4] == b"OggS" and data[position + 5] & 2:
        body = position + 27 + data[position + 26]
        n_streams += data[body : body + 8].startswith(_AUDIO_HEADS)
        position = _ogg_page(data, position)
    return n_streams


def _frames_end(data: mmap.mmap, first: int, end: int, kind: str) -> int:
    """Return the offset behind the last of the frames that follow one another from `first` on."""
    position, frame_bytes = first, _ac3_bytes if kind == "ac3" else _dts_bytes
    if kind == "amr":
        is_wide = data[first + 5 : first + 6] == b"-"
        position, frame_bytes = (first + 9, _amr_wide_bytes) if is_wide else (first + 6, _amr_bytes)
    while position < end and (n_bytes := frame_bytes(data[position : position + 10])):
        position += n_bytes
    return position


def _amr_bytes(head: bytes) -> int:
    return 0 if head[0] & 0x83 else _AMR_BYTES[head[0] >> 3]


def _amr_wide_bytes(head: bytes) -> int:
    return 0 if head[0] & 0x83 else _AMR_WIDE_BYTES[head[0] >> 3]


def _ac3_bytes(head: bytes) -> int:
    """Return the size of the (Enhanced) AC-3 frame that begins with `head`; 0 where none does."""
    if head[:2] != b"\x0b\x77" or len(head) < 6:
        return 0
    if head[5] >> 3 > 10:
        return 2 * ((head[2] & 7) << 8 | head[3]) + 2
    rate, code = head[4] >> 6, head[4] & 63
    if rate == 3 or code >> 1 >= len(_AC3_KBPS):
        return 0
    kbps = _AC3_KBPS[code >> 1]
    return (4 * kbps, 2 * (kbps * 960 // 441 + code % 2), 6 * kbps)[rate]


def _dts_bytes(head: bytes) -> int:
    """Return the size of the DTS frame or extension that begins with `head`; 0 where none does."""
    bits = int.from_bytes(head.ljust(10, b"\0"), "big")
    if head[:4] == b"\x7f\xfe\x80\x01":
        return (bits >> 20 & 0x3FFF) + 1
    if head[:4] == b"\x64\x58\x20\x25":
        return ((bits >> 5 & 0xFFFFF) if bits >> 37 & 1 else (bits >> 13 & 0xFFFF)) + 1
    return 0


def _wavpack_blocks(data: mmap.mmap, first: int) -> Iterator[tuple[int, bool, int]]:
    """Yield the start of each block, whether a file begins there (its sample count restarts), and its end.

    Tags may follow the last block.
    """
    position, index = first, -1
    while data[position : position + 4] == b"wvpk" and position + 32 <= len(data):
        following, n_samples = _integer(data, position + 16, "little"), _integer(data, position + 20, "little")
        is_first_of_channels = bool(_integer(data, position + 24, "little") & 0x800)
        begins = position == first or (n_samples > 0 and is_first_of_channels and following <= index)
        index = following if n_samples else index
        behind = after_tags(data, position + 8 + max(24, _integer(data, position + 4, "little")))
        yield position, begins, behind
        position = behind


def _boxes(data: mmap.mmap, first: int, end: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield offset, name and end of each top-level box of an MP4 file that begins at `first`."""
    position = first
    while position + 8 <= end:
        name, size = data[position + 4 : position + 8], _integer(data, position, "big")
        if size == 1:
            size = _integer(data, position + 8, "big", 8)
        behind = position + size if size else end
        if not re.fullmatch(rb"[A-Za-z0-9 ]{4}", name) or 0 < size < 8 or (behind > end and name not in _LARGE_BOXES):
            return
        yield position, name, min(behind, end)
        position = behind


def _chunks(data: mmap.mmap, position: int, end: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, offset and size of each chunk of RIFF or IFF from `position` on."""
    while position + 8 <= end:
        name, size = data[position : position + 4], _integer(data, position + 4, order)
        if name in _OTHER_FILES or not re.fullmatch(rb"[\x20-\x7e]{4}", name):
            return
        yield name, position + 8, size
        position += 8 + size + size % 2


def _order(data: mmap.mmap, first: int) -> str:
    return "big" if data[first : first + 4] in (b"FORM", b"RIFX") else "little"


def _riff_payload(data: mmap.mmap, first: int) -> tuple[int, int]:
    """Return the offset and declared size of the chunk that holds the samples; size 0 where there is none."""
    order, wide = _order(data, first), 0
    position = first + 12
    while position + 8 <= len(data):
        name, size = data[position : position + 4], _integer(data, position + 4, order)
        position += 8
        if name == b"ds64":
            wide = _integer(data, position + 8, order, 8)
        if name in (b"data", b"SSND"):
            return position, wide if size == 0xFFFFFFFF and wide else size
        position += size + size % 2
    return first, 0


def _w64_payload(data: mmap.mmap, first: int) -> tuple[int, int]:
    position = first + 40
    while position + 24 <= len(data):
        size = _integer(data, position + 16, "little", 8)  # with its own 24 bytes
        if data[position : position + 4] == b"data":
            return position + 24, 0 if size < 24 or size == 0xFFFFFFFF or size >> 63 else size - 24
        position += max(24, size) + -size % 8
    return first, 0


def _caf_payload(data: mmap.mmap, first: int) -> tuple[int, int]:
    position = first + 8
    while position + 12 <= len(data):
        name, size = data[position : position + 4], _integer(data, position + 4, "big", 8)
        position += 12
        if name == b"data":
            return position, 0 if size >> 63 else size  # -1: up to the end of the file
        position += size
    return first, 0


def _integer(data: mmap.mmap, position: int, order: str, width: int = 4) -> int:
    return int.from_bytes(data[position : position + width], "big" if order == "big" else "little")
