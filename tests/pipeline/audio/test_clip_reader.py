"""The decoding child: a crash or stall fails only the file that causes it.

Faults are real: a child with another entry point crashes, spins, sleeps or eats memory when it meets certain names.
"""

from __future__ import annotations

import csv
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc.cache.errors import ClipError, MgcError, MissingExtraError
from mgc.cache.format.recipe import MelRecipe
from mgc.cache.format.schema import Flag
from mgc.pipeline.audio.clip_child import extract
from mgc.pipeline.audio.clip_reader import ClipLimits, ClipMel, ClipReader
from mgc.pipeline.audio.clips import decode_clip
from mgc.pipeline.audio.containers import Caps
from mgc.pipeline.audio.mel import log_mel

RECIPE = MelRecipe()

FAULTS = """
import ctypes, os, signal, sys, time
from pathlib import Path
from mgc.pipeline.audio import clip_child

def extract(path, recipe, caps, start_s):
    fault, once = path.stem.partition("-")[::2]
    mark = path.with_suffix(".mark")
    if once and mark.exists():
        return clip_child.extract(path, recipe, caps)
    mark.touch()
    if fault == "crash":
        ctypes.string_at(0)
    if fault == "abort":
        os.abort()
    if fault == "leave":
        os._exit(3)
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "spin":
        while True:
            pass
    if fault == "stall":
        time.sleep(3600)
    if fault == "bloat":
        hoard = []
        while True:
            hoard.append(bytes(1 << 24))
    if fault == "raise":
        raise RuntimeError(f"at {id(path):x}")
    if fault == "shout":
        print("on standard output", flush=True)
        os.write(1, b"and below it\\n" * 200_000)
        os.write(2, b"the last words")
    return clip_child.extract(path, recipe, caps)

clip_child.serve(extract)
"""


def tone(path: Path, seconds: float = 2, hz: float = 440) -> Path:
    t = np.arange(round(seconds * 22_050)) / 22_050
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hz * t), 22_050)
    return path


@pytest.fixture
def faulty(tmp_path: Path) -> type[ClipReader]:
    script = tmp_path / "faulty_child.py"
    script.write_text(FAULTS)

    class FaultyReader(ClipReader):
        command = (str(script),)

    return FaultyReader


@pytest.fixture(scope="module")
def reader() -> Iterator[ClipReader]:
    with ClipReader(RECIPE) as reader:
        yield reader


def failure(reader: ClipReader, path: Path) -> ClipError:
    with pytest.raises(ClipError) as caught:
        reader.read(path)
    return caught.value


def same(a: ClipMel, b: ClipMel) -> bool:
    return vars(a) | {"mel": a.mel.tobytes()} == vars(b) | {"mel": b.mel.tobytes()}


def test_a_clip_through_the_child_is_the_clip_itself(tmp_path: Path, reader: ClipReader) -> None:
    path = tone(tmp_path / "a.flac", 3)
    got, clip = reader.read(path), decode_clip(path, RECIPE)
    assert got.mel.dtype == np.float16
    np.testing.assert_array_equal(got.mel, log_mel(clip.samples, RECIPE).astype(np.float16))
    assert (got.mel_frames, got.seconds, got.offset_s) == (130, 3, 0)
    assert (got.sample_rate_hz, got.channels, got.flags) == (22_050, 1, Flag.SHORT)
    assert got.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert same(got, extract(path, RECIPE, Caps()))
    got.mel[0, 0] = 0  # the caller owns it


def test_child_returns_the_reason_of_a_failed_file(tmp_path: Path, reader: ClipReader) -> None:
    (tmp_path / "page.mp3").write_text("<html>")
    os.mkfifo(tmp_path / "pipe.mp3")
    error = failure(reader, tmp_path / "page.mp3")
    assert (error.reason, error.detail) == ("NOT_AUDIO", "the content is HTML or XML")
    assert failure(reader, tmp_path / "none.mp3").reason == "SRC_MISSING"
    assert failure(reader, tmp_path / "pipe.mp3").reason == "SRC_NOT_REGULAR"


def test_samples_whose_power_overflows_fail(tmp_path: Path, reader: ClipReader) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(22_050, 1e25), 22_050, subtype="FLOAT")
    assert failure(reader, tmp_path / "a.wav").reason == "NONFINITE"


