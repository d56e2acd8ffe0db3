"""Identify an audio file by its content: its container, where the audio starts, how much of it is in the file.

Names of files and lengths in headers are not trusted; they are compared with the bytes of the file.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import ClipError
from ...cache.format.schema import Reason
from . import mpeg


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Limits beyond which a file is refused as ``TOO_LARGE`` rather than decoded."""

    max_bytes: int = 4 << 30
    max_seconds: float = 24 * 3600.0
    max_channels: int = 16
    max_rate_hz: int = 768_000


@dataclass(frozen=True)
class Container:
    """A kind of file.

    Attributes
    ----------
    demuxer : the only one of FFmpeg that may read it.
    extensions : separated by spaces.
    libsndfile : whether libsndfile reads it.
    declares_length : whether the length in its header is a fact.
    """

    name: str
    demuxer: str
    extensions: str
    libsndfile: bool = False
    declares_length: bool = False


@dataclass(frozen=True, kw_only=True)
class Sound:
    """An audio file as its bytes describe it.

    Attributes
    ----------
    share : part of the declared sample data that is in the file, 0 to 1; None where the container does not declare it.
    walk : the frames of an MPEG stream, counted; None for any other kind, or where they cannot be counted.
    has_payload : the section that holds the sound is there, whatever its state.
    """

    container: Container
    n_bytes: int
    share: float | None = None
    walk: mpeg.Walk | None = None
    has_payload: bool = True


MPEG = Container("MPEG audio", "mp3", "mp3 mp2 mp1 mpa mpga m2a m3a bit", libsndfile=True)
ADTS = Container("ADTS AAC", "aac", "aac adts")
WAV = Container("WAV", "wav", "wav wave bwf rf64", libsndfile=True)
AIFF = Container("AIFF", "aiff", "aif aiff aifc afc", libsndfile=True)
AU = Container("Sun AU", "au", "au snd", libsndfile=True)
CAF = Container("CAF", "caf", "caf", libsndfile=True)
ASF = Container("ASF", "asf", "wma asf wmv", declares_length=True)
MP4 = Container("MP4", "mov", "m4a mp4 m4b m4p m4r m4v mov qt 3gp 3g2 alac", declares_length=True)

_SIGNATURES: tuple[tuple[int, bytes, Container], ...] = (
    (0, b"fLaC", Container("FLAC", "flac", "flac fla", libsndfile=True, declares_length=True)),
    (0, b"OggS", Container("Ogg", "ogg", "ogg oga opus spx ogx", libsndfile=True)),
    (0, b"caff", CAF),
    (0, b"riff\x2e\x91\xcf\x11", Container("Wave64", "w64", "w64", libsndfile=True)),
    (0, b".snd", AU),
    (0, b"dns.", AU),
    (0, b"Creative Voice File\x1a", Container("VOC", "voc", "voc", libsndfile=True)),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", ASF),
    (0, b"MAC ", Container("Monkey's Audio", "ape", "ape apl", declares_length=True)),
    (0, b"MP+", Container("Musepack 7", "mpc", "mpc mp+ mpp", declares_length=True)),
    (0, b"MPCK", Container("Musepack 8", "mpc8", "mpc mp+ mpp", declares_length=True)),
    (0, b"wvpk", Container("WavPack", "wv", "wv", declares_length=True)),
    (0, b"TTA1", Container("True Audio", "tta", "tta", declares_length=True)),
    (0, b"tBaK", Container("TAK", "tak", "tak", declares_length=True)),
    (0, b"DSD ", Container("DSF", "dsf", "dsf", declares_length=True)),
    (0, b"FRM8", Container("DSDIFF", "iff", "dff", declares_length=True)),
    (0, b"#!AMR", Container("AMR", "amr", "amr awb")),
    (0, b"\x7f\xfe\x80\x01", Container("DTS", "dts", "dts")),
    (0, b"\x0b\x77", Container("AC-3", "ac3", "ac3 eac3 ec3")),
    (0, b"\x1a\x45\xdf\xa3", Container("Matroska", "matroska", "mka mkv webm weba mk3d", declares_length=True)),
    *((4, box, MP4) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
)
_NOT_AUDIO: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"MThd", "a MIDI score, which holds no sound"),
    (b"#EXTM3U", "a playlist"),
    (b"[playlist]", "a playlist"),
)
_CHUNKED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM")
_ASF_DATA = b"\x36\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_UNDECLARED_SIZES = {0, 0xFFFFFFFF}  # what programs leave there that write to a pipe; and near 2 GiB, see _payload
_MPEG_SEARCH_BYTES = 1 << 16


def examine(path: Path, caps: Caps) -> Sound:
    """Sniff the file at `path`.

    Raises
    ------
    ClipError
        ``SRC_MISSING``, ``SRC_NOT_REGULAR``, ``EMPTY``, ``TOO_LARGE`` or ``NOT_AUDIO``.
    """
    with _map_file(path, caps) as data:
        first = _after_id3(data)
        container = _sniff(data, first)
        if container is None:
            foreign = data[first : first + 4] in _CHUNKED
            start = None if foreign else mpeg.find_stream(data, first, _MPEG_SEARCH_BYTES)
            if start is None:
                raise _not_audio(data, first)
            return Sound(container=MPEG, n_bytes=len(data), walk=mpeg.walk(data, start))
        return Sound(
            container=container,
            n_bytes=len(data),
            share=_share(data, container),
            has_payload=container is not ASF or data.find(_ASF_DATA) >= 0,
        )


