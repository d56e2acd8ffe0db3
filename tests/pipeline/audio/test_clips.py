"""Decoding: offsets, formats, and every row of the table of bad inputs that concerns audio, on generated files."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import librosa
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from mgc.cache.errors import ClipError
from mgc.cache.format.recipe import MelRecipe
from mgc.cache.format.schema import Flag
from mgc.pipeline.audio.clips import Clip, decode, decode_clip
from mgc.pipeline.audio.containers import Caps, examine
from mgc.pipeline.audio.containers import Caps as FormatCaps
from mgc.pipeline.audio.decoded import Window

pytestmark = pytest.mark.filterwarnings("ignore:'(aifc|audioop|sunau)' is deprecated:DeprecationWarning")  # librosa's

RECIPE = MelRecipe()
START = MelRecipe(offset="start")
TARGET_HZ = 22_050

Float32 = npt.NDArray[np.float32]


def everything(_: int, length: int) -> Window:
    return Window(first=0, start=0, stop=length)


def music(seconds: float, rate_hz: int = 44_100, channels: int = 1, seed: int = 3) -> Float32:
    """(n, channels) float32: band-limited noise whose loudness wanders, so that no two moments are alike."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate_hz)
    x = rng.standard_normal((n, channels))
    x = (x + np.roll(x, 1, axis=0) + np.roll(x, 2, axis=0) + np.roll(x, 3, axis=0)) / 4
    loudness = 0.1 + 0.08 * np.sin(2 * np.pi * 0.37 * np.arange(n) / rate_hz)
    return (x * loudness[:, np.newaxis]).astype(np.float32)


def write(path: Path, samples: Float32, rate_hz: int = 44_100, **options: str) -> Path:
    soundfile.write(path, samples, rate_hz, **options)
    return path


def encode(path: Path, samples: Float32, codec: str, container: str, rate_hz: int = 44_100) -> Path:
    """Write with FFmpeg what libsndfile cannot write."""
    with av.open(path, "w", format=container) as out:
        layout = "mono" if samples.shape[1] == 1 else "stereo"
        stream = out.add_stream(codec, rate=rate_hz, layout=layout)
        stream.bit_rate = 128_000
        if codec in ("alac", "wavpack", "tta"):
            stream.codec_context.format = "s16" if codec == "tta" else "s16p"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate_hz)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(part):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return path


def reason(path: Path, caps: Caps | None = None) -> str:
    with pytest.raises(ClipError) as caught:
        decode_clip(path, RECIPE, caps)
    assert str(path.parent) not in caught.value.detail
    return str(caught.value.reason)


def only(clip: Clip, *expected: Flag) -> bool:
    """The flags are these and no others."""
    return set(clip.flags) == set(expected)


# Offsets and lengths


@pytest.mark.parametrize(
    ("seconds", "policy", "offset_s", "flag"),
    [
        (10, "middle", 0, Flag.SHORT),
        (30, "middle", 0, None),
        (31, "middle", 0, Flag.LONG),
        (40, "middle", 5, Flag.LONG),
        (40, "start", 0, Flag.LONG),
    ],
)
def test_offset_policy(tmp_path: Path, seconds: float, policy: str, offset_s: float, flag: Flag | None) -> None:
    clip = decode_clip(write(tmp_path / "a.wav", music(seconds, 22_050), 22_050), MelRecipe(offset=policy))
    assert clip.offset_s == offset_s
    assert clip.seconds == seconds
    assert clip.n_valid == min(seconds, 30) * 22_050
    assert only(clip, *[flag] if flag else [])
    assert clip.samples.shape == (661_500,)
    assert clip.samples.dtype == np.float32


