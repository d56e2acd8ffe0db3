"""Second decoder: FFmpeg through PyAV, for files that libsndfile cannot read completely.

It uses only the demuxer that fits the content, and reads from an open file. It cannot open another file, a
playlist or a URL.
"""

from __future__ import annotations

import errno
import itertools
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import soxr
from av.stream import Disposition

from ...cache.errors import ClipError
from ...cache.format.schema import Reason
from .containers import ASF, MATROSKA, WAV, AudioContent, Caps
from .decoded import Decoded, Float32, Mixer, PlaceClip, Window, check_caps, open_range

_PREROLL_S = 1  # decoders need packets before the window: overlap, bit reservoir, Opus' 80 ms
_PRIMING_S = 0.1  # encoder delay that a container may count and a decoder removes
_SHORT_PACKET_S = 0.1
_OVERHEAD_BYTES = 1 << 16  # of a container around its packets: indices, texts, padding
_LONGEST_FILL_S = 5  # a longer jump of the clock is a new clock, not lost audio
_ENCRYPTED_TAGS = {"enca", "drms", "drmi", "aavd", "aavx"}
_HEADERLESS = {"mp3", "aac", "ac3", "dts"}
_NO_DECODER = (av.error.DecoderNotFoundError, av.error.PatchWelcomeError)

av.logging.set_level(av.logging.PANIC)


@dataclass(kw_only=True)
class _Span:
    """Packets of one stream: start, end and jumps of its clock in ticks, and their size in bytes."""

    first: int | None = None
    end: int | None = None
    longest: int = 0
    goes_back: bool = False
    n_bytes: int = 0

    def add(self, packet: av.Packet[Any]) -> None:
        self.n_bytes += packet.size
        if packet.pts is None:
            return
        behind = packet.pts + (packet.duration or 0)
        if self.first is None or self.end is None:
            self.first, self.end = packet.pts, packet.pts
        self.goes_back = self.goes_back or (packet.pts < self.end and behind < self.end)
        self.longest = max(self.longest, behind - self.end)
        self.first, self.end = min(self.first, packet.pts), max(self.end, behind)

    def seconds(self, tick_s: Fraction) -> Fraction:
        return Fraction(0) if self.first is None or self.end is None else (self.end - self.first) * tick_s


@dataclass(frozen=True, kw_only=True)
class _Extent:
    """Extent of a file by its packets, undecoded, in seconds on the stream's own clock.

    Attributes
    ----------
    seekable : the clock never goes backwards.
    partial : much of the file, or of the audio in it, is not in the stream.
    """

    seekable: bool
    partial: bool
    rate_hz: int
    channels: int
    origin_s: Fraction
    end_s: Fraction | None
    declared_share: float | None
    declared_s: float | None

    @property
    def length(self) -> int | None:
        return None if self.end_s is None else max(0, round((self.end_s - self.origin_s) * self.rate_hz))


@dataclass(kw_only=True)
class _Take:
    """Decoded parts with their sample rates, the first error, and frames of silence inserted for lost packets."""

    mixer: Mixer = field(default_factory=Mixer)
    parts: list[tuple[int, Float32]] = field(default_factory=list)
    n_frames: int = 0
    n_filled: int = 0
    damaged: bool = False
    ended: bool = True
    error: Exception | None = None

    def note(self, error: Exception) -> None:
        """Keep the first error, unless it is a missing decoder and a later error contradicts it.

        Raise out-of-memory errors, as the file did not cause them.
        """
        if isinstance(error, MemoryError):
            raise error
        if self.error is None or isinstance(self.error, _NO_DECODER):
            self.error = error

    def mono(self, rate_hz: int) -> Float32:
        """Return all parts; resample parts of another rate (a FLAC stream may change its rate)."""
        resampled = [np.zeros(0, dtype=np.float32)]
        for own_hz, run in itertools.groupby(self.parts, key=operator.itemgetter(0)):
            samples = np.concatenate([part for _, part in run])
            resampled.append(samples if own_hz == rate_hz else soxr.resample(samples, own_hz, rate_hz, quality="HQ"))
        return np.concatenate(resampled)