def extension_fits(path: Path, container: Container) -> bool:
    """False where the name claims another format than the content; a name without an extension claims nothing."""
    suffix = path.suffix.lower().lstrip(".")
    return not suffix or suffix in container.extensions.split()


@contextmanager
def _map_file(path: Path, caps: Caps) -> Iterator[mmap.mmap]:
    """Map the bytes of a regular file. Opening never waits for a pipe, and never wakes a device."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ClipError(Reason.SRC_NOT_REGULAR, "not a regular file but a folder, pipe or device")
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        if isinstance(error, ClipError):
            raise
        cause = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a legal name"
        raise ClipError(Reason.SRC_MISSING, f"cannot be opened: {cause}") from None
    with os.fdopen(handle, "rb"):
        n_bytes = os.fstat(handle).st_size
        if n_bytes == 0:
            raise ClipError(Reason.EMPTY, "zero bytes")
        if n_bytes > caps.max_bytes:
            raise ClipError(Reason.TOO_LARGE, f"{n_bytes} bytes; the cap is {caps.max_bytes}")
        with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as data:
            yield data


def _after_id3(data: mmap.mmap) -> int:
    """Offset behind any ID3v2 tags at the front (sizes are 28 bits, seven a byte)."""
    position = 0
    while data[position : position + 3] == b"ID3" and position + 10 <= len(data):
        footer = 10 if data[position + 5] & 0x10 else 0
        size = 0
        for byte in data[position + 6 : position + 10]:
            size = size << 7 | byte & 0x7F
        position += 10 + size + footer
    return position


def _sniff(data: mmap.mmap, first: int) -> Container | None:
    head = data[first : first + 32]
    if head[:4] in _CHUNKED:
        return {b"WAVE": WAV, b"AIFF": AIFF, b"AIFC": AIFF}.get(head[8:12])
    if head[:1] == b"\xff" and len(head) > 6 and head[1] & 0xF6 == 0xF0:
        size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        following = data[first + size : first + size + 2]
        if size > 7 and (not following or following == head[:2]):
            return ADTS
    for offset, signature, container in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return container
    return None


def _not_audio(data: mmap.mmap, first: int) -> ClipError:
    if first:
        return ClipError(Reason.EMPTY, "an ID3 tag with no sound behind it")
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, meaning in _NOT_AUDIO:
        if head.startswith(signature):
            return ClipError(Reason.NOT_AUDIO, f"the content is {meaning}")
    if data[:4] in _CHUNKED:
        return ClipError(Reason.NOT_AUDIO, "the content is a RIFF or IFF file of a kind that is not sound")
    if head[:1] == b"<":
        return ClipError(Reason.NOT_AUDIO, "the content is HTML or XML")
    if head and not any(byte < 9 or 13 < byte < 32 for byte in head):
        return ClipError(Reason.NOT_AUDIO, "the content is text")
    return ClipError(Reason.NOT_AUDIO, "the content has no signature of any audio format")


def _share(data: mmap.mmap, container: Container) -> float | None:
    """Part of the declared bytes of sample data that the file really holds."""
    if container is AU:
        order = "big" if data[:4] == b".snd" else "little"
        start, declared = (_integer(data, at, order) for at in (4, 8))
    elif container in (WAV, AIFF):
        start, declared = _payload(data)
    elif container is CAF:
        start, declared = _caf_payload(data)
    else:
        return None
    if declared in _UNDECLARED_SIZES or abs(declared - 0x7FFF_FFFF) < 0x2000:
        return None
    return min(1.0, max(0, len(data) - start) / declared)


def _payload(data: mmap.mmap) -> tuple[int, int]:
    """Offset and declared size of the chunk that holds the samples; (0, 0) where there is none."""
    order = "big" if data[:4] in (b"FORM", b"RIFX") else "little"
    wide = 0
    position = 12
    while position + 8 <= len(data):
        name, size = data[position : position + 4], _integer(data, position + 4, order)
        position += 8
        if name == b"ds64":
            wide = _integer(data, position + 8, order, 8)
        if name in (b"data", b"SSND"):
            return position, wide if size == 0xFFFFFFFF and wide else size
        position += size + size % 2
    return 0, 0


def _caf_payload(data: mmap.mmap) -> tuple[int, int]:
    position = 8
    while position + 12 <= len(data):
        name, size = data[position : position + 4], _integer(data, position + 4, "big", 8)
        position += 12
        if name == b"data":
            return position, 0 if size >> 63 else size  # -1: up to the end of the file
        position += size
    return 0, 0


def _integer(data: mmap.mmap, position: int, order: str, width: int = 4) -> int:
    return int.from_bytes(data[position : position + width], "big" if order == "big" else "little")