def test_a_short_file_is_padded_with_zeros(tmp_path: Path) -> None:
    x = music(2, 22_050)
    clip = decode_clip(write(tmp_path / "a.wav", x, 22_050, subtype="FLOAT"), RECIPE)
    np.testing.assert_array_equal(clip.samples[: len(x)], x[:, 0])
    assert not clip.samples[len(x) :].any()


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 32_000, 35_467, 44_100, 48_000, 96_000, 192_000])
def test_every_rate_resamples_as_librosa_load_does(tmp_path: Path, rate_hz: int) -> None:
    path = write(tmp_path / "a.wav", music(3, rate_hz, 2), rate_hz, subtype="FLOAT")
    clip = decode_clip(path, RECIPE)
    wanted, _ = librosa.load(path, sr=TARGET_HZ)
    assert clip.n_valid == len(wanted)
    np.testing.assert_allclose(clip.samples[: len(wanted)], wanted, atol=1e-6)
    assert only(clip, Flag.SHORT, *[Flag.UPSAMPLED] if rate_hz < TARGET_HZ else [])


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("backend", ["fast", "librosa"])
def test_a_crop_from_the_middle_equals_the_crop_of_the_whole_file_resampled(
    tmp_path: Path, rate_hz: int, backend: str
) -> None:
    path = write(tmp_path / "a.wav", music(47.3, rate_hz), rate_hz, subtype="FLOAT")
    clip = decode_clip(path, MelRecipe(backend=backend))
    whole, _ = librosa.load(path, sr=TARGET_HZ)
    first = clip.offset_s * TARGET_HZ
    assert first == pytest.approx(round(first), abs=1e-6)
    np.testing.assert_allclose(clip.samples, whole[round(first) :][:661_500], atol=1e-6)
    assert clip.offset_s == pytest.approx((47.3 - 30) / 2, abs=0.05)


def test_middle_of_an_hour_reads_only_the_window(tmp_path: Path) -> None:
    """One hour of stereo WAV as a sparse file of 635 MB, of which only the middle may be read."""
    path, mark = tmp_path / "hour.wav", music(30, channels=2)
    n_bytes = 3600 * 44_100 * 4
    with path.open("wb") as file:
        header = b"RIFF" + struct.pack("<I", n_bytes + 36) + b"WAVEfmt " + struct.pack("<I", 16)
        header += struct.pack("<HHIIHH", 1, 2, 44_100, 44_100 * 4, 4, 16) + b"data" + struct.pack("<I", n_bytes)
        file.write(header)
        file.seek(44 + 1785 * 44_100 * 4)
        file.write((mark * 32_767).astype("<i2").tobytes())
        file.truncate(44 + n_bytes)
    cpu = os.times()
    clip = decode_clip(path, RECIPE)
    spent = os.times()
    assert clip.offset_s == 1785
    assert clip.seconds == 3600
    assert np.abs(clip.samples).min() < np.abs(clip.samples).max() > 0.05
    assert spent.user + spent.system - cpu.user - cpu.system < 2


# Formats: each is read in full, and in the middle after a seek


def coded(path: Path, x: Float32, codec: str) -> Path:
    if codec == "aac":
        return encode(path, x, "aac", {".aac": "adts", ".m4a": "mp4", ".mka": "matroska"}[path.suffix])
    if codec in ("alac", "wavpack", "tta", "wmav2"):
        return encode(path, x, codec, {"alac": "ipod", "wavpack": "wv", "tta": "tta", "wmav2": "asf"}[codec])
    if codec == "libopus":
        return encode(path, x, codec, "webm", 48_000)
    return write(path, x)


