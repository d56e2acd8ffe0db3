"""Read a clip of an audio file: decode, mix down, resample, crop, zero-pad, and set flags.

``decode_clip`` works in this process; :class:`ClipReader` (from :mod:`.clip_reader`) does the same in a child process,
so that a hostile file that crashes, stalls or bloats it fails on its own.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...cache.errors import ClipError
from ...cache.format.recipe import MelRecipe
from ...cache.format.schema import Flag, Reason
from .concatenated import decode_concatenated
from .containers import MPEG, AudioContent, Caps, examine, extension_fits
from .decoded import ClipFacts, Decoded, Float32, PlaceClip, Window
from .libsndfile import decode_with_libsndfile

NEARLY_A_CLIP_S = 1.0
"""A file longer than the clip by no more than this (31 s for 30 s) is cropped at its start, whatever the policy."""

SILENT_PEAK = 1e-4
CLIPPED_SHARE = 1e-3
TRUNCATED_SHARE = 0.95

use_libsndfile = True
"""Whether this process uses libsndfile; False in the child that replaces a crashed one."""

_SETTLE_S = 0.5  # decoded on either side of a crop, so that resampling it equals cropping the whole file resampled
_GRID_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Clip(ClipFacts):
    """A clip of one file.

    Attributes
    ----------
    samples : (n_samples,) float32, mono, at the recipe's rate, zeros beyond the audio.
    n_valid : samples that hold audio.
    """

    samples: Float32
    n_valid: int


def decode_clip(
    path: str | os.PathLike[str], recipe: MelRecipe, caps: Caps | None = None, start_s: float | None = None
) -> Clip:
    """Read the clip of one audio file.

    Parameters
    ----------
    path : a file of any format that libsndfile or FFmpeg reads; its name is not trusted.
    recipe : rate, length, offset policy and backend.
    caps : limits, :class:`Caps` by default.
    start_s : start of the clip in seconds, in place of the policy.

    Raises
    ------
    ClipError
        With a :class:`Reason`. Its detail holds no path, address or time: it is the same on every run.

    Notes
    -----
    Downmix: ``0.5 (L + R)``, the mean for other numbers of channels. Resampling: soxr, quality HQ, as
    ``librosa.load`` does it, after the downmix. The crop of a long file begins on a source frame that is also a frame
    of the target rate, so that it equals the same crop of the whole file resampled.
    """
    path, caps = Path(path), caps or Caps()
    content = examine(path, caps)
    decoded = decode(path, content, functools.partial(_window, recipe=recipe, start_s=start_s), caps)
    seconds = decoded.length / decoded.rate_hz
    if decoded.length <= decoded.window.start:
        raise ClipError(Reason.EMPTY, "no samples")
    if seconds < recipe.min_clip_s:
        raise ClipError(Reason.TOO_SHORT, f"{seconds:.4f} s of audio; at least {recipe.min_clip_s} s are needed")
    if not decoded.mixer.finite:
        raise ClipError(Reason.NONFINITE, "samples that are NaN or infinite")
    samples, n_valid, n_total = _fit(path, decoded, recipe)
    mismatch = Flag(0) if extension_fits(path, content.container) else Flag.EXT_MISMATCH
    return Clip(
        samples=samples,
        n_valid=n_valid,
        offset_s=decoded.window.start / decoded.rate_hz,
        seconds=seconds,
        sample_rate_hz=decoded.rate_hz,
        channels=decoded.channels,
        flags=mismatch | _flags(decoded, samples, n_total, recipe),
    )


def audio_seconds(path: Path, caps: Caps) -> float:
    """Return the decodable length of the audio in a file in s, whatever its header declares; decode its first second.

    Raises as :func:`decode_clip` does.
    """
    decoded = decode(path, examine(path, caps), lambda rate_hz, _: Window(first=0, start=0, stop=rate_hz), caps)
    return decoded.length / decoded.rate_hz


def decode(path: Path, content: AudioContent, plan: PlaceClip, caps: Caps) -> Decoded:
    """Decode the window that `plan` returns by the first decoder that reads all of it, else the one that reads more.

    Raises
    ------
    ClipError
        ``TOO_LARGE``, ``BAD_HEADER``, ``UNSUPPORTED_CODEC``, ``DECODE_ERROR``, ``NOT_AUDIO`` or ``EMPTY``.

    Notes
    -----
    Both decoders stop without an error at damage or truncation. So the decoded length is always compared with the
    structure of the file (:class:`mgc.pipeline.audio.containers.AudioContent`).
    """
    if content.parts:
        return decode_concatenated(content.parts, lambda part, plan: decode(path, part, plan, caps), plan, caps)
    broken = content.unread or (content.walk is not None and content.walk.breaks > 0)
    by_libsndfile = use_libsndfile and content.container.libsndfile and not content.misread_by_libsndfile
    first = _decode_with_libsndfile(path, content, plan, caps) if by_libsndfile else None
    if first is not None and first.whole:
        return replace(first, gaps=broken)
    from .ffmpeg import decode_with_ffmpeg

    try:
        second = decode_with_ffmpeg(path, content, plan, caps)
    except MemoryError:
        raise
    except Exception:  # of the file, or of the binding
        if first is None or 2 * len(first.mono) < min(first.window.stop, first.length) - first.window.first:
            raise
        return replace(first, gaps=True)
    if first is not None and len(first.mono) > len(second.mono):
        return replace(first, gaps=True)
    stumbles = content.container is MPEG and content.walk is not None  # FFmpeg does, where MPEG files are concatenated
    return replace(second, gaps=broken or (second.gaps and not stumbles))


def _decode_with_libsndfile(path: Path, content: AudioContent, plan: PlaceClip, caps: Caps) -> Decoded | None:
    """Decode with libsndfile; return None if it raises, so that FFmpeg can try the file."""
    try:
        return decode_with_libsndfile(path, content, plan, caps)
    except (ClipError, MemoryError):
        raise
    except Exception:
        return None


def _window(rate_hz: int, length: int, *, recipe: MelRecipe, start_s: float | None) -> Window:
    """Place the clip in audio of `length` frames."""
    clip, settle = math.ceil(recipe.clip_s * rate_hz), math.ceil(_SETTLE_S * rate_hz)
    whole = math.ceil((recipe.clip_s + NEARLY_A_CLIP_S) * rate_hz)
    if start_s is not None:
        start = round(start_s * rate_hz)
    elif length <= whole:
        return Window(first=0, start=0, stop=whole + settle)  # to the end, for the true length
    else:
        start = (length - clip) // 2 if recipe.offset == "middle" else 0
    period = rate_hz // math.gcd(rate_hz, recipe.sample_rate_hz)  # source and target frames meet every `period`
    if period <= _GRID_S * rate_hz:
        start -= start % period
    lead = min(math.ceil(settle / period), start // period) * period
    return Window(first=start - lead, start=start, stop=start + clip + settle)


def _fit(path: Path, decoded: Decoded, recipe: MelRecipe) -> tuple[Float32, int, int]:
    """Return the clip at the recipe's rate, the number of its valid samples, and the number in the rest of the file."""
    target_hz, window = recipe.sample_rate_hz, decoded.window
    if recipe.backend == "librosa":
        resampled = _librosa_load(path, decoded, target_hz)
    else:
        resampled = _resample(decoded, target_hz)
    skip = (window.start - window.first) * target_hz // decoded.rate_hz
    n_total = math.ceil((decoded.length - window.start) * target_hz / decoded.rate_hz)
    n_valid = min(n_total, recipe.n_samples)
    samples = resampled[skip : skip + n_valid]
    if len(samples) < recipe.n_samples:
        samples = np.concatenate([samples, np.zeros(recipe.n_samples - len(samples), dtype=np.float32)])
    return samples, n_valid, n_total


