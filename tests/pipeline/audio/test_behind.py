"""Audio behind other data: tags of a wrong size, padding, a start in mid-frame; and unsupported formats."""

from __future__ import annotations

import functools
import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from mgc.cache.errors import ClipError
from mgc.cache.format.recipe import MelRecipe
from mgc.cache.format.schema import Flag
from mgc.pipeline.audio import clips
from mgc.pipeline.audio.clips import Clip, decode_clip
from mgc.pipeline.audio.tags import after_tags, before_tags

RECIPE = MelRecipe()
NOISE = np.random.default_rng(4).bytes(300_000)


@functools.cache
def audio(kind: str) -> bytes:
    """6 s of noise."""
    samples = np.random.default_rng(1).standard_normal((6 * 44_100, 2)) * 0.1
    options = {"bitrate_mode": "CONSTANT", "compression_level": 0.7} if kind == "mp3" else {}
    file = io.BytesIO()
    soundfile.write(file, samples, 44_100, format=kind.upper(), **options)
    return file.getvalue()


def id3(declared: int, body: bytes) -> bytes:
    return b"ID3\3\0\0" + bytes(declared >> shift & 127 for shift in (21, 14, 7, 0)) + body


def ape(body: bytes, *, header: bool) -> bytes:
    def block(flags: int) -> bytes:
        sizes = (2000).to_bytes(4, "little") + (len(body) + 32).to_bytes(4, "little") + (1).to_bytes(4, "little")
        return b"APETAGEX" + sizes + flags.to_bytes(4, "little") + bytes(8)

    return (block(0xA000_0000) if header else b"") + body + block(0x8000_0000)


def decoded(path: Path, content: bytes) -> Clip:
    path.write_bytes(content)
    return decode_clip(path, RECIPE)


@pytest.mark.parametrize("kind", ["mp3", "flac", "ogg", "wav"])
@pytest.mark.parametrize(
    ("before", "lost_s"),
    [
        (id3(100, bytes(100)), 0),
        (id3(100, bytes(200_000)), 0),  # padding beyond its size
        (id3(100, bytes(100) + b"\xff\xd8\xff\xe0" + NOISE), 0),  # a picture beyond its size
        (id3(1 << 27, bytes(500)), 0),  # larger than the file
        (id3(60_000, bytes(500)), 0.1),  # it would include audio
        (bytes(3_000_000), 0),
        (bytes(2000) + id3(100, bytes(100)), 0),
        (ape(bytes(700), header=True), 0),
        (ape(NOISE, header=True), 0),
    ],
)
def test_audio_behind_tags_and_padding_is_decoded(tmp_path: Path, kind: str, before: bytes, lost_s: float) -> None:
    clip = decoded(tmp_path / f"a.{kind}", before + audio(kind))
    assert clip.seconds == pytest.approx(6, abs=0.11)
    assert set(clip.flags) == {Flag.SHORT}


@pytest.mark.parametrize("at", [1000, 1001, 50_001])
def test_an_mp3_that_begins_in_mid_frame(tmp_path: Path, at: int) -> None:
    content = audio("mp3")
    clip = decoded(tmp_path / "a.mp3", content[at:])
    assert clip.seconds == pytest.approx(6 * (1 - at / len(content)), abs=0.1)
    assert set(clip.flags) == {Flag.SHORT}


COVER = struct.pack("<II", len(NOISE), 2) + b"Cover Art (Front)\0" + NOISE


@pytest.mark.parametrize("kind", ["mp3", "flac", "ogg", "wav"])
@pytest.mark.parametrize(
    "behind",
    [
        ape(COVER, header=True),
        ape(COVER, header=False),
        ape(COVER, header=False) + b"TAG" + bytes(125),
        b"TAG" + bytes(125),
        b"LYRICSBEGIN" + b"LYR50000" + b"la " * 16_667 + b"050020LYRICS200" + b"TAG" + bytes(125),
    ],
)
def test_tags_behind_the_frames_are_no_damage(tmp_path: Path, kind: str, behind: bytes) -> None:
    clip = decoded(tmp_path / f"a.{kind}", audio(kind) + behind)
    assert clip.seconds == pytest.approx(6, abs=0.1)
    assert set(clip.flags) == {Flag.SHORT}


def test_nested_tags_are_removed() -> None:
    tags = id3(50, bytes(50)) + ape(b"x" * 40, header=True) + b"TAG" + bytes(125) + b"LYRICSBEGINabc000014LYRICS200"
    assert after_tags(tags + b"audio", 0) == len(tags)