@pytest.mark.parametrize(
    ("name", "codec", "error", "late_ms"),
    [
        ("a.flac", "", 1e-4, 0),
        ("a.aiff", "", 1e-4, 0),
        ("a.m4a", "alac", 1e-4, 0),
        ("a.wv", "wavpack", 1e-4, 0),
        ("a.tta", "tta", 1e-4, 0),
        ("a.ogg", "", 0.02, 0),
        ("a.mp3", "", 0.02, 0),
        ("a.m4a", "aac", 0.02, 0),
        ("a.aac", "aac", 0.02, 47),  # a raw stream does not declare its encoder delay
        ("a.wma", "wmav2", 0.02, 47),  # nor does this one
        ("a.webm", "libopus", 0.02, 1.1),  # a clock of milliseconds
        ("a.mka", "aac", 0.02, 1.1),
    ],
)
def test_middle_of_any_format_has_the_right_position(
    tmp_path: Path, name: str, codec: str, error: float, late_ms: float
) -> None:
    """A seek gives the same samples as decoding from the start."""
    rate_hz = 48_000 if codec == "libopus" else 44_100
    x = music(40, rate_hz)
    path = coded(tmp_path / name, x, codec)
    clip, from_start = decode_clip(path, RECIPE), decode_clip(path, START)
    assert clip.seconds == pytest.approx(40, abs=0.08)
    assert clip.offset_s == pytest.approx(5, abs=0.08)
    assert only(clip, Flag.LONG)
    assert from_start.offset_s == 0
    whole, _ = librosa.load(write(tmp_path / "b.wav", x, rate_hz, subtype="FLOAT"), sr=TARGET_HZ)
    first = round(clip.offset_s * TARGET_HZ)
    shift, result = best_shift(clip.samples, whole, first)
    assert abs(shift) <= late_ms * TARGET_HZ / 1000
    assert result < error
    shift, result = best_shift(clip.samples, from_start.samples, first)
    assert abs(shift) <= (late_ms if late_ms < 2 else 0) * TARGET_HZ / 1000
    assert result < 1e-6 or late_ms


def best_shift(clip: Float32, longer: Float32, first: int) -> tuple[int, float]:
    """How much later than `first` the audio at 2 s of `clip` is found in `longer`, and how unlike it is (rms)."""
    here = clip[44_100:88_200]
    error = {
        shift: float(np.sqrt(np.mean((here - longer[first + 44_100 + shift :][: len(here)]) ** 2)))
        for shift in range(-1_200, 1_201)
    }
    return min(error, key=lambda shift: error[shift]), min(error.values())


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "GSM610"]
)
def test_sample_formats_of_wav(tmp_path: Path, subtype: str) -> None:
    coarse = {"PCM_U8": 0.01, "ULAW": 0.03, "ALAW": 0.03, "IMA_ADPCM": 0.2, "GSM610": 0.5}
    rate_hz = 8_000 if subtype == "GSM610" else 22_050
    x = music(2, rate_hz)
    clip = decode_clip(write(tmp_path / "a.wav", x, rate_hz, subtype=subtype), RECIPE)
    assert clip.seconds == pytest.approx(2, abs=0.05)
    if rate_hz == TARGET_HZ:
        np.testing.assert_allclose(clip.samples[: len(x)], x[:, 0], atol=coarse.get(subtype, 1e-4))
    assert Flag.TRUNCATED not in clip.flags


# Channels


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_the_downmix_is_the_mean(tmp_path: Path, channels: int) -> None:
    x = music(4, 22_050, channels)
    clip = decode_clip(write(tmp_path / "a.wav", x, 22_050, subtype="FLOAT"), RECIPE)
    np.testing.assert_allclose(clip.samples[: len(x)], x.mean(axis=1), atol=1e-7)
    assert clip.channels == channels
    assert (Flag.MULTICHANNEL in clip.flags) == (channels > 2)


def test_stereo_is_half_the_sum_exactly(tmp_path: Path) -> None:
    x = music(4, 22_050, 2)
    clip = decode_clip(write(tmp_path / "a.wav", x, 22_050, subtype="FLOAT"), RECIPE)
    np.testing.assert_array_equal(clip.samples[: len(x)], np.float32(0.5) * (x[:, 0] + x[:, 1]))


# Properties of the audio


def test_silence_is_kept_and_flagged(tmp_path: Path) -> None:
    clip = decode_clip(write(tmp_path / "a.wav", np.zeros((22_050, 1), dtype=np.float32), 22_050), RECIPE)
    assert only(clip, Flag.SHORT, Flag.SILENT)


