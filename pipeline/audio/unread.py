"""Known formats that mgc does not read, and other content found in files named as songs."""

from __future__ import annotations

import re

from ...cache.errors import ClipError
from ...cache.format.schema import Reason
from .tags import Bytes

_NOT_AUDIO: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"MThd", "a MIDI score, which holds no audio"),
    (b"#EXTM3U", "a playlist"),
    (b"[playlist]", "a playlist"),
)
_UNREAD: tuple[tuple[bytes, str], ...] = (
    (rb"(RIFF|RIFX)....(AVI |AVIX)", "an AVI video"),
    (rb"RIFF....CDXA", "an MPEG video from a Video CD"),
    (rb"FORM....8SVX|FORM....16SV", "Amiga IFF audio"),
    (rb"\x00\x00\x01[\xba\xb3]", "an MPEG video"),
    (rb"FLV[\x01-\x0f]", "a Flash video"),
    (rb"(\x47.{187}){4}|(.{4}\x47.{187}){3}", "an MPEG transport stream"),
    (rb"\.RMF|\.ra\xfd", "RealMedia"),
    (rb"\x06\x0e\x2b\x34\x02\x05\x01\x01", "an MXF video"),
    (rb"\xb7\xd8\x00\x20\x37\x49\xda\x11", "a Windows TV recording"),
    (rb"[FC]WS[\x01-\x32]", "a Flash film"),
    (rb"DKIF\x00\x00", "an IVF video"),
    (rb"nut/multimedia container", "a NUT video"),
    (rb"ajkg", "Shorten audio"),
    (rb"OFR ", "OptimFROG audio"),
    (rb"LA0[2-4]", "Lossless Audio"),
    (rb"TWIN97012000", "TwinVQ audio"),
    (rb"ea3\x03|EA3\x01", "Sony ATRAC audio"),
    (rb".{4}\x57\x90\x75\x36", "an Audible book"),
    (rb"NIST_1A", "NIST SPHERE audio"),
    (rb"\x64\xa3[\x01-\x04]\x00|\x00[\x01-\x04]\xa3\x64", "IRCAM audio"),
    (rb"ADIF", "AAC in ADIF"),
    (rb"Extended Module: |IMPM", "a tracker module"),
)


def named(data: Bytes) -> ClipError | None:
    """Return the error for content in a known format without readable audio, if it is one."""
    for pattern, meaning in _UNREAD:
        if re.match(pattern, data[:1024], re.DOTALL):
            return ClipError(Reason.UNSUPPORTED_CODEC, f"the content is {meaning}, a format that is not read here")
    if data[257:262] == b"ustar":
        return ClipError(Reason.NOT_AUDIO, "the content is a tar archive")
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, meaning in _NOT_AUDIO:
        if head.startswith(signature):
            return ClipError(Reason.NOT_AUDIO, f"the content is {meaning}")
    if head[:1] == b"<" and not _is_binary(head):
        return ClipError(Reason.NOT_AUDIO, "the content is HTML or XML")
    return None


def unnamed(data: Bytes) -> ClipError:
    """Return the error for content without any signature of audio."""
    if data[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return ClipError(Reason.NOT_AUDIO, "the content is a RIFF or IFF file of a kind that is not audio")
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head and not _is_binary(head):
        return ClipError(Reason.NOT_AUDIO, "the content is text")
    return ClipError(Reason.NOT_AUDIO, "the content has no signature of any audio format")


def _is_binary(head: bytes) -> bool:
    return any(byte < 9 or 13 < byte < 32 for byte in head)