def decode_with_ffmpeg(path: Path, content: AudioContent, plan: PlaceClip, caps: Caps) -> Decoded:
    """Decode the window that `plan` returns; raises as :func:`mgc.pipeline.audio.clips.decode` does.

    The length comes from reading all packets without decoding; headers are not trusted.
    """
    extent = _extent(path, content, caps)
    length = extent.length
    if length is None:
        length = _decoded_length(path, content, extent)
    check_caps(extent.rate_hz, extent.channels, length, caps)
    window = plan(extent.rate_hz, length)
    take = _take(path, content, window, extent)
    if window.first and take.n_frames < window.stop - window.first:  # packets hold fewer samples than they declare
        length = _decoded_length(path, content, extent)
        window = plan(extent.rate_hz, length)
        take = _take(path, content, window, extent)
    mono = take.mono(extent.rate_hz)[: window.stop - window.first]
    if len(mono) == 0:
        raise _empty_error(take.error, content)
    if 2 * take.n_filled > len(mono):
        raise ClipError(Reason.DECODE_ERROR, "more than half of the audio is lost to damaged packets")
    if take.ended:
        length = window.first + len(mono)
    return Decoded(
        mono=mono,
        window=window,
        length=length,
        rate_hz=extent.rate_hz,
        channels=extent.channels,
        mixer=take.mixer,
        gaps=take.damaged or extent.partial,
        share=_share(content, extent, length),
        by_libsndfile=False,
    )


def _share(content: AudioContent, extent: _Extent, length: int) -> float | None:
    if content.share is not None or extent.declared_share is None:
        return content.share
    if extent.declared_s is None:
        return extent.declared_share
    return min(extent.declared_share, (length / extent.rate_hz + _PRIMING_S) / extent.declared_s)