@given(st.lists(st.sampled_from([b"TAG", b"APETAGEX", b"LYRICS200", b"3DI", b"000015", bytes(4), b"\x7f" * 8])))
def test_any_bytes_have_a_place_before_their_tags(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert 0 <= before_tags(data, len(data)) <= len(data)


@pytest.mark.parametrize(
    "before", [b"\xef\xbb\xbf", b"\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n"]
)
@pytest.mark.parametrize("kind", ["mp3", "flac", "ogg", "wav"])
def test_audio_behind_a_few_text_lines_is_decoded(tmp_path: Path, kind: str, before: bytes) -> None:
    clip = decoded(tmp_path / f"a.{kind}", before + audio(kind))
    assert clip.seconds == pytest.approx(6, abs=0.11)
    assert set(clip.flags) == {Flag.SHORT}


def test_an_mp4_behind_zeros(tmp_path: Path) -> None:
    """Its first bytes are zeros too."""
    with av.open(tmp_path / "a.m4a", "w", format="ipod") as out:
        stream = out.add_stream("aac", rate=44_100, layout="mono")
        for _ in range(100):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1024), 0.1, np.float32), format="fltp", layout="mono")
            frame.sample_rate = 44_100
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    clip = decoded(tmp_path / "b.m4a", bytes(100_000) + (tmp_path / "a.m4a").read_bytes())
    assert clip.seconds == pytest.approx(100 * 1024 / 44_100, abs=0.1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"RIFF\x24\x00\x00\x00AVI LIST" + bytes(64), "UNSUPPORTED_CODEC"),
        (b"RIFF\x24\x00\x00\x00CDXAfmt " + bytes(64), "UNSUPPORTED_CODEC"),
        (b"FLV\x01\x05\0\0\0\x09" + bytes(64), "UNSUPPORTED_CODEC"),
        (b"\0\0\1\xba" + NOISE, "UNSUPPORTED_CODEC"),
        ((b"\x47\x40\x11\x10" + bytes(184)) * 20, "UNSUPPORTED_CODEC"),
        ((bytes(4) + b"\x47\x40\x11\x10" + bytes(184)) * 20, "UNSUPPORTED_CODEC"),
        (b".RMF" + bytes(64), "UNSUPPORTED_CODEC"),
        (b".ra\xfd" + bytes(64), "UNSUPPORTED_CODEC"),
        (b"ajkg\2" + bytes(64), "UNSUPPORTED_CODEC"),
        (b"FORM\0\0\0\x408SVXVHDR" + bytes(64), "UNSUPPORTED_CODEC"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(64), "NOT_AUDIO"),
        (b"FORM\0\0\0\x40ILBMBMHD" + bytes(64), "NOT_AUDIO"),
        (b"PK\3\4" + bytes(200), "NOT_AUDIO"),
        (b"song.mp3" + bytes(249) + b"ustar" + bytes(250), "NOT_AUDIO"),
        (bytes(70_000), "NOT_AUDIO"),
        (id3(100, bytes(70_000)), "EMPTY"),
    ],
)
def test_unsupported_formats_and_non_audio_are_reported(tmp_path: Path, content: bytes, expected: str) -> None:
    with pytest.raises(ClipError) as caught:
        decoded(tmp_path / "song.mp3", content)
    assert caught.value.reason == expected


@pytest.mark.parametrize("archive", [b"PK\3\4" + bytes(26), b"Rar!\x1a\x07" + bytes(20)])
def test_tar_archive_of_songs_is_refused(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(ClipError) as caught:
        decoded(tmp_path / "song.mp3", archive + audio("mp3"))
    assert caught.value.reason == "NOT_AUDIO"


def test_a_wave_tag_beyond_ascii(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).standard_normal((1, 6 * 44_100)).astype(np.float32) * 0.1
    with av.open(tmp_path / "a.wav", "w", format="wav") as out:
        stream = out.add_stream("flac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44_100, 0, Fraction(1, 44_100)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=44_100)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            out.mux([packet for packet in stream.encode(part) if packet.size])
    assert b"\xac\xf1" in (tmp_path / "a.wav").read_bytes()[:64]
    clip = decode_clip(tmp_path / "a.wav", RECIPE)
    assert clip.seconds == pytest.approx(6, abs=0.1)
    assert set(clip.flags) == {Flag.SHORT}


def test_exception_in_one_decoder_falls_back_to_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.flac"
    wanted = decoded(path, audio("flac"))

    def broken(*_: object) -> None:
        raise UnicodeDecodeError("ascii", b"\xac", 0, 1, "as a binding raises it")

    monkeypatch.setattr(clips, "decode_with_libsndfile", broken)
    np.testing.assert_allclose(decode_clip(path, RECIPE).samples, wanted.samples, atol=1e-4)
