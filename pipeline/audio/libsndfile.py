"""Decode a window of a file with libsndfile, the first of the two decoders."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import soundfile

from .containers import MPEG, AudioContent, Caps
from .decoded import MPEG_SLACK, Decoded, Float32, Mixer, PlaceClip, Window, check_caps, open_range

_BLOCK_VALUES = 1 << 22  # 16 MiB: a stereo clip at 48 kHz in one read


def decode_with_libsndfile(path: Path, content: AudioContent, plan: PlaceClip, caps: Caps) -> Decoded | None:
    """Decode the window that `plan` returns; None if libsndfile cannot read the file or find its end."""
    in_part = bool(content.first) or content.stop is not None
    with ExitStack() as stack:
        try:
            source = (
                stack.enter_context(open_range(path, content.first, content.stop)) if in_part else os.fsencode(path)
            )
            file = stack.enter_context(soundfile.SoundFile(source))
        except soundfile.LibsndfileError:
            return None
        rate_hz, channels = file.samplerate, file.channels
        check_caps(rate_hz, channels, 0, caps)
        length, slack = file.frames, MPEG_SLACK if content.container is MPEG else 0
        if content.walk and not 0 <= content.walk.samples - length <= slack:
            length = content.walk.samples
        if content.walk is not None or content.share is not None:  # lengths that were counted
            check_caps(rate_hz, channels, length, caps)
        if length == 0 or length > caps.max_seconds * rate_hz or file.frames + slack < length:
            return None  # an unknown length is 2^63 - 1; libsndfile reads no further than its own idea of the length
        window = plan(rate_hz, length)
        mixer = Mixer()
        mono, whole = _read(file, window, mixer)
        expected = min(window.stop, length) - window.first
        if content.container is not MPEG or content.walk is not None:  # the length of other MPEG streams is a guess
            whole = whole and len(mono) >= expected - slack
        if whole and window.first + len(mono) < window.stop:
            length = window.first + len(mono)
        elif whole and content.container.declares_length:
            whole = _reaches_end(file)
    share = content.share if content.share is not None else 1.0 if content.container.declares_length else None
    return Decoded(
        mono=mono,
        window=window,
        length=length,
        rate_hz=rate_hz,
        channels=channels,
        mixer=mixer,
        share=share,
        whole=whole,
        by_libsndfile=not in_part,
    )


def _read(file: soundfile.SoundFile, window: Window, mixer: Mixer) -> tuple[Float32, bool]:
    """Read the samples of `window`; also return whether libsndfile read them without an error."""
    block_frames = min(max(1, _BLOCK_VALUES // file.channels), window.stop)
    buffer = np.empty((block_frames, file.channels), dtype=np.float32)
    parts: list[Float32] = []
    whole = True
    try:
        position = file.seek(window.first) if window.first and file.seekable() else 0
        while position < window.stop:
            bound = window.first if position < window.first else window.stop  # not seekable: read up to the start
            n_frames = min(block_frames, bound - position)
            block = file.read(n_frames, dtype="float32", always_2d=True, out=buffer[:n_frames])
            if position >= window.first:
                parts.append(mixer.mix(block))
            position += len(block)
            if len(block) < n_frames:  # the end; soundfile seeks after each read, and would lead back behind a gap
                break
    except soundfile.LibsndfileError:
        whole = False
    mono = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, dtype=np.float32), *parts])
    return mono, whole


def _reaches_end(file: soundfile.SoundFile) -> bool:
    try:
        file.seek(file.frames - 1)
        return len(file.read(1, dtype="float32")) == 1
    except soundfile.LibsndfileError:
        return False