def test_channels_that_cancel_are_silence_in_the_clip(tmp_path: Path) -> None:
    x = music(1, 22_050)
    path = write(tmp_path / "a.wav", np.hstack([x, -x]), 22_050, subtype="FLOAT")
    assert only(decode_clip(path, RECIPE), Flag.SHORT, Flag.SILENT)


@pytest.mark.parametrize("side", [1, -1])
def test_one_sided_waveform_is_not_silent(tmp_path: Path, side: int) -> None:
    path = write(tmp_path / "a.wav", side * np.abs(music(1, 22_050)), 22_050, subtype="FLOAT")
    assert only(decode_clip(path, RECIPE), Flag.SHORT)


@pytest.mark.parametrize(
    ("subtype", "gain", "clipped"), [("FLOAT", 3, True), ("PCM_16", 3, True), ("PCM_16", 0.9, False)]
)
def test_clipping_is_flagged(tmp_path: Path, subtype: str, gain: float, clipped: bool) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(22_050) / 22_050) * gain
    path = write(tmp_path / "a.wav", np.clip(tone, -1, 1).astype(np.float32)[:, np.newaxis], 22_050, subtype=subtype)
    assert (Flag.CLIPPED in decode_clip(path, RECIPE).flags) == clipped


def test_clipped_samples_are_counted_in_every_channel_all_through(tmp_path: Path) -> None:
    x = music(4, 22_050, channels=2)
    x[::1000, 0], x[500::1000, 1] = 1, -1  # their mean clips nowhere
    path = write(tmp_path / "a.wav", x, 22_050, subtype="FLOAT")
    decoded = decode(path, examine(path, Caps()), everything, Caps())
    assert decoded.mixer.clipped_share == np.count_nonzero(np.abs(x) == 1) / x.size > 0.0009


def test_samples_over_full_scale_are_not_cut(tmp_path: Path) -> None:
    x = music(1, 22_050) * 40
    clip = decode_clip(write(tmp_path / "a.wav", x, 22_050, subtype="FLOAT"), RECIPE)
    assert np.abs(clip.samples).max() == np.abs(x).max() > 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_fail(tmp_path: Path, bad: float) -> None:
    x = music(4, 22_050)
    x[40_000] = bad  # neither in the first nor in the last block of the mixer
    assert reason(write(tmp_path / "a.wav", x, 22_050, subtype="FLOAT")) == "NONFINITE"


# Files that are not audio


