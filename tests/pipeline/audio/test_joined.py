"""Files in which a sound changes half-way: several joined end to end, several streams, and lengths against bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from mgc.cache.errors import ClipError
from mgc.cache.format.recipe import MelRecipe
from mgc.cache.format.schema import Flag
from mgc.pipeline.audio.clips import Clip, decode_clip

RECIPE = MelRecipe()
TARGET_HZ = 22_050
JINGLE_HZ, SONG_HZ = 2_000, 500  # pitch of either at its start

Float32 = npt.NDArray[np.float32]


def stairs(seconds: float, rate_hz: int, low_hz: float, channels: int = 2) -> Float32:
    """(n, channels): a tone that is 40 Hz higher each second, so that a moment can be told from another."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = 0.3 * np.sin(2 * np.pi * np.cumsum(low_hz + 40 * np.floor(t)) / rate_hz)
    return np.repeat(tone[:, np.newaxis], channels, axis=1).astype(np.float32)


def pitch_hz(clip: Clip, second: float) -> float:
    """The strongest frequency in the half second from `second` of the clip on."""
    piece = clip.samples[round(second * TARGET_HZ) :][: TARGET_HZ // 2]
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece))))
    return float(spectrum.argmax()) * TARGET_HZ / len(piece)


def encode(path: Path, sounds: Sequence[tuple[Float32, int]], codec: str, container: str, default: int = 0) -> bytes:
    """Write each sound, (samples, rate), as a stream of its own; `default` is the one so marked."""
    with av.open(path, "w", format=container) as out:
        streams = []
        for i, (samples, rate_hz) in enumerate(sounds):
            stream = out.add_stream(codec, rate=rate_hz, layout="mono" if samples.shape[1] == 1 else "stereo")
            stream.disposition = av.stream.Disposition.default if i == default else av.stream.Disposition(0)
            if codec in ("wavpack", "tta", "pcm_s16le"):
                stream.codec_context.format = "s16p" if codec == "wavpack" else "s16"
            streams.append(stream)
        for stream, (samples, rate_hz) in zip(streams, sounds, strict=True):
            layout = stream.codec_context.layout.name
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
            resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate_hz)
            for part in [*resampler.resample(frame), *resampler.resample(None), None]:
                for packet in stream.encode(part):
                    out.mux(packet)
    return path.read_bytes()


CONTAINERS = {"aac": "adts", "mp2": "mp2", "wavpack": "wv", "tta": "tta", "alac": "ipod"}
SOUNDFILE = {"wav": "PCM_16", "aiff": "PCM_16", "au": "PCM_16", "caf": "PCM_16", "flac": "PCM_16", "w64": "PCM_16"}


