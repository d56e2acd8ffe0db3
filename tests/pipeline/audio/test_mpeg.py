"""Walking MPEG frames, on generated streams of known length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc.pipeline.audio.mpeg import Walk, find_stream, walk

# Second and third header bytes, frame length, samples, rate: from the tables of ISO 11172-3 and 13818-3 by hand.
KINDS = {
    "MPEG-1 layer III, 128 kbit/s, 44.1 kHz": (0xFB, 0x90, 417, 1152, 44_100),
    "the same, padded": (0xFB, 0x92, 418, 1152, 44_100),
    "MPEG-1 layer III, 320 kbit/s, 48 kHz": (0xFB, 0xE4, 960, 1152, 48_000),
    "MPEG-2 layer III, 64 kbit/s, 22.05 kHz": (0xF3, 0x80, 208, 576, 22_050),
    "MPEG-2.5 layer III, 8 kbit/s, 8 kHz": (0xE3, 0x18, 72, 576, 8_000),
    "MPEG-1 layer II, 192 kbit/s, 48 kHz": (0xFD, 0xA4, 576, 1152, 48_000),
    "MPEG-1 layer I, 384 kbit/s, 32 kHz": (0xFF, 0xC8, 576, 384, 32_000),
}
ID3V1 = b"TAG" + bytes(125)


def frame(kind: str, body: int = 0) -> bytes:
    second, third, length, _, _ = KINDS[kind]
    return bytes([0xFF, second, third, 0xC0]) + bytes([body]) * (length - 4)


def plain_bytes() -> st.SearchStrategy[bytes]:
    """Bytes in which no frame can begin."""
    return st.binary(max_size=600).map(lambda raw: raw.replace(b"\xff", b"\xfe"))


@pytest.mark.parametrize("kind", KINDS)
@given(n_frames=st.integers(3, 40), tail=st.sampled_from([b"", ID3V1, bytes(300)]), before=plain_bytes())
@settings(max_examples=15)
def test_a_whole_stream_is_counted(kind: str, n_frames: int, tail: bytes, before: bytes) -> None:
    data = before + frame(kind) * n_frames + tail
    start = find_stream(data, 0, 1 << 16)
    assert start == len(before)
    samples, rate_hz = KINDS[kind][3:]
    assert walk(data, start) == Walk(samples=n_frames * samples, rate_hz=rate_hz, breaks=0)


@given(runs=st.lists(st.integers(3, 12), min_size=1, max_size=4), junk=st.binary(min_size=1, max_size=900))
def test_breaks_are_counted_and_lose_only_their_frames(runs: list[int], junk: bytes) -> None:
    junk = b"\x00" + junk.replace(b"\xff", b"\xfe")
    item = frame("MPEG-1 layer III, 128 kbit/s, 44.1 kHz")
    data = junk.join(item * run for run in runs)
    assert walk(data, 0) == Walk(samples=1152 * sum(runs), rate_hz=44_100, breaks=len(runs) - 1)


@given(st.integers(4, 30), st.integers(1, 416))
def test_a_last_frame_cut_short_is_not_counted(n_frames: int, left: int) -> None:
    item = frame("MPEG-1 layer III, 128 kbit/s, 44.1 kHz")
    assert walk(item * n_frames + item[:left], 0) == Walk(samples=1152 * n_frames, rate_hz=44_100, breaks=0)


@given(st.binary(max_size=4096))
def test_any_bytes_are_walked_without_an_error(data: bytes) -> None:
    start = find_stream(data, 0, 1 << 16)
    if start is not None:
        result = walk(data, start)
        assert result is None or 0 <= result.samples <= 1152 * len(data)


def test_a_free_format_stream_cannot_be_counted() -> None:
    data = (b"\xff\xfb\x00\xc0" + bytes(700)) * 5
    assert find_stream(data, 0, 1 << 16) == 0
    assert walk(data, 0) is None


def test_concatenated_files_are_one_stream_and_their_tags_no_damage() -> None:
    item = frame("MPEG-1 layer III, 128 kbit/s, 44.1 kHz") * 5
    tag = b"ID3\x03\x00\x00\x00\x00\x00\x64" + bytes(100)
    assert walk(item + tag + item, 0) == Walk(samples=11_520, rate_hz=44_100, breaks=0)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 22_050])
def test_encoded_file_has_the_length_that_its_decoder_gives(tmp_path: Path, mode: str, rate_hz: int) -> None:
    """All but the encoder's delay and padding, which a decoder takes off by the tag in the first frame."""
    x = np.random.default_rng(0).standard_normal(5 * rate_hz) * 0.1
    soundfile.write(tmp_path / "a.mp3", x, rate_hz, bitrate_mode=mode, compression_level=0.5)
    data = (tmp_path / "a.mp3").read_bytes()
    start = find_stream(data, 0, 1 << 16)
    assert start is not None
    result = walk(data, start)
    assert result is not None
    assert (result.rate_hz, result.breaks) == (rate_hz, 0)
    assert 0 <= result.samples - len(x) <= 4 * 1152
