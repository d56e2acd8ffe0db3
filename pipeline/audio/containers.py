"""Identify an audio file by its content: its container, where the audio starts, how much of it is in the file.

Names of files and lengths in headers are not trusted; they are compared with the bytes of the file.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...cache.errors import ClipError
from ...cache.format.schema import Reason
from . import mpeg, unread
from .structure import file_starts, lost_tail, misread_by_libsndfile, payload, voc_fault
from .tags import after_id3, after_tags, before_tags


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
    demuxer : the only FFmpeg demuxer that may read it.
    extensions : separated by spaces.
    libsndfile : whether libsndfile reads it.
    declares_length : whether the length in its header is reliable.
    """

    name: str
    demuxer: str
    extensions: str
    libsndfile: bool = False
    declares_length: bool = False


@dataclass(frozen=True, kw_only=True)
class AudioContent:
    """Audio content of a file, from its structure.

    Attributes
    ----------
    n_bytes : of the file, without the tags in front of it and behind it.
    share : part of the declared sample data that is in the file, 0 to 1; None where the container does not declare it.
    walk : the frames of an MPEG stream, counted; None for any other kind, or where they cannot be counted.
    has_payload : the file has a section for audio data, even if it is damaged.
    first, stop : the bytes of the file that decoders may read; to its end where `stop` is None.
    unread : by its structure, much of the file is neither audio nor tags.
    parts : the concatenated files in this one, if there are several.
    misread_by_libsndfile : libsndfile would read only a part of the audio, or other data.
    """

    container: Container
    n_bytes: int
    share: float | None = None
    walk: mpeg.Walk | None = None
    has_payload: bool = True
    first: int = 0
    stop: int | None = None
    unread: bool = False
    parts: tuple[AudioContent, ...] = ()
    misread_by_libsndfile: bool = False


MPEG = Container("MPEG audio", "mp3", "mp3 mp2 mp1 mpa mpga m2a m3a bit", libsndfile=True)
ADTS = Container("ADTS AAC", "aac", "aac adts")
WAV = Container("WAV", "wav", "wav wave bwf rf64", libsndfile=True)
AIFF = Container("AIFF", "aiff", "aif aiff aifc afc", libsndfile=True)
AU = Container("Sun AU", "au", "au snd", libsndfile=True)
CAF = Container("CAF", "caf", "caf", libsndfile=True)
ASF = Container("ASF", "asf", "wma asf wmv", declares_length=True)
MP4 = Container("MP4", "mov", "m4a mp4 m4b m4p m4r m4v mov qt 3gp 3g2 alac", declares_length=True)
MATROSKA = Container("Matroska", "matroska", "mka mkv webm weba mk3d", declares_length=True)

