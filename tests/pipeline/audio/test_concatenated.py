"""Files whose audio changes: concatenated files, several streams, and lengths that contradict the bytes."""

from __future__ import annotations

import functools
import struct
import tempfile
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
from mgc.pipeline.audio.structure import lost_tail

RECIPE = MelRecipe()
TARGET_HZ = 22_050
JINGLE_HZ, SONG_HZ = 2_000, 500  # pitch of either at its start

Float32 = npt.NDArray[np.float32]


@functools.lru_cache(maxsize=4)
def stairs(seconds: float, rate_hz: int, low_hz: float, channels: int = 2) -> Float32:
    """(n, channels): a tone that is 40 Hz higher each second, so that a moment can be told from another."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = 0.3 * np.sin(2 * np.pi * np.cumsum(low_hz + 40 * np.floor(t)) / rate_hz)
    samples = np.repeat(tone[:, np.newaxis], channels, axis=1).astype(np.float32)
    samples.flags.writeable = False  # tests share it
    return samples


def pitch_hz(clip: Clip, second: float) -> float:
    """The strongest frequency in the half second from `second` of the clip on."""
    piece = clip.samples[round(second * TARGET_HZ) :][: TARGET_HZ // 2]
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece))))
    return float(spectrum.argmax()) * TARGET_HZ / len(piece)


def encode(
    path: Path, audio_files: Sequence[tuple[Float32, int]], codec: str, container: str, default: int = 0
) -> bytes:
    """Write each audio, (samples, rate), as a stream of its own; `default` is the one so marked."""
    with av.open(path, "w", format=container) as out:
        streams = []
        for i, (samples, rate_hz) in enumerate(audio_files):
            stream = out.add_stream(codec, rate=rate_hz, layout="mono" if samples.shape[1] == 1 else "stereo")
            stream.disposition = av.stream.Disposition.default if i == default else av.stream.Disposition(0)
            if codec in ("wavpack", "tta", "pcm_s16le"):
                stream.codec_context.format = "s16p" if codec == "wavpack" else "s16"
            streams.append(stream)
        for stream, (samples, rate_hz) in zip(streams, audio_files, strict=True):
            layout = stream.codec_context.layout.name
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
            resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate_hz)
            for part in [*resampler.resample(frame), *resampler.resample(None), None]:
                for packet in stream.encode(part):
                    out.mux(packet)
    return path.read_bytes()


CONTAINERS = {
    "aac": "adts",
    "mp2": "mp2",
    "wavpack": "wv",
    "tta": "tta",
    "alac": "ipod",
    "ac3": "ac3",
    "eac3": "eac3",
    "aac.mkv": "matroska",
    "tta.mkv": "matroska",
    "wavpack.mkv": "matroska",
}
SOUNDFILE = {"wav": "PCM_16", "aiff": "PCM_16", "au": "PCM_16", "caf": "PCM_16", "flac": "PCM_16", "w64": "PCM_16"}


@functools.lru_cache(maxsize=64)
def sample(kind: str, seconds: float, rate_hz: int, low_hz: float, channels: int = 2) -> bytes:
    samples = stairs(seconds, rate_hz, low_hz, channels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"part.{kind}"
        if kind in CONTAINERS:
            return encode(path, [(samples, rate_hz)], kind.partition(".")[0], CONTAINERS[kind])
        if kind == "flac.ogg":
            return encode(path, [(samples, rate_hz)], "flac", "ogg")
        if kind in ("vorbis", "opus"):
            soundfile.write(path, samples, rate_hz, format="OGG", subtype=kind.upper())
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
        if in_song % 1 < 0.4:  # the analysed half second is within one step
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
    (("ac3", 48_000, 1), ("ac3", 48_000, 2)),
    (("eac3", 48_000, 1), ("eac3", 48_000, 2)),
]


@pytest.mark.parametrize(("jingle", "song"), JOINED)
def test_concatenated_file_is_read_completely(
    tmp_path: Path, jingle: tuple[str, int, int], song: tuple[str, int, int]
) -> None:
    kind, rate_hz, channels = jingle
    first = sample(kind, 3, rate_hz, JINGLE_HZ, channels)
    kind, rate_hz, channels = song
    path = tmp_path / "joined"
    path.write_bytes(first + sample(kind, 40, rate_hz, SONG_HZ, channels))
    clip = decode_clip(path, RECIPE)
    assert_all_is_read(clip, 43, 3)
    assert clip.sample_rate_hz == rate_hz


@pytest.mark.parametrize("kind", ["mp3", "vorbis", "flac", "wav"])
def test_short_concatenated_file_is_read_across_the_seam(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "joined"
    path.write_bytes(sample(kind, 4, 44_100, SONG_HZ) + sample(kind, 3, 48_000, JINGLE_HZ))
    clip = decode_clip(path, RECIPE)
    assert clip.seconds == pytest.approx(7, abs=0.1)
    assert set(clip.flags) == {Flag.SHORT}
    assert pitch_hz(clip, 2.2) == pytest.approx(SONG_HZ + 80, abs=4)
    assert pitch_hz(clip, 6.2) == pytest.approx(JINGLE_HZ + 80, abs=4)


def test_a_chain_of_many_links(tmp_path: Path) -> None:
    path = tmp_path / "radio.ogg"
    path.write_bytes(sample("vorbis", 2, 44_100, SONG_HZ) * 30)
    clip = decode_clip(path, RECIPE)
    assert (clip.seconds, clip.offset_s) == (pytest.approx(60, abs=0.1), pytest.approx(15, abs=0.1))


def test_truncated_concatenated_file_is_flagged(tmp_path: Path) -> None:
    flac = sample("flac", 10, 44_100, SONG_HZ)
    path = tmp_path / "joined.flac"
    path.write_bytes(flac + flac[: len(flac) // 2])
    clip = decode_clip(path, RECIPE)
    assert Flag.TRUNCATED in clip.flags
    assert clip.seconds == pytest.approx(15, abs=1)


def test_a_part_that_cannot_be_read_is_a_gap(tmp_path: Path) -> None:
    flac = sample("flac", 10, 44_100, SONG_HZ)
    path = tmp_path / "joined.flac"
    path.write_bytes(flac + flac[:8] + bytes(len(flac)))
    clip = decode_clip(path, RECIPE)
    assert set(clip.flags) == {Flag.SHORT, Flag.DECODE_GAPS}


BOUNDED = ["mp3", "aac", "wav", "au", "aiff", "caf", "w64", "flac", "vorbis", "ac3", "eac3", "wavpack", "alac"]


@pytest.mark.parametrize("kind", [*BOUNDED, "tta", "aac.mkv"])
def test_a_small_part_of_the_bytes_is_never_all_without_a_flag(tmp_path: Path, kind: str) -> None:
    path, content = tmp_path / "song", sample(kind, 3, 48_000, SONG_HZ)
    path.write_bytes(content)
    assert set(decode_clip(path, RECIPE).flags) == {Flag.SHORT}
    path.write_bytes(content + np.random.default_rng(3).bytes(2_000_000))
    assert Flag.DECODE_GAPS in decode_clip(path, RECIPE).flags
    path.write_bytes(content + bytes(2_000_000))
    assert Flag.DECODE_GAPS in decode_clip(path, RECIPE).flags


@pytest.mark.parametrize(
    ("kind", "other"),
    [("wav", "flac"), ("wav", "wavpack"), ("aiff", "vorbis"), ("flac", "vorbis"), ("ac3", "mp3"), ("alac", "aac")],
)
def test_a_file_of_another_kind_behind_is_not_lost_without_a_flag(tmp_path: Path, kind: str, other: str) -> None:
    """Also where its first bytes could be a chunk of the file in front of it."""
    path = tmp_path / "song"
    path.write_bytes(sample(kind, 3, 44_100, JINGLE_HZ) + sample(other, 12, 44_100, SONG_HZ))
    assert Flag.DECODE_GAPS in decode_clip(path, RECIPE).flags


# Lengths that are declared


def with_samples(flac: bytes, n_samples: int) -> bytes:
    """STREAMINFO has the number of samples in its bits 108 to 143."""
    return flac[:21] + bytes([flac[21] & 0xF0 | n_samples >> 32]) + (n_samples & 0xFFFFFFFF).to_bytes(4) + flac[26:]


@pytest.mark.parametrize("declared_s", [0.0001, 5, 20, 39])
def test_flac_frames_beyond_the_declared_length_are_read(tmp_path: Path, declared_s: float) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(with_samples(sample("flac", 40, 44_100, SONG_HZ), round(declared_s * 44_100)))
    assert_all_is_read(decode_clip(path, RECIPE), 40, 0)


@pytest.mark.parametrize("n_samples", [0, 3 * 44_100])
@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_flac_frames_of_another_file_without_its_header_are_read(tmp_path: Path, n_samples: int, rate_hz: int) -> None:
    path, song = tmp_path / "a.flac", sample("flac", 40, rate_hz, SONG_HZ)
    jingle = with_samples(sample("flac", 3, 44_100, JINGLE_HZ), n_samples)
    path.write_bytes(jingle + song[song.index(b"\xff\xf8") :])
    clip = decode_clip(path, RECIPE)
    assert clip.seconds == pytest.approx(43, abs=0.1)
    assert pitch_hz(clip, 14.75) == pytest.approx(SONG_HZ + 40 * np.floor(clip.offset_s + 14.75 - 3), abs=41)


def test_audio_behind_a_declared_size_is_flagged_if_lost(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for kind, key, at, order, width in [
        ("wav", b"data", 4, "little", 4),
        ("aiff", b"SSND", 4, "big", 4),
        ("au", b".snd", 8, "big", 4),
        ("caf", b"data", 4, "big", 8),
        ("w64", b"data\xf3\xac", 16, "little", 8),
    ]:
        content = bytearray(sample(kind, 12, 44_100, SONG_HZ))
        at += content.index(key)
        content[at : at + width] = (3 * 4 * 44_100).to_bytes(width, order)
        path.write_bytes(content)
        assert Flag.DECODE_GAPS in decode_clip(path, RECIPE).flags, kind
        content[at : at + width] = (40 * 4 * 44_100).to_bytes(width, order)
        path.write_bytes(content)
        assert Flag.TRUNCATED in decode_clip(path, RECIPE).flags, kind


@pytest.mark.parametrize("kind", ["tta.mkv", "wavpack.mkv"])
def test_a_long_last_packet_of_matroska_is_counted_by_its_samples(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mka"
    path.write_bytes(sample(kind, 40, 44_100, SONG_HZ))
    assert_all_is_read(decode_clip(path, RECIPE), 40, 0)


def chunks(*parts: tuple[bytes, bytes]) -> bytes:
    body = b"WAVE" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def pcm(seconds: float, low_hz: float) -> bytes:
    return (stairs(seconds, 48_000, low_hz) * 32767).astype("<i2").tobytes()


WAVE_FORMAT = struct.pack("<HHIIHH", 1, 2, 48_000, 192_000, 4, 16)


@pytest.mark.parametrize("seconds", [(3, 12), (12, 3), (60, 1)])
def test_a_second_data_chunk_is_not_lost_without_a_flag(tmp_path: Path, seconds: tuple[int, int]) -> None:
    path = tmp_path / "a.wav"
    data = [(b"data", pcm(part_s, SONG_HZ)) for part_s in seconds]
    path.write_bytes(chunks((b"fmt ", WAVE_FORMAT), data[0], (b"LIST", b"INFOISFT\4\0\0\0abc\0"), data[1]))
    assert Flag.DECODE_GAPS in decode_clip(path, RECIPE).flags
    path.write_bytes(chunks((b"fmt ", WAVE_FORMAT), data[0], (b"LIST", b"INFOISFT\4\0\0\0abc\0")))
    assert Flag.DECODE_GAPS not in decode_clip(path, RECIPE).flags


def test_coded_audio_in_a_wav_file_is_no_noise(tmp_path: Path) -> None:
    """AC-3 in bursts as for S/PDIF (IEC 61937): the header says 16-bit samples, and libsndfile reads them as such."""
    ac3, path = sample("ac3", 40, 48_000, SONG_HZ), tmp_path / "a.wav"
    size = next(at for at in range(2, len(ac3)) if ac3[at : at + 2] == ac3[:2] and len(ac3) % at == 0)
    preamble = struct.pack("<HHHH", 0xF872, 0x4E1F, 1, 8 * size)
    words = np.frombuffer(ac3, ">u2").astype("<u2").tobytes()
    bursts = b"".join((preamble + words[i : i + size]).ljust(6144, b"\0") for i in range(0, len(words), size))
    path.write_bytes(chunks((b"fmt ", WAVE_FORMAT), (b"data", bursts)))
    assert_all_is_read(decode_clip(path, RECIPE), 40, 0)


DTS_FRAME = b"\x7f\xfe\x80\x01\xfc\x3c\x3f\x30" + bytes(1004)  # its size, less one, in bits 46 to 59
DTS_EXTENSION = b"\x64\x58\x20\x25\0\x10\0\x01\xe0\0" + bytes(6)


@pytest.mark.parametrize(
    ("kind", "frames"),
    [
        ("dts", DTS_FRAME * 50),
        ("dts", (DTS_FRAME + DTS_EXTENSION) * 50),
        ("amr", b"#!AMR\n" + (b"\x3c" + bytes(31)) * 500),
        ("amr", b"#!AMR-WB\n" + (b"\x24" + bytes(40) + b"\x44" + bytes(5)) * 500),
    ],
)
def test_frames_of_rare_codecs_are_walked_to_their_end(kind: str, frames: bytes) -> None:
    assert not lost_tail(frames, 0, len(frames), kind)
    assert lost_tail(frames + b"\xff" * len(frames), 0, 2 * len(frames), kind)


def test_the_length_of_mp3_in_a_wav_file_is_that_of_its_frames(tmp_path: Path) -> None:
    path, mp3 = tmp_path / "a.wav", sample("mp3", 40, 44_100, SONG_HZ)
    layer_3 = struct.pack("<HHIIHHHHIHHH", 0x55, 2, 44_100, 16_000, 1, 0, 12, 1, 2, 418, 1, 0)
    path.write_bytes(chunks((b"fmt ", layer_3), (b"data", mp3 + bytes(len(mp3) % 2))))
    assert decode_clip(path, RECIPE).seconds == pytest.approx(40, abs=0.08)


def test_wavpack_files_of_one_block_are_concatenated(tmp_path: Path) -> None:
    path = tmp_path / "a.wv"
    path.write_bytes(sample("wavpack", 0.4, 44_100, SONG_HZ) * 3)
    assert decode_clip(path, RECIPE).seconds == pytest.approx(1.2, abs=0.01)


# Creative Voice Files: blocks


def voc(*blocks: bytes) -> bytes:
    return b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x010A, 0x1129) + b"".join(blocks) + b"\0"


def voc_block(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "little") + body


def sixteen_bit(rate_hz: int, samples: Float32) -> bytes:
    pcm = (samples[:, :1] * 32767).astype("<i2").tobytes()
    return voc_block(9, struct.pack("<IBBHI", rate_hz, 16, 1, 4, 0) + pcm)


def test_blocks_of_a_voc_file_are_one_recording(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("size", [4_093, 100_001])
def test_voc_blocks_that_end_within_a_sample_are_refused(tmp_path: Path, size: int) -> None:
    """No decoder joins the two halves of a sample."""
    samples = stairs(10, 44_100, SONG_HZ, 1)
    rest = (samples * 32767).astype("<i2").tobytes()
    blocks = [voc_block(2, rest[i : i + size]) for i in range(0, len(rest), size)]
    path = tmp_path / "a.voc"
    path.write_bytes(voc(sixteen_bit(44_100, samples[:100]), *blocks))
    assert reason(path) == "UNSUPPORTED_CODEC"


# Several streams side by side


@pytest.mark.parametrize("codec", ["libopus", "flac"])
@pytest.mark.parametrize("jingle_first", [True, False])
def test_of_ogg_streams_side_by_side_the_first_is_read_and_a_much_shorter_one_flagged(
    tmp_path: Path, codec: str, jingle_first: bool
) -> None:
    audio_files = [(stairs(3, 48_000, JINGLE_HZ), 48_000), (stairs(40, 48_000, SONG_HZ), 48_000)]
    path = tmp_path / "a.ogg"
    encode(path, audio_files if jingle_first else audio_files[::-1], codec, "ogg")
    clip = decode_clip(path, RECIPE)
    if jingle_first:
        assert clip.seconds == pytest.approx(3, abs=0.1)
        assert set(clip.flags) == {Flag.SHORT, Flag.DECODE_GAPS}
    else:
        assert_all_is_read(clip, 40, 0)


@pytest.mark.parametrize("default", [0, 1])
@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "aac"), ("matroska", "flac")])
def test_of_several_audio_streams_the_default_is_taken(
    tmp_path: Path, container: str, codec: str, default: int
) -> None:
    path = tmp_path / "two"
    audio_files = [(stairs(5, 44_100, JINGLE_HZ), 44_100), (stairs(12, 44_100, SONG_HZ), 44_100)]
    encode(path, audio_files, codec, container, default)
    clip = decode_clip(path, RECIPE)
    assert clip.seconds == pytest.approx((5, 12)[default], abs=0.1)
    assert pitch_hz(clip, 2.2) == pytest.approx((JINGLE_HZ, SONG_HZ)[default] + 80, abs=4)
    assert set(clip.flags) == {Flag.SHORT} | ({Flag.DECODE_GAPS} if default == 0 else set())


@pytest.mark.parametrize("cut", [False, True])
def test_picture_longer_than_the_audio_is_no_truncation(tmp_path: Path, cut: bool) -> None:
    path = tmp_path / "a.mkv"
    samples = stairs(10, 44_100, SONG_HZ)
    with av.open(path, "w", format="matroska") as out:
        picture, audio = out.add_stream("mpeg4", rate=5), out.add_stream("pcm_s16le", rate=44_100, layout="stereo")
        picture.width = picture.height = 64
        for i in range(100):  # 20 s
            image = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            for packet in picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                out.mux(packet)
            pcm = (samples[i * 8820 : (i + 1) * 8820] * 32767).astype(np.int16).reshape(1, -1)
            if pcm.size:
                frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo")
                frame.sample_rate, frame.pts = 44_100, i * 8820
                out.mux(audio.encode(frame))
        out.mux(picture.encode(None))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if cut else content)
    assert (Flag.TRUNCATED in decode_clip(path, RECIPE).flags) == cut
