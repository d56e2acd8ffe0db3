"""Choose a decoder for a window of an audio file: libsndfile, and FFmpeg where that falls short.

Both decoders end a damaged or cut file without a word, so what comes out is always compared with what the file's own
structure says (:class:`mgc.pipeline.audio.containers.Sound`). FFmpeg is held to the one demuxer that the content calls
for and reads from an open file: it opens no other file, no playlist and no address.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...cache.errors import ClipError
from .containers import Caps, Sound
from .decoded import Decoded, PlaceClip
from .libsndfile import decode_with_libsndfile


def decode(path: Path, sound: Sound, plan: PlaceClip, caps: Caps) -> Decoded:
    """Decode the window that `plan` asks for by the first decoder that gives all of it, or the one that gives more.

    Raises
    ------
    ClipError
        ``TOO_LARGE``, ``BAD_HEADER``, ``UNSUPPORTED_CODEC``, ``DECODE_ERROR``, ``NOT_AUDIO`` or ``EMPTY``.
    """
    broken = sound.walk is not None and sound.walk.breaks > 0
    first = decode_with_libsndfile(path, sound, plan, caps) if sound.container.libsndfile else None
    if first is not None and first.whole:
        return replace(first, gaps=broken)
    from .ffmpeg import decode_with_ffmpeg

    try:
        second = decode_with_ffmpeg(path, sound, plan, caps)
    except ClipError:
        if first is None or 2 * len(first.mono) < min(first.window.stop, first.length) - first.window.first:
            raise
        return replace(first, gaps=True)
    if first is not None and len(first.mono) > len(second.mono):
        return replace(first, gaps=True)
    return replace(second, gaps=broken) if sound.walk else second  # where MPEG files are joined, FFmpeg stumbles