def _resample(decoded: Decoded, target_hz: int) -> Float32:
    if decoded.rate_hz == target_hz:
        return decoded.mono
    import soxr

    return np.asarray(soxr.resample(decoded.mono, decoded.rate_hz, target_hz, quality="HQ"), dtype=np.float32)


def _librosa_load(path: Path, decoded: Decoded, target_hz: int) -> Float32:
    """Load with ``librosa.load``, the reference; resample files that only FFmpeg reads with librosa."""
    import librosa
    import soundfile

    if not decoded.by_libsndfile:
        return np.asarray(
            librosa.resample(decoded.mono, orig_sr=decoded.rate_hz, target_sr=target_hz), dtype=np.float32
        )
    window, rate_hz = decoded.window, decoded.rate_hz
    half = 0.5  # librosa rounds seconds down to frames
    with soundfile.SoundFile(os.fsencode(path)) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # audioread, which it looks up, imports aifc
        loaded, _ = librosa.load(
            file,
            sr=target_hz,
            offset=(window.first + half) / rate_hz if window.first else 0.0,
            duration=(window.stop - window.first + half) / rate_hz,
        )
    return np.asarray(loaded, dtype=np.float32)


def _flags(decoded: Decoded, samples: Float32, n_total: int, recipe: MelRecipe) -> Flag:
    """Derive flags from the audio itself. Silence is judged on the clip as it will be stored."""
    tests = {
        Flag.TRUNCATED: decoded.share is not None and decoded.share < TRUNCATED_SHARE,
        Flag.DECODE_GAPS: decoded.gaps,
        Flag.UPSAMPLED: decoded.rate_hz < recipe.sample_rate_hz,
        Flag.MULTICHANNEL: decoded.channels > 2,
        Flag.SILENT: max(samples.max(), -samples.min()) < SILENT_PEAK,
        Flag.CLIPPED: decoded.mixer.clipped_share >= CLIPPED_SHARE,
        Flag.SHORT: n_total < recipe.n_samples,
        Flag.LONG: n_total > recipe.n_samples,
    }
    return functools.reduce(operator.or_, (flag for flag, present in tests.items() if present), Flag(0))