def test_missing_or_unreadable_file_is_src_missing(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.mp3") == "SRC_MISSING"
    assert reason(tmp_path / "none.mp3" / "deeper.mp3") == "SRC_MISSING"
    assert reason(tmp_path / "nul\0.mp3") == "SRC_MISSING"
    (tmp_path / "loop.mp3").symlink_to(tmp_path / "loop.mp3")
    assert reason(tmp_path / "loop.mp3") == "SRC_MISSING"


def test_unreadable_lyrics_fail(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(1))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads every file")
    assert reason(path) == "SRC_MISSING"


def test_folder_pipe_and_device_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.mp3").mkdir()
    os.mkfifo(tmp_path / "pipe.mp3")
    assert reason(tmp_path / "folder.mp3") == "SRC_NOT_REGULAR"
    assert reason(tmp_path / "pipe.mp3") == "SRC_NOT_REGULAR"
    assert reason(Path("/dev/zero")) == "SRC_NOT_REGULAR"


ID3 = b"ID3\x03\x00\x00\x00\x00\x07\x68" + bytes(1000)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "EMPTY"),
        (ID3, "EMPTY"),
        (ID3[:500], "EMPTY"),
        (ID3 + b"TAG" + bytes(125), "EMPTY"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "NOT_AUDIO"),
        (b"\n\n<html>\xff\xfb\x90\x64</html>", "NOT_AUDIO"),
        (b"#EXTM3U\n#EXTINF:10,\nhttp://example.org/a.ts\n", "NOT_AUDIO"),
        (b"[playlist]\nFile1=/etc/passwd\n", "NOT_AUDIO"),
        (b"ffconcat version 1.0\nfile a.wav\n", "NOT_AUDIO"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "NOT_AUDIO"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(64), "NOT_AUDIO"),
        (b"PK\x03\x04" + bytes(64), "NOT_AUDIO"),
        (b"just some words", "NOT_AUDIO"),
        (bytes(5000), "NOT_AUDIO"),
        (np.random.default_rng(5).bytes(200_000), "NOT_AUDIO"),
        (b"fLaC" + np.random.default_rng(5).bytes(5000), "BAD_HEADER"),
        (b"RIFF\x24\x00\x00\x00WAVE", "BAD_HEADER"),
        (b"OggS" + bytes(500), "BAD_HEADER"),
        (b"\x00\x00\x00\x18ftypM4A " + bytes(500), "BAD_HEADER"),
    ],
)
def test_non_audio_content_is_reported(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(content)
    assert reason(path) == expected


def test_zero_samples(tmp_path: Path) -> None:
    nothing = np.zeros((0, 1), dtype=np.float32)
    assert reason(write(tmp_path / "a.wav", nothing)) == "EMPTY"
    assert reason(write(tmp_path / "a.aiff", nothing)) == "EMPTY"


def test_audio_below_min_clip_s_is_too_short(tmp_path: Path) -> None:
    assert reason(write(tmp_path / "a.wav", music(0.049))) == "TOO_SHORT"
    assert only(decode_clip(write(tmp_path / "b.wav", music(0.05)), RECIPE), Flag.SHORT)


def test_video_without_audio_is_not_audio(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), i, dtype=np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    assert reason(tmp_path / "a.mp4") == "NOT_AUDIO"


# Names


@pytest.mark.parametrize(
    ("name", "mismatch"),
    [("a.mp3", True), ("a.txt", True), ("a.flac", False), ("A.FLAC", False), ("no extension", False)],
)
def test_the_content_decides_and_a_wrong_extension_is_flagged(tmp_path: Path, name: str, mismatch: bool) -> None:
    flac = write(tmp_path / "source.flac", music(1))
    clip = decode_clip(flac.rename(tmp_path / name), RECIPE)
    assert only(clip, Flag.SHORT, *[Flag.EXT_MISMATCH] if mismatch else [])


def test_names_that_ffmpeg_would_read_as_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.m4a", "data:audio,x.m4a", "%d.m4a", os.fsdecode(b"not utf-8 \xff.m4a")):
        path = encode(tmp_path / "a.m4a", music(1), "aac", "mp4").rename(tmp_path / name)
        assert only(decode_clip(Path(name), RECIPE), Flag.SHORT)
        path.unlink()


# Damage


def test_codecs_without_decoder_and_encrypted_audio_are_unsupported(tmp_path: Path) -> None:
    wav = bytearray(write(tmp_path / "a.wav", music(1)).read_bytes())
    wav[20:22] = b"\x34\x12"
    (tmp_path / "b.wav").write_bytes(wav)
    assert reason(tmp_path / "b.wav") == "UNSUPPORTED_CODEC"
    m4a = encode(tmp_path / "a.m4a", music(1), "aac", "mp4").read_bytes()
    for tag in (b"enca", b"drms"):
        (tmp_path / "b.m4a").write_bytes(m4a.replace(b"mp4a", tag, 1))
        assert reason(tmp_path / "b.m4a") == "UNSUPPORTED_CODEC"


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("a.wav", lambda path, x: write(path, x)),
        ("a.aiff", lambda path, x: write(path, x)),
        ("a.au", lambda path, x: write(path, x)),
        ("a.caf", lambda path, x: write(path, x)),
        ("a.flac", lambda path, x: write(path, x)),
        ("a.mka", lambda path, x: encode(path, x, "aac", "matroska")),
        ("a.wv", lambda path, x: encode(path, x, "wavpack", "wv")),
        ("a.wma", lambda path, x: encode(path, x, "wmav2", "asf")),
    ],
)
@pytest.mark.parametrize("seconds", [10, 60])
def test_truncated_file_is_flagged_and_has_the_remaining_length(
    tmp_path: Path, name: str, encoder: Callable[[Path, Float32], Path], seconds: int
) -> None:
    path = encoder(tmp_path / name, music(seconds))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    clip = decode_clip(path, RECIPE)
    assert Flag.TRUNCATED in clip.flags
    assert Flag.DECODE_GAPS not in clip.flags
    assert clip.seconds == pytest.approx(0.6 * seconds, rel=0.06)
    assert clip.offset_s == pytest.approx(max(0, (clip.seconds - 30) / 2) if clip.seconds > 31 else 0, abs=0.01)
    assert np.abs(clip.samples[: clip.n_valid][-1000:]).max() > 0 or name == "a.wma"
    if name == "a.wv" and seconds == 10:
        return  # blocks of a second: nine of ten are left
    path.write_bytes(content[: len(content) * 98 // 100])
    assert Flag.TRUNCATED not in decode_clip(path, RECIPE).flags


def test_truncated_m4a_with_leading_index_is_flagged(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", music(20), "aac", "mp4")
    with (
        av.open(path) as source,
        av.open(tmp_path / "b.m4a", "w", format="mp4", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    content = (tmp_path / "b.m4a").read_bytes()
    assert only(decode_clip(tmp_path / "b.m4a", RECIPE), Flag.SHORT)
    (tmp_path / "b.m4a").write_bytes(content[: len(content) // 2])
    clip = decode_clip(tmp_path / "b.m4a", RECIPE)
    assert Flag.TRUNCATED in clip.flags
    assert clip.seconds == pytest.approx(10, abs=0.7)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_file_truncated_to_a_few_bytes_fails_with_a_reason(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, music(10))
    content = path.read_bytes()
    header = len(content) - 10 * 44_100 * 2
    path.write_bytes(content[: header + 2 * 2_300])
    assert only(decode_clip(path, RECIPE), Flag.SHORT, Flag.TRUNCATED)
    path.write_bytes(content[: header + 2 * 2_000])
    assert reason(path) == "TOO_SHORT"
    path.write_bytes(content[:header])
    assert reason(path) == "EMPTY"


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_FFFF])
def test_a_wav_written_to_a_pipe_declares_nothing(tmp_path: Path, size: int) -> None:
    content = bytearray(write(tmp_path / "a.wav", music(3)).read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    clip = decode_clip(tmp_path / "a.wav", RECIPE)
    assert only(clip, Flag.SHORT)
    assert clip.seconds == pytest.approx(3)


def test_a_flac_of_unknown_length(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.flac", music(40)).read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # STREAMINFO: total samples, 36 bits
    (tmp_path / "a.flac").write_bytes(content)
    clip = decode_clip(tmp_path / "a.flac", RECIPE)
    assert (clip.seconds, clip.offset_s) == (40, 5)
    assert only(clip, Flag.LONG)


def test_flac_whose_header_declares_days_is_truncated_not_too_large(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.flac", music(3)).read_bytes())
    content[21] |= 0x0F
    (tmp_path / "a.flac").write_bytes(content)
    clip = decode_clip(tmp_path / "a.flac", RECIPE)
    assert only(clip, Flag.SHORT, Flag.TRUNCATED)
    assert clip.seconds == 3


def test_damaged_flac_keeps_its_timing(tmp_path: Path) -> None:
    """The second decoder leaves a silence where frames are lost; what follows stays in its place."""
    x = music(20)
    path = write(tmp_path / "a.flac", x)
    whole = decode_clip(path, RECIPE)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 5_000] = np.random.default_rng(2).bytes(5_000)
    path.write_bytes(content)
    clip = decode_clip(path, RECIPE)
    assert only(clip, Flag.SHORT, Flag.DECODE_GAPS)
    assert clip.seconds == 20
    np.testing.assert_allclose(clip.samples[: 9 * TARGET_HZ], whole.samples[: 9 * TARGET_HZ], atol=1e-4)
    np.testing.assert_allclose(clip.samples[11 * TARGET_HZ :], whole.samples[11 * TARGET_HZ :], atol=1e-4)


def test_ogg_with_lost_pages_keeps_its_timing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ogg", music(20))
    whole = decode_clip(path, RECIPE)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 12_000] = np.random.default_rng(2).bytes(12_000)
    path.write_bytes(content)
    clip = decode_clip(path, RECIPE)
    assert only(clip, Flag.SHORT, Flag.DECODE_GAPS)
    assert clip.seconds == pytest.approx(20, abs=0.01)
    np.testing.assert_allclose(clip.samples[15 * TARGET_HZ :], whole.samples[15 * TARGET_HZ :], atol=1e-3)


@pytest.mark.parametrize("junk", [bytes(20_000), np.random.default_rng(2).bytes(20_000), b""])
def test_damaged_mp3_is_decoded_after_the_damage(tmp_path: Path, junk: bytes) -> None:
    path = write(tmp_path / "a.mp3", music(20), bitrate_mode="CONSTANT", compression_level=0.5)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + junk + content[middle + 20_000 :])
    clip = decode_clip(path, RECIPE)
    lost_s = 20_000 / len(content) * 20
    assert only(clip, Flag.SHORT, Flag.DECODE_GAPS)
    assert clip.seconds == pytest.approx(20 - lost_s, abs=0.2)


def test_flac_without_intact_frames_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", music(10))
    content = path.read_bytes()
    noise = np.random.default_rng(2).bytes(len(content))
    path.write_bytes(content[:100] + noise[100:])
    assert reason(path) in ("DECODE_ERROR", "EMPTY")


def test_the_payload_of_an_m4a_overwritten_fails(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", music(5), "alac", "ipod")
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    end = content.index(b"moov")
    content[start : end - 4] = np.random.default_rng(2).bytes(end - 4 - start)
    path.write_bytes(content)
    assert reason(path) == "DECODE_ERROR"


# MP3: only the frames give the length


@pytest.fixture(scope="module")
def variable_mp3(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """20 s of variable bit rate, loud then almost silent, with a Xing header."""
    x = music(20)
    x[8 * 44_100 :] *= 1e-3
    path = write(tmp_path_factory.mktemp("mp3") / "a.mp3", x, bitrate_mode="VARIABLE", compression_level=0.5)
    content = path.read_bytes()
    assert b"Xing" in content[:200]
    return content


def without_xing(content: bytes) -> bytes:
    """The first frame, which holds the header, cut away."""
    first = content.index(b"\xff\xfb")
    return content[content.index(b"\xff\xfb", first + 100) :]


def test_a_variable_mp3_without_header_is_read_to_its_end(tmp_path: Path, variable_mp3: bytes) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(without_xing(variable_mp3))
    assert soundfile.info(path).duration < 15  # estimate of a decoder from the first, loud frame
    clip = decode_clip(path, RECIPE)
    assert clip.seconds == pytest.approx(20, abs=0.1)
    assert only(clip, Flag.SHORT)


@pytest.mark.parametrize("frames", [100, 100_000, 0x7FFF_FFFF])
def test_wrong_xing_header_changes_nothing(tmp_path: Path, variable_mp3: bytes, frames: int) -> None:
    path = tmp_path / "a.mp3"
    at = variable_mp3.index(b"Xing") + 8
    path.write_bytes(variable_mp3[:at] + frames.to_bytes(4, "big") + variable_mp3[at + 4 :])
    clip = decode_clip(path, RECIPE)
    assert clip.seconds == pytest.approx(20, abs=0.1)
    assert only(clip, Flag.SHORT)


def test_truncated_mp3_has_the_length_of_its_frames(tmp_path: Path, variable_mp3: bytes) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(variable_mp3[: len(variable_mp3) // 2])
    clip = decode_clip(path, RECIPE)
    assert 2 < clip.seconds < 15
    assert only(clip, Flag.SHORT)  # a Xing header is not trusted


def test_middle_of_an_hour_of_mp3_decodes_only_the_window(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp3", music(30), bitrate_mode="CONSTANT", compression_level=0.9).read_bytes()
    path = tmp_path / "hour.mp3"
    path.write_bytes(without_xing(source) * 120)
    cpu = os.times()
    clip = decode_clip(path, RECIPE)
    spent = os.times()
    assert clip.seconds == pytest.approx(3600, rel=0.01)
    assert clip.offset_s == pytest.approx((clip.seconds - 30) / 2, abs=0.05)
    assert spent.user + spent.system - cpu.user - cpu.system < 3


def test_middle_of_a_long_mp3_equals_a_full_decode(tmp_path: Path, variable_mp3: bytes) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(variable_mp3 + without_xing(variable_mp3) * 2)
    clip = decode_clip(path, RECIPE)
    with av.open(path) as container:
        whole = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert clip.seconds == pytest.approx(len(whole) / 44_100, abs=0.11)
    assert only(clip, Flag.LONG)
    y = librosa.resample(whole, orig_sr=44_100, target_sr=TARGET_HZ)
    first = round(clip.offset_s * TARGET_HZ)
    distances = [np.abs(clip.samples[:5_000] - y[first + d :][:5_000]).max() for d in range(-700, 701)]
    assert min(distances) < 1e-3


# Caps


def test_limits_of_size_channels_rate_and_duration(tmp_path: Path) -> None:
    huge = tmp_path / "huge.wav"
    with huge.open("wb") as file:
        file.write(write(tmp_path / "a.wav", music(1)).read_bytes())
        file.truncate((4 << 30) + 1)
    assert reason(huge) == "TOO_LARGE"
    assert reason(write(tmp_path / "many.wav", music(0.1, channels=17))) == "TOO_LARGE"
    assert reason(write(tmp_path / "fast.wav", music(0.1), 800_000)) == "TOO_LARGE"
    assert reason(write(tmp_path / "long.wav", music(40, 8_000), 8_000), Caps(max_seconds=39)) == "TOO_LARGE"
    assert decode_clip(tmp_path / "long.wav", RECIPE, Caps(max_seconds=40)).seconds == 40


def test_more_than_a_day_is_too_large(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(1, 8_000), 8_000, subtype="PCM_U8")
    content = bytearray(path.read_bytes())
    n_bytes = 25 * 3600 * 8_000
    content[40:44] = n_bytes.to_bytes(4, "little")
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(44 + n_bytes)
    assert reason(path) == "TOO_LARGE"


def test_the_caps_are_one_class() -> None:
    assert Caps is FormatCaps
    assert Caps() == Caps(max_bytes=4 << 30, max_seconds=86_400, max_channels=16, max_rate_hz=768_000)


def test_examine_names_the_container(tmp_path: Path) -> None:
    assert examine(write(tmp_path / "a.bin.flac", music(1)), Caps()).container.name == "FLAC"


def test_wav_that_declares_no_samples_before_many_bytes_is_not_called_empty(tmp_path: Path) -> None:
    """As RF64 on a pipe: the sizes of its header are 0, and neither decoder reads on."""
    path = tmp_path / "a.wav"
    soundfile.write(path, music(4), 44_100, format="RF64", subtype="PCM_16")
    data = bytearray(path.read_bytes())
    assert data[:4] == b"RF64"
    at = data.index(b"ds64") + 8
    data[at : at + 24] = bytes(24)
    path.write_bytes(data)
    assert reason(path) == "DECODE_ERROR"
