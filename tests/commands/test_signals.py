"""Commands that receive a signal: one line, the exit status that shells expect, and no process is left.

A command is held in the middle of its work, where it reports progress, so that what it started is running.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.verify import verify

HOLD = """
import sys, time
from pathlib import Path
from mgc.commands import console

if __name__ == "__main__":  # not in workers
    mark, obeys, n_reports = Path(sys.argv[1]), sys.argv[2] == "obeys", int(sys.argv[3])
    sys.argv[1:4] = []
    show = console._ProgressLines.__call__

    def hold(self, step, done, total, note=""):
        global n_reports
        show(self, step, done, total, note)
        n_reports -= 1
        if n_reports == 0:
            mark.touch()
            while True:
                try:
                    time.sleep(60)
                except BaseException:  # as where it is raised in a destructor, or C code goes on
                    if obeys:
                        raise

    console._ProgressLines.__call__ = hold
    from mgc.cli import main
    main()
"""
WITHIN_S = 30
"""Upper bound for a busy machine; the deadline in the code is 8 s."""


@dataclass(frozen=True)
class Ended:
    status: int
    err: str


@pytest.fixture
def interrupt(tmp_path: Path) -> Callable[..., Ended]:
    """Run a command in a group of its own, held at its n-th report of progress; send signals to the group."""
    (tmp_path / "hold.py").write_text(HOLD)

    def run(*args: object, signals: list[int], at: int = 1, obeys: bool = True) -> Ended:
        mark = tmp_path / "mark"
        mark.unlink(missing_ok=True)
        held = [sys.executable, tmp_path / "hold.py", mark, "obeys" if obeys else "does not", at, *args]
        process = subprocess.Popen(
            list(map(str, held)), start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        wait_for(lambda: mark.exists() or process.poll() is not None, 120)
        assert mark.exists(), process.communicate()[1]
        for i, number in enumerate(signals):
            if i:
                time.sleep(0.7)
            os.killpg(process.pid, number)
        _, err = process.communicate(timeout=WITHIN_S)
        wait_for(lambda: not group(process.pid), WITHIN_S)
        return Ended(process.returncode, err)

    return run


def wait_for(condition: Callable[[], bool], at_most_s: float) -> None:
    deadline = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def group(number: int) -> bool:
    """Whether any process of a group is left."""
    try:
        os.killpg(number, 0)
    except (ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
        return False
    return True


def check(ended: Ended, number: int) -> None:
    assert ended.status == 128 + number, ended.err
    lines = ended.err.splitlines()
    progress = [i for i, line in enumerate(lines) if re.match(r"[\w ]+: \d+ of \d+", line)]
    reported = lines[progress[-1] + 1 :]
    assert len(reported) == 1, ended.err
    assert re.match(
        r"(interrupted|terminated|ended with its terminal \(SIGHUP\)): .+\. Repeat the (same )?command.*\.", reported[0]
    )


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for i in range(6):
        t = np.arange(22_050) / 22_050
        soundfile.write(folder / f"{i}.wav", 0.3 * np.sin(2 * np.pi * (200 + 50 * i) * t), 22_050)
        (folder / f"{i}.txt").write_text(f"some words, number {i}\n")
    return folder


@pytest.mark.parametrize(
    ("workers", "signals", "obeys"),
    [
        (0, [signal.SIGTERM], False),
        (2, [signal.SIGINT], True),
        (2, [signal.SIGINT, signal.SIGINT], False),
    ],
)
def test_interrupted_extraction_leaves_no_process_and_continues(
    interrupt: Callable[..., Ended],
    call: Callable[..., Any],
    songs: Path,
    tmp_path: Path,
    workers: int,
    signals: list[int],
    obeys: bool,
) -> None:
    arguments = ["extract", songs, "-o", tmp_path / "s.zarr", "--features", "mel", "--part-rows", 1]
    check(interrupt(*arguments, "--workers", workers, signals=signals, at=3, obeys=obeys), signals[0])
    assert call(*arguments, "--workers", 0).code == 0
    assert verify(tmp_path / "s.zarr", full=True) == []
    assert len(FeatureStore.open(tmp_path / "s.zarr").ok_rows) == 6
    assert list((tmp_path / "s.zarr" / "staging").glob("*")) == []


TRAINING = ["--encoder", "tiny", "--epochs", 3, "--precision", "fp32", "--top-genres", 3]


@pytest.mark.parametrize(
    ("command", "signals", "at", "obeys"),
    [
        (["extract", "{songs}", "-o", "{out}.zarr", "--text-model", "minilm"], [signal.SIGTERM], 2, True),
        (["plan", "{songs}", "--features", "mel", "--workers", 0], [signal.SIGINT], 2, True),
        (["store", "verify", "{store}", "--full"], [signal.SIGINT], 1, True),
        (["store", "convert", "{store}", "{out}.h5"], [signal.SIGHUP], 1, True),
        (["train", "{store}", "-o", "{out}", *TRAINING], [signal.SIGINT, signal.SIGINT], 3, False),
        (["predict", "{run}", "{store}"], [signal.SIGTERM], 1, True),
        (["ablate", "{store}", "-o", "{out}", *TRAINING, "--jobs", 2], [signal.SIGINT] * 2, 2, False),
        (["demo", "-o", "{out}", "--songs", 40], [signal.SIGTERM], 3, True),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_interrupted_command_ends_with_one_line(
    interrupt: Callable[..., Ended],
    small_store: FeatureStore,
    evaluated_run: Path,
    songs: Path,
    tmp_path: Path,
    command: list[object],
    signals: list[int],
    at: int,
    obeys: bool,
) -> None:
    places = {"store": small_store.path, "run": evaluated_run, "songs": songs, "out": tmp_path / "out"}
    arguments = [str(word).format(**places) for word in command]
    check(interrupt(*arguments, signals=signals, at=at, obeys=obeys), signals[0])


def test_ignored_signal_stays_ignored(songs: Path, tmp_path: Path) -> None:
    """As under nohup."""
    script = f"trap '' HUP; exec {sys.executable} -c '{NOHUP}' manifest {songs}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


NOHUP = """
import os, signal
from mgc.commands import api
from mgc.cli import main
real = api.read_source
api.read_source = lambda *args, **options: [os.kill(os.getpid(), signal.SIGHUP), real(*args, **options)][1]
main()
"""


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_accepted(songs: Path, tmp_path: Path, closed: str) -> None:
    """And what is printed goes into no file that takes their numbers."""
    script = f"exec {sys.executable} -m mgc extract {songs} -o {tmp_path}/s.zarr --features mel --workers 0 {closed}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert verify(tmp_path / "s.zarr", full=True) == []


@pytest.mark.parametrize("arguments", [["manifest", "{songs}"], ["store", "info", "{store}", "--json"], ["--help"]])
def test_broken_pipe_ends_a_command_without_a_message(
    songs: Path, small_store: FeatureStore, arguments: list[str]
) -> None:
    words = [word.format(songs=songs, store=small_store.path) for word in arguments]
    command = [sys.executable, "-m", "mgc", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read().decode()
    assert process.returncode == 141
    assert not re.search("Traceback|Exception|error", err)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_under_stdout_is_reported(songs: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mgc", "manifest", songs],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr.splitlines()[-1]


WATCHED = """
import os, resource, threading, time
from mgc.commands import signals
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2048), most))
files = [open(os.devnull) for _ in range(1100)]
signals.install()
count = len(os.listdir("/proc/self/fd"))
for _ in range(3):
    signals.install()
time.sleep(0.2)
watches = [thread for thread in threading.enumerate() if thread.name == "mgc-signals"]
print(len(os.listdir("/proc/self/fd")) - count, len(watches), all(thread.is_alive() for thread in watches))
"""


def test_watch_of_signals_is_started_once_and_works_above_file_1023() -> None:
    """One process may run several commands, and may have many files open."""
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["0", "1", "True"], "")