def made(folder: Path, kind: str, seconds: float, rate_hz: int, low_hz: float, channels: int = 2) -> bytes:
    samples, path = stairs(seconds, rate_hz, low_hz, channels), folder / f"part.{kind}"
    if kind in CONTAINERS:
        return encode(path, [(samples, rate_hz)], kind, CONTAINERS[kind])
    if kind in ("vorbis", "opus"):
        soundfile.write(path, samples, rate_hz, format="OGG", subtype=kind.upper())
    elif kind == "flac.ogg":
        return encode(path, [(samples, rate_hz)], "flac", "ogg")
    elif kind == "mp3":
        soundfile.write(path, samples, rate_hz, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    else:
        soundfile.write(path, samples, rate_hz, format=kind.upper(), subtype=SOUNDFILE[kind])
    return path.read_bytes()


def reason(path: Path) -> str:
    with pytest.raises(ClipError) as caught:
        decode_clip(path, RECIPE)
    return str(caught.value.reason)


def assert_all_is_read(clip: Clip, seconds: float, jingle_s: float) -> None:
    """The clip is the middle of a jingle and the song behind it."""
    assert clip.seconds == pytest.approx(seconds, abs=0.1)
    assert clip.offset_s == pytest.approx((seconds - 30) / 2, abs=0.1)
    assert set(clip.flags) == {Flag.LONG}
    for second in (1, 14, 28):
        in_song = clip.offset_s + second - jingle_s
        if in_song % 1 < 0.4:  # the half second that is looked at lies on one step
            assert pitch_hz(clip, second) == pytest.approx(SONG_HZ + 40 * np.floor(in_song), abs=4)


JOINED = [
    (("mp3", 48_000, 2), ("mp3", 44_100, 2)),
    (("mp3", 22_050, 2), ("mp3", 44_100, 2)),
    (("mp3", 44_100, 1), ("mp3", 44_100, 2)),
    (("mp3", 44_100, 2), ("mp3", 44_100, 1)),
    (("mp2", 44_100, 2), ("mp3", 44_100, 2)),
    (("mp3", 44_100, 2), ("aac", 44_100, 2)),
    (("aac", 48_000, 2), ("aac", 44_100, 2)),
    (("aac", 44_100, 1), ("aac", 44_100, 2)),
    (("vorbis", 48_000, 2), ("vorbis", 44_100, 2)),
    (("vorbis", 44_100, 2), ("vorbis", 44_100, 2)),
    (("opus", 48_000, 2), ("opus", 48_000, 1)),
    (("vorbis", 44_100, 2), ("opus", 48_000, 2)),
    (("flac.ogg", 44_100, 2), ("flac.ogg", 44_100, 2)),
    (("flac", 48_000, 2), ("flac", 44_100, 2)),
    (("flac", 44_100, 1), ("flac", 44_100, 2)),
    (("wav", 44_100, 2), ("wav", 48_000, 2)),
    (("aiff", 44_100, 2), ("aiff", 44_100, 2)),
    (("au", 44_100, 2), ("au", 44_100, 2)),
    (("caf", 44_100, 2), ("caf", 44_100, 2)),
    (("w64", 44_100, 2), ("w64", 44_100, 2)),
    (("wavpack", 44_100, 2), ("wavpack", 44_100, 2)),
    (("tta", 44_100, 2), ("tta", 44_100, 2)),
    (("alac", 44_100, 2), ("alac", 44_100, 2)),
]


@pytest.mark.parametrize(("jingle", "song"), JOINED)
def test_all_of_a_joined_file_is_read(tmp_path: Path, jingle: tuple[str, int, int], song: tuple[str, int, int]) -> None:
    kind, rate_hz, channels = jingle
    first = made(tmp_path, kind, 3, rate_hz, JINGLE_HZ, channels)
    kind, rate_hz, channels = song
    path = tmp_path / "joined"
    path.write_bytes(first + made(tmp_path, kind, 40, rate_hz, SONG_HZ, channels))
    clip = decode_clip(path, RECIPE)
    assert_all_is_read(clip, 43, 3)
    assert clip.sample_rate_hz == rate_hz


@pytest.mark.parametrize("kind", ["mp3", "vorbis", "flac", "wav"])
def test_a_short_joined_file_is_read_whole_across_the_seam(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "joined"
    path.write_bytes(made(tmp_path, kind, 4, 44_100, SONG_HZ) + made(tmp_path, kind, 3, 48_000, JINGLE_HZ))
    clip = decode_clip(path, RECIPE)
    assert clip.seconds == pytest.approx(7, abs=0.1)
    assert set(clip.flags) == {Flag.SHORT}
    assert pitch_hz(clip, 2.2) == pytest.approx(SONG_HZ + 80, abs=4)
    assert pitch_hz(clip, 6.2) == pytest.approx(JINGLE_HZ + 80, abs=4)


def test_a_chain_of_many_links(tmp_path: Path) -> None:
    path = tmp_path / "radio.ogg"
    path.write_bytes(made(tmp_path, "vorbis", 2, 44_100, SONG_HZ) * 30)
    clip = decode_clip(path, RECIPE)
    assert (clip.seconds, clip.offset_s) == (pytest.approx(60, abs=0.1), pytest.approx(15, abs=0.1))


def test_a_joined_file_that_is_cut_is_flagged(tmp_path: Path) -> None:
    flac = made(tmp_path, "flac", 10, 44_100, SONG_HZ)
    path = tmp_path / "joined.flac"
    path.write_bytes(flac + flac[: len(flac) // 2])
    clip = decode_clip(path, RECIPE)
    assert Flag.TRUNCATED in clip.flags
    assert clip.seconds == pytest.approx(15, abs=1)


def test_a_part_that_cannot_be_read_is_a_gap(tmp_path: Path) -> None:
    flac = made(tmp_path, "flac", 10, 44_100, SONG_HZ)
    path = tmp_path / "joined.flac"
    path.write_bytes(flac + flac[:8] + bytes(len(flac)))
    clip = decode_clip(path, RECIPE)
    assert set(clip.flags) == {Flag.SHORT, Flag.DECODE_GAPS}


@pytest.mark.parametrize("kind", ["mp3", "aac", "wav", "au"])
def test_a_small_part_of_the_bytes_is_never_all_without_a_flag(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "song"
    path.write_bytes(made(tmp_path, kind, 3, 44_100, SONG_HZ) + np.random.default_rng(3).bytes(2_000_000))
    assert Flag.DECODE_GAPS in decode_clip(path, RECIPE).flags
    path.write_bytes(made(tmp_path, kind, 3, 44_100, SONG_HZ) + bytes(2_000_000))
    assert Flag.DECODE_GAPS in decode_clip(path, RECIPE).flags


# Creative Voice Files: blocks


def voc(*blocks: bytes) -> bytes:
    return b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x010A, 0x1129) + b"".join(blocks) + b"\0"


def voc_block(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "little") + body


def sixteen_bit(rate_hz: int, samples: Float32) -> bytes:
    pcm = (samples[:, :1] * 32767).astype("<i2").tobytes()
    return voc_block(9, struct.pack("<IBBHI", rate_hz, 16, 1, 4, 0) + pcm)


def test_the_blocks_of_a_voc_file_are_one_sound(tmp_path: Path) -> None:
    samples = stairs(40, 44_100, SONG_HZ, 1)
    pcm = (samples * 32767).astype("<i2").tobytes()
    blocks = [voc_block(2, pcm[i : i + 100_002]) for i in range(44_100, len(pcm), 100_002)]
    path = tmp_path / "a.voc"
    path.write_bytes(voc(sixteen_bit(44_100, samples[:22_050]), *blocks))
    clip = decode_clip(path, RECIPE)
    soundfile.write(tmp_path / "b.wav", samples, 44_100)
    np.testing.assert_allclose(clip.samples, decode_clip(tmp_path / "b.wav", RECIPE).samples, atol=1e-3)
    assert set(clip.flags) == {Flag.LONG}


def test_a_voc_file_of_several_rates_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.voc"
    path.write_bytes(voc(sixteen_bit(44_100, stairs(3, 44_100, 500)), sixteen_bit(22_050, stairs(3, 22_050, 500))))
    assert reason(path) == "UNSUPPORTED_CODEC"


# Several streams side by side


@pytest.mark.parametrize("default", [0, 1])
@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "aac"), ("matroska", "flac")])
def test_of_several_audio_streams_the_default_is_taken(
    tmp_path: Path, container: str, codec: str, default: int
) -> None:
    path = tmp_path / "two"
    sounds = [(stairs(5, 44_100, JINGLE_HZ), 44_100), (stairs(12, 44_100, SONG_HZ), 44_100)]
    encode(path, sounds, codec, container, default)
    clip = decode_clip(path, RECIPE)
    assert clip.seconds == pytest.approx((5, 12)[default], abs=0.1)
    assert pitch_hz(clip, 2.2) == pytest.approx((JINGLE_HZ, SONG_HZ)[default] + 80, abs=4)
    assert Flag.TRUNCATED not in clip.flags


@pytest.mark.parametrize("cut", [False, True])
def test_a_picture_longer_than_the_sound_is_no_cut(tmp_path: Path, cut: bool) -> None:
    path = tmp_path / "a.mkv"
    samples = stairs(10, 44_100, SONG_HZ)
    with av.open(path, "w", format="matroska") as out:
        picture, sound = out.add_stream("mpeg4", rate=5), out.add_stream("pcm_s16le", rate=44_100, layout="stereo")
        picture.width = picture.height = 64
        for i in range(100):  # 20 s
            image = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            for packet in picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                out.mux(packet)
            pcm = (samples[i * 8820 : (i + 1) * 8820] * 32767).astype(np.int16).reshape(1, -1)
            if pcm.size:
                frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo")
                frame.sample_rate, frame.pts = 44_100, i * 8820
                out.mux(sound.encode(frame))
        out.mux(picture.encode(None))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if cut else content)
    assert (Flag.TRUNCATED in decode_clip(path, RECIPE).flags) == cut