def test_relative_and_odd_paths(tmp_path: Path, reader: ClipReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b.wav", "-x.wav", "ünï\n.wav", os.fsdecode(b"latin \xe9.wav")):
        tone(tmp_path / "plain.wav").rename(name)
        assert reader.read(name).flags == Flag.SHORT


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("crash", "DECODER_CRASH"),
        ("abort", "DECODER_CRASH"),
        ("leave", "DECODER_CRASH"),
        ("raise", "DECODER_CRASH"),
        ("killed", "DECODER_MEMORY"),
        ("bloat", "DECODER_MEMORY"),
        ("spin", "DECODER_TIMEOUT"),
        ("stall", "DECODER_TIMEOUT"),
    ],
)
def test_one_bad_file_does_not_fail_others(tmp_path: Path, faulty: type[ClipReader], fault: str, reason: str) -> None:
    good = tone(tmp_path / "good.wav")
    bad = tone(tmp_path / f"{fault}.wav")
    limits = ClipLimits(cpu_s=60 if fault == "stall" else 1, wall_s=1 if fault == "stall" else 60, memory_bytes=1 << 29)
    with faulty(RECIPE, limits=limits) as reader:
        before = reader.read(good)
        error = failure(reader, bad)
        assert error.reason == reason
        assert not any(word in error.detail for word in (str(tmp_path), "0x", str(os.getpid())))
        assert same(reader.read(good), before)
        again = failure(reader, bad)
        assert (again.reason, again.detail) == (error.reason, error.detail)


@pytest.mark.parametrize("fault", ["crash-once", "killed-once"])
def test_child_killed_from_outside_does_not_fail_the_file(tmp_path: Path, faulty: type[ClipReader], fault: str) -> None:
    with faulty(RECIPE) as reader:
        assert reader.read(tone(tmp_path / f"{fault}.wav")).flags == Flag.SHORT


