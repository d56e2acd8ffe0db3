"""Decode a file in which several are concatenated, as one recording at one rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import soxr

from ...cache.errors import ClipError
from .containers import AudioContent, Caps
from .decoded import Decoded, Float32, Mixer, PlaceClip, Window, check_caps

DecodePart = Callable[[AudioContent, PlaceClip], Decoded]


def decode_concatenated(parts: Sequence[AudioContent], decode_part: DecodePart, plan: PlaceClip, caps: Caps) -> Decoded:
    """Decode the window that `plan` returns, at the rate of the longest part.

    A part that no decoder reads becomes a gap. Raises as `decode_part` does if no part can be read.
    """
    read = [(part, measured) for part in parts if (measured := _measure(part, decode_part)) is not None]
    if not read:
        return decode_part(parts[0], plan)  # raises
    rate_hz = max((measured for _, measured in read), key=lambda measured: measured.length / measured.rate_hz).rate_hz
    lengths = [round(measured.length * rate_hz / measured.rate_hz) for _, measured in read]
    length = sum(lengths)
    check_caps(rate_hz, 1, length, caps)
    window = plan(rate_hz, length)
    mixer, mono, pieces, begin = Mixer(), [np.zeros(0, dtype=np.float32)], [], 0
    for (part, measured), part_length in zip(read, lengths, strict=True):
        first, stop = max(0, window.first - begin), min(part_length, window.stop - begin)
        begin += part_length
        if first < stop:
            pieces.append(
                _decode_range(part, decode_part, first * measured.rate_hz / rate_hz, stop * measured.rate_hz / rate_hz)
            )
            mixer.add(pieces[-1].mixer)
            mono.append(_fit(pieces[-1], stop - first, rate_hz))
    return Decoded(
        mono=np.concatenate(mono),
        window=window,
        length=length,
        rate_hz=rate_hz,
        channels=max(measured.channels for _, measured in read),
        mixer=mixer,
        gaps=len(read) < len(parts) or any(decoded.gaps for decoded in [*pieces, *(m for _, m in read)]),
        share=min((measured.share for _, measured in read if measured.share is not None), default=None),
        by_libsndfile=False,
    )


def _measure(part: AudioContent, decode_part: DecodePart) -> Decoded | None:
    """Decode the first second of a part, for its length; None where it cannot be read."""
    try:
        return decode_part(part, lambda rate_hz, _: Window(first=0, start=0, stop=rate_hz))
    except ClipError:
        return None


def _decode_range(part: AudioContent, decode_part: DecodePart, first: float, stop: float) -> Decoded:
    window = Window(first=round(first), start=round(first), stop=round(stop))
    return decode_part(part, lambda *_: window)


def _fit(piece: Decoded, length: int, rate_hz: int) -> Float32:
    """Return the samples of a piece at `rate_hz`, cut or padded to `length`, so that the next piece keeps its place."""
    mono = piece.mono
    if piece.rate_hz != rate_hz and len(mono):
        mono = np.asarray(soxr.resample(mono, piece.rate_hz, rate_hz, quality="HQ"), dtype=np.float32)
    return np.concatenate([mono[:length], np.zeros(max(0, length - len(mono)), dtype=np.float32)])