class _LocalFile:
    """The only file that FFmpeg can read. An impossible seek returns an error code, as FFmpeg expects."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.tell = file.tell
        self._seek = file.seek

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EINVAL)


@contextmanager
def _open(path: Path, content: AudioContent) -> Iterator[tuple[av.container.InputContainer, av.AudioStream]]:
    with open_range(path, content.first, content.stop) as file:
        try:
            container = av.open(_LocalFile(file), mode="r", format=content.container.demuxer, metadata_errors="replace")
        except av.FFmpegError as error:
            raise _open_error(content, error) from None
        with container:
            if not container.streams.audio:
                raise ClipError(Reason.NOT_AUDIO, f"{content.container.name} without an audio stream")
            stream = _main_stream(container)
            context = stream.codec_context
            if context is None:
                raise ClipError(Reason.UNSUPPORTED_CODEC, f"no decoder for this codec in {content.container.name}")
            if (tag := _codec_tag(context)) in _ENCRYPTED_TAGS:
                raise ClipError(Reason.UNSUPPORTED_CODEC, f"encrypted audio ({tag})")
            context.thread_count = 1
            if context.name == "flac":  # or a frame with a wrong checksum comes out as noise
                context.options = {"err_detect": "crccheck+explode"}
            yield container, stream


def _main_stream(container: av.container.InputContainer) -> av.AudioStream:
    """Return the default audio stream of the container; if none or several are marked, the first with most channels."""

    def rank(stream: av.AudioStream) -> tuple[bool, int]:
        context = stream.codec_context
        return bool(stream.disposition & Disposition.default), context.layout.nb_channels if context else 0

    return max(container.streams.audio, key=rank)


def _codec_tag(context: av.AudioCodecContext) -> str:
    try:
        return context.codec_tag
    except UnicodeDecodeError:  # PyAV reads it as ASCII; a tag beyond it is no tag of encryption
        return ""


def _extent(path: Path, content: AudioContent, caps: Caps) -> _Extent:
    with _open(path, content) as (container, stream):
        spans: dict[int, _Span] = {each.index: _Span() for each in container.streams}
        last_s = Fraction(0)  # of any stream: a picture may be longer than the audio
        for packet in _packets(container, None, _Take()):
            spans[packet.stream.index].add(packet)
            if packet.pts is not None and packet.time_base:
                last_s = max(last_s, (packet.pts + (packet.duration or 0)) * packet.time_base)
        longest_s = max(spans[each.index].seconds(_tick_s(each)) for each in container.streams.audio)
        context, tick_s, span = stream.codec_context, _tick_s(stream), spans[stream.index]
        rate_hz, channels = context.sample_rate, context.layout.nb_channels
        if rate_hz < 1 or channels < 1:
            raise ClipError(Reason.BAD_HEADER, f"the header gives {channels} channels at {rate_hz} Hz")
        check_caps(rate_hz, channels, 0, caps)
        origin = stream.start_time if stream.start_time is not None else span.first or 0
        undivided = content.container.declares_length and not stream.duration and len(container.streams) > 1
        declared_s = share = None
        whole_s = (container.duration or 0) / av.time_base
        if undivided:
            share = float(last_s) / whole_s if whole_s else None
        elif content.container.declares_length:
            declared_s = float(stream.duration * tick_s) if stream.duration else whole_s or None
        if declared_s and span.end is not None:
            share = float(span.seconds(tick_s)) / declared_s
        # Matroska has no length of the last packet, and a clock that goes backwards gives no length at all.
        is_estimate = span.goes_back or (content.container is MATROSKA and span.longest * tick_s > _SHORT_PACKET_S)
        return _Extent(
            seekable=not span.goes_back,
            partial=longest_s > 2 * span.seconds(tick_s) or _unread_bytes(container, spans, content),
            rate_hz=rate_hz,
            channels=channels,
            origin_s=origin * tick_s,
            end_s=None if is_estimate or span.end is None else span.end * tick_s,
            declared_share=share,
            declared_s=declared_s,
        )


def _unread_bytes(container: av.container.InputContainer, spans: dict[int, _Span], content: AudioContent) -> bool:
    """Return whether more of the file is outside all packets than a container needs for its own structure."""
    if content.misread_by_libsndfile or any(stream.type == "attachment" for stream in container.streams):
        return False  # bursts in a WAV file are padded with zeros; attachments are no packets
    n_bytes = content.n_bytes - sum(span.n_bytes for span in spans.values())
    return n_bytes > max(_OVERHEAD_BYTES, (0.5 if content.container is ASF else 0.2) * content.n_bytes)


def _tick_s(stream: av.AudioStream) -> Fraction:
    if not stream.time_base:
        raise ClipError(Reason.BAD_HEADER, "a stream without a clock")
    return stream.time_base


def _take(path: Path, content: AudioContent, window: Window, extent: _Extent) -> _Take:
    """Decode `window`, from a seek where the container can, else from the start."""
    far = window.first > 2 * _PREROLL_S * extent.rate_hz
    # After a seek, Windows Media gives frames the time of their neighbours, and WAV one guessed from its byte rate.
    if far and extent.seekable and content.container not in (ASF, WAV):
        take = _decode(path, content, window, extent, seek=True)
        if take is not None:
            return take
    take = _decode(path, content, window, extent, seek=False)
    assert take is not None
    return take


def _decode(path: Path, content: AudioContent, window: Window, extent: _Extent, *, seek: bool) -> _Take | None:
    """Decode `window`; return None if a seek did not reach a known position before the window."""
    take = _Take()
    with _open(path, content) as (container, stream):
        rate_hz, tick_s = extent.rate_hz, _tick_s(stream)
        reach = round((Fraction(1, 50) if tick_s < Fraction(1, 8000) else Fraction(1, 10)) * rate_hz)
        position = None if seek else 0
        if seek:
            target_s = extent.origin_s + Fraction(window.first, rate_hz) - _PREROLL_S
            try:
                container.seek(int(target_s / tick_s), stream=stream)
            except av.FFmpegError:
                return None
        for frame in _frames(container, stream, take):
            stated = None if frame.pts is None else round((frame.pts * tick_s - extent.origin_s) * rate_hz)
            if position is None:
                if stated is None or stated > window.first:
                    return None
                position = stated
            elif stated is not None and reach < stated - position:
                take.damaged = True
                if stated - position <= _LONGEST_FILL_S * rate_hz:
                    fill = max(0, min(stated, window.stop) - max(position, window.first))
                    take.parts.append((rate_hz, np.zeros(fill, dtype=np.float32)))
                    take.n_filled += fill
                    take.n_frames += fill
                    position = stated
            block = _block(frame)
            n_frames = round(len(block) * rate_hz / frame.sample_rate)
            if position + n_frames > window.first:
                early = max(0, round((window.first - position) * frame.sample_rate / rate_hz))
                take.parts.append((frame.sample_rate, take.mixer.mix(block[early:])))
                take.n_frames += n_frames - max(0, window.first - position)
            position += n_frames
            if position >= window.stop:
                take.ended = False
                break
    return take


def _decoded_length(path: Path, content: AudioContent, extent: _Extent) -> int:
    with _open(path, content) as (container, stream):
        frames = _frames(container, stream, _Take())
        return sum(round(frame.samples * extent.rate_hz / frame.sample_rate) for frame in frames)


def _packets(
    container: av.container.InputContainer, stream: av.AudioStream | None, take: _Take
) -> Iterator[av.Packet[av.AudioStream]]:
    """Yield the packets of one stream, or of all streams."""
    try:
        packets: Any = container.demux() if stream is None else container.demux(stream)
        yield from packets
    except av.FFmpegError as error:
        take.note(error)


def _frames(container: av.container.InputContainer, stream: av.AudioStream, take: _Take) -> Iterator[av.AudioFrame]:
    """Yield decodable frames. An error between two frames is damage; at the beginning or end, a truncation."""
    begun = fault = False
    for packet in _packets(container, stream, take):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            take.note(error)
            fault = begun
            continue
        for frame in frames:
            take.damaged = take.damaged or (fault and packet.size > 0)  # the last, empty packet flushes the decoder
            begun, fault = True, frame.is_corrupt
            yield frame


def _block(frame: av.AudioFrame) -> Float32:
    """(n, channels) float32, full scale 1."""
    raw = frame.to_ndarray()
    values = raw.T if frame.format.is_planar else raw.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "u":
        return (values.astype(np.float32) - np.float32(128)) / np.float32(128)
    if values.dtype.kind == "i":
        return values.astype(np.float32) / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float32)


def _open_error(content: AudioContent, error: Exception) -> ClipError:
    if isinstance(error, MemoryError):
        raise error
    name = content.container.name
    if isinstance(error, _NO_DECODER):
        return ClipError(Reason.UNSUPPORTED_CODEC, f"no decoder for this codec in {name}")
    if not content.has_payload:
        return ClipError(Reason.EMPTY, f"{name} header without audio behind it")
    if content.container is ASF or content.container.demuxer in _HEADERLESS:
        return ClipError(Reason.DECODE_ERROR, f"{name} that no decoder can read")
    return ClipError(Reason.BAD_HEADER, f"{name} header that no decoder accepts")


def _empty_error(error: Exception | None, content: AudioContent) -> ClipError:
    if error is None and content.n_bytes < _OVERHEAD_BYTES:
        return ClipError(Reason.EMPTY, "no samples")
    if error is None:
        return ClipError(Reason.DECODE_ERROR, f"no samples are declared, but the file has {content.n_bytes} bytes")
    if isinstance(error, _NO_DECODER):
        return ClipError(Reason.UNSUPPORTED_CODEC, "no decoder for this codec")
    return ClipError(Reason.DECODE_ERROR, f"no packet could be decoded ({type(error).__name__})")