_SIGNATURES: tuple[tuple[int, bytes, Container], ...] = (
    (0, b"fLaC", Container("FLAC", "flac", "flac fla", libsndfile=True, declares_length=True)),
    (0, b"OggS", Container("Ogg", "ogg", "ogg oga opus spx ogx", libsndfile=True)),
    (0, b"caff", CAF),
    (0, b"riff\x2e\x91\xcf\x11", Container("Wave64", "w64", "w64", libsndfile=True)),
    (0, b".snd", AU),
    (0, b"dns.", AU),
    (0, b"Creative Voice File\x1a", Container("VOC", "voc", "voc")),
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
    (0, b"\x1a\x45\xdf\xa3", MATROSKA),
    *((4, box, MP4) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
)
_CHUNKED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM")
_ASF_DATA = b"\x36\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_NEAR_BYTES, _FAR_BYTES = 1 << 16, 1 << 24  # how far frames of an MPEG stream are searched, the latter behind tags
_HEADLINE_BYTES = 4096  # how far a file of another kind is searched behind something that is no tag
_FAR_CHAIN = 16  # headers in a row that make a stream far from where one is expected
_UNMISTAKABLE = re.compile(rb"fLaC[\0\x80]\0\0\x22|OggS\0\x02|RIFF....WAVE|FORM....AIF[FC]", re.DOTALL)
_NOT_ZERO = re.compile(rb"[^\0]")


def examine(path: Path, caps: Caps) -> AudioContent:
    """Sniff the file at `path`.

    Raises
    ------
    ClipError
        ``SRC_MISSING``, ``SRC_NOT_REGULAR``, ``EMPTY``, ``TOO_LARGE``, ``UNSUPPORTED_CODEC`` or ``NOT_AUDIO``.
    """
    with _map_file(path, caps) as data:
        first = after_tags(data, 0)
        start = first if _sniff(data, first) or mpeg.find_stream(data, first, first + 2) == first else None
        if start is None:
            start = _search(data, first)
        container = _sniff(data, start)
        if container in (None, ADTS):
            skipped = container is None and start == after_id3(data, 0)  # libsndfile passes over no other tags
            return _mpeg(data, 0 if skipped else start, start)
        assert container is not None
        starts = file_starts(data, start, container.demuxer)
        contents = [
            _content(data, begin, stop, container) for begin, stop in zip(starts, [*starts[1:], None], strict=True)
        ]
        return contents[0] if len(contents) == 1 else replace(contents[0], parts=tuple(contents))


def _content(data: mmap.mmap, first: int, stop: int | None, container: Container) -> AudioContent:
    """Describe one file of the kind `container` that occupies ``[first, stop)`` of `data`."""
    end = len(data) if stop is None else stop
    if container.demuxer == "voc" and (fault := voc_fault(data, first)):
        raise ClipError(Reason.UNSUPPORTED_CODEC, fault)
    return AudioContent(
        container=container,
        n_bytes=before_tags(data, end) - first,
        share=_share(data, first, end, container),
        has_payload=container is not ASF or data.find(_ASF_DATA) >= 0,
        first=first,
        stop=stop,
        unread=lost_tail(data, first, end, container.demuxer),
        misread_by_libsndfile=misread_by_libsndfile(data, first, end, container.demuxer),
    )


def _mpeg(data: mmap.mmap, begin: int, start: int) -> AudioContent:
    """Describe MPEG frames that start at `start`; decoders read from `begin` on, tags included."""
    contents: list[AudioContent] = []
    while True:
        walk = mpeg.walk(data, start)
        stop = walk.stop if walk else None
        contents.append(
            AudioContent(
                container=ADTS if mpeg.is_adts(data, start) else MPEG,
                n_bytes=(len(data) if stop is None else stop) - begin,
                walk=walk,
                first=begin,
                stop=stop,
            )
        )
        if stop is None:
            return contents[0] if len(contents) == 1 else replace(contents[0], parts=tuple(contents))
        begin = start = stop


def _search(data: mmap.mmap, first: int) -> int:
    """Return where audio begins if not at `first`, the end of the tags: their size may be wrong, or padding follows.

    Raises
    ------
    ClipError
        ``EMPTY``, ``UNSUPPORTED_CODEC`` or ``NOT_AUDIO``.
    """
    error = unread.named(data[first : first + 1024])
    if error is not None and not first:
        raise error
    padded = _behind_zeros(data, first)
    for at in range(padded, max(first, padded - 4), -1):  # an MP4 file begins with zeros itself
        if _sniff(data, at):
            return at
    if data[first : first + 4] not in _CHUNKED:
        near = mpeg.find_stream(data, padded, padded + _NEAR_BYTES)
        # A tag may be larger or smaller than declared: audio is searched in it too.
        far = mpeg.find_stream(data, min(first, 10), min(padded, len(data)) + _FAR_BYTES, _FAR_CHAIN)
        file = _UNMISTAKABLE.search(data, min(first, 10), padded + _FAR_BYTES if first else _HEADLINE_BYTES)
        start = min((at for at in (near, far, file.start() if file else None) if at is not None), default=None)
        if start is not None:
            return start
    if error is not None:
        raise error
    if first:
        raise ClipError(Reason.EMPTY, "an ID3 tag with no audio behind it")
    raise unread.unnamed(data[:1024])


def _behind_zeros(data: mmap.mmap, first: int) -> int:
    """Return the offset behind any zeros at `first`, and any tags and zeros that follow."""
    while True:
        behind = _NOT_ZERO.search(data, first)
        padded = behind.start() if behind else len(data)
        first = after_tags(data, padded)
        if first in (padded, len(data)) or first > len(data):
            return padded


def extension_fits(path: Path, container: Container) -> bool:
    """Return whether the extension fits the format of the content; a missing extension fits any."""
    suffix = path.suffix.lower().lstrip(".")
    return not suffix or suffix in container.extensions.split()


@contextmanager
def _map_file(path: Path, caps: Caps) -> Iterator[mmap.mmap]:
    """Map the bytes of a regular file; opening a pipe does not block, and a device is not opened."""
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
            raise ClipError(Reason.TOO_LARGE, f"{n_bytes} bytes; the limit is {caps.max_bytes}")
        with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as data:
            yield data


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


def _share(data: mmap.mmap, first: int, end: int, container: Container) -> float | None:
    """Return the part of the declared bytes of sample data that the file holds."""
    start, size = payload(data, first, container.demuxer)
    return None if size is None else min(1.0, max(0, end - start) / size)