def test_child_that_dies_between_files_is_replaced(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.wav")
    with ClipReader(RECIPE) as reader:
        first = reader.read(path)
        assert reader._child is not None
        os.kill(reader._child._process.pid, signal.SIGKILL)
        assert same(reader.read(path), first)


def test_child_is_replaced_after_max_files(tmp_path: Path) -> None:
    path, pids = tone(tmp_path / "a.wav"), []
    with ClipReader(RECIPE, limits=ClipLimits(files=2)) as reader:
        for _ in range(5):
            reader.read(path)
            assert reader._child is not None
            pids.append(reader._child._process.pid)
    assert [pids[i] == pids[i + 1] for i in range(4)] == [True, False, True, False]


def test_noise_of_the_decoder_is_kept_apart_and_bounded(tmp_path: Path, faulty: type[ClipReader]) -> None:
    with faulty(RECIPE) as reader:
        assert reader.read(tone(tmp_path / "shout.wav")).flags == Flag.SHORT
        assert len(reader.stderr_tail) <= 8192
        reader.read(tone(tmp_path / "good.wav"))
        assert "shout" not in reader.stderr_tail


def test_stderr_of_a_crashed_decoder_is_kept(tmp_path: Path, faulty: type[ClipReader]) -> None:
    with faulty(RECIPE) as reader:
        failure(reader, tone(tmp_path / "crash.wav"))
        assert "Segmentation fault" in reader.stderr_tail


@pytest.mark.parametrize("ffmpeg_reads", [True, False])
def test_a_file_that_crashes_libsndfile_is_read_by_ffmpeg(
    tmp_path: Path, reader: ClipReader, ffmpeg_reads: bool
) -> None:
    script, path = tmp_path / "child.py", tone(tmp_path / "a.wav")
    script.write_text(
        "import ctypes\nfrom mgc.pipeline.audio import clip_child, clips\n"
        "clips.decode_with_libsndfile = lambda *_: ctypes.string_at(0)\nclip_child.serve()\n"
    )

    class Crashing(ClipReader):
        command = (str(script),)

    if not ffmpeg_reads:
        path.write_bytes(path.read_bytes()[:20].ljust(1000, b"\1"))
    with Crashing(RECIPE) as crashing:
        if ffmpeg_reads:
            clip, wanted = crashing.read(path), reader.read(path)
            assert (clip.flags, clip.seconds) == (wanted.flags, wanted.seconds)
            np.testing.assert_allclose(clip.mel[:, :50], wanted.mel[:, :50], atol=0.5)
            assert same(crashing.read(path), clip), "the child without libsndfile served this file only"
        else:
            assert failure(crashing, path).reason == "DECODER_CRASH"
        assert "Segmentation fault" in crashing.stderr_tail


def test_a_reader_may_be_closed_and_used_again(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.wav")
    reader = ClipReader(RECIPE)
    first = reader.read(path)
    reader.close()
    reader.close()
    assert same(reader.read(path), first)
    reader.close()


def test_child_that_cannot_start_raises_instead_of_failing_the_file(tmp_path: Path) -> None:
    class Lost(ClipReader):
        command = ("-m", "mgc.pipeline.no_such_module")

    class Bare(ClipReader):
        command = ("-c", "import a_library_that_is_not_here")

    with pytest.raises(MgcError, match="does not start"):
        Lost(RECIPE).read(tmp_path)
    with pytest.raises(MissingExtraError, match=r"mgc-music\[extract\]"):
        Bare(RECIPE).read(tmp_path)


def test_an_interrupted_read_does_not_answer_the_next(tmp_path: Path, faulty: type[ClipReader]) -> None:
    """After Ctrl-C during a file, the next answer must be that of the next file."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    good = tone(tmp_path / "good.wav", hz=880)
    with faulty(RECIPE) as reader:
        wanted = reader.read(good)
        previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 1)
        try:
            with pytest.raises(KeyboardInterrupt):
                reader.read(tone(tmp_path / "stall.wav"))
        finally:
            signal.signal(signal.SIGALRM, previous)
        assert same(reader.read(good), wanted)


PARENT = """
import sys
from mgc.cache.format.recipe import MelRecipe
from mgc.pipeline.audio.clip_reader import ClipReader

class Faulty(ClipReader):
    command = (sys.argv[1],)

reader = Faulty(MelRecipe())
reader.read(sys.argv[2])
print(reader._child._process.pid, flush=True)
reader.read(sys.argv[3])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a busy child outlives a killed parent by its deadline")
@pytest.mark.usefixtures("faulty")
def test_the_child_dies_with_its_parent_even_in_the_middle_of_a_file(tmp_path: Path) -> None:
    good, stall = tone(tmp_path / "good.wav"), tone(tmp_path / "stall.wav")
    command = [sys.executable, "-c", PARENT, tmp_path / "faulty_child.py", good, stall]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        while not (tmp_path / "stall.mark").exists():
            time.sleep(0.02)
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_the_same_bytes_in_any_order_in_any_child(tmp_path: Path, reader: ClipReader) -> None:
    paths = [
        tone(tmp_path / f"{i}.{kind}", 1 + i, 200 + 77 * i) for i, kind in enumerate(("wav", "mp3", "ogg", "flac"))
    ]
    (tmp_path / "text.mp3").write_text("words")
    first = {path: reader.read(path) for path in paths}
    order = paths * 3
    random.Random(4).shuffle(order)
    for path in order:
        failure(reader, tmp_path / "text.mp3")
        assert same(reader.read(path), first[path])
    for path in paths:
        with ClipReader(RECIPE) as fresh:
            assert same(fresh.read(path), first[path])


def test_a_source_larger_than_the_memory_limit_is_no_memory_fault(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.wav")
    with path.open("r+b") as file:
        file.truncate(400 << 20)
    with ClipReader(RECIPE, limits=ClipLimits(memory_bytes=300 << 20)) as reader:
        assert reader.read(path).flags == Flag.SHORT | Flag.DECODE_GAPS, "most of its bytes are not audio"


def test_changed_bytes_of_real_formats_never_break_the_reader(tmp_path: Path, reader: ClipReader) -> None:
    """200 files with random damage: each is a clip or a failure with a reason, and the child survives to the end."""
    rng = np.random.default_rng(11)
    sources = [tone(tmp_path / f"source.{kind}").read_bytes() for kind in ("wav", "mp3", "ogg", "flac", "aiff")]
    path = tmp_path / "damaged.bin"
    seen = set()
    for i in range(200):
        content = bytearray(sources[i % len(sources)])
        for at in rng.integers(0, len(content) if i % 2 else 100, size=8):
            content[at] = rng.integers(256)
        if i % 3 == 0:
            del content[rng.integers(1, len(content)) :]
        path.write_bytes(content)
        try:
            mel = reader.read(path).mel
        except ClipError as error:
            seen.add(error.reason)
        else:
            assert np.isfinite(mel.astype(np.float32)).all()
    assert seen <= {"EMPTY", "NOT_AUDIO", "TOO_SHORT", "BAD_HEADER", "DECODE_ERROR", "UNSUPPORTED_CODEC", "TOO_LARGE"}
    assert len(seen) > 2


def test_every_odd_real_file_has_the_expected_outcome(real_data: Path, reader: ClipReader) -> None:
    """Twice, the second time backwards, with the same bytes."""
    folder = real_data / "torture"
    with (folder / "OUTCOMES.tsv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert len(rows) == 44
    outcomes: dict[str, ClipMel | str] = {}
    for row in [*rows, *reversed(rows)]:
        name, flags = row["file"], {Flag[flag] for flag in row["flags (at least)"].split()}
        outcome: ClipMel | str
        if row["outcome"] == "failed":
            error = failure(reader, folder / name)
            outcome = str(error)
            assert error.reason in row["reason (any one of)"].split("|"), (name, outcome)
        else:
            outcome = reader.read(folder / name)
            assert flags <= set(outcome.flags), (name, outcome.flags.names)
        before = outcomes.setdefault(name, outcome)
        if isinstance(outcome, ClipMel) and isinstance(before, ClipMel):
            assert same(outcome, before), name
        else:
            assert outcome == before
