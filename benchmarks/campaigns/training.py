"""Trials in which training is killed, or its disk fails, fills up or hurts files: in the end every byte is the same."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.campaigns.faults import Fault, Killed, faults
from benchmarks.campaigns.kills import kill_group, small_disk
from benchmarks.worlds.noise import DRY, make_store
from mgc.cache.errors import SaveError, StoppedError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.runs.checkpoint import find_state
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.train import train

EPOCHS = 8
KINDS: tuple[Fault, ...] = ("kill", "EIO", "ENOSPC")
FAULT_TRIALS = 17
KILLED_AT = """
import atexit, os, sys
if folder := os.environ.get("MGC_CAMPAIGN_RUN"):
    seen, real, at = [], os.fsync, int(os.environ["MGC_CAMPAIGN_KILL_AT"])
    def count(name, path):
        if str(path).startswith(folder):
            seen.append(name)
            if len(seen) - 1 == at:
                open(folder + ".killed", "w").write(f"{name} {path}")
                os.kill(os.getpid(), 9)
    def hook(event, args):
        if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            count(event, args[0])
        elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            count(event, args[1] if event == "os.rename" else args[0])
    def fsync(handle):
        count("fsync", os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)
    os.fsync = fsync
    sys.addaudithook(hook)
    atexit.register(lambda: open(folder + ".count", "w").write(str(len(seen))))
"""
"""A sitecustomize: the process kills itself right before the n-th operation that changes a run folder."""


@functools.cache
def store() -> Path:
    """24 tracks of noise and 8 to validate; for the life of this process."""
    path = Path(tempfile.mkdtemp(prefix="mgc-campaign-training-")) / "s.zarr"
    make_store(DRY, path, n_train=24, n_validation=8).close()
    (path.parent / "site").mkdir()
    (path.parent / "site" / "sitecustomize.py").write_text(KILLED_AT)
    return path


@functools.cache
def clean() -> tuple[dict[str, bytes], int]:
    """What an undisturbed run leaves, and how many operations on its folder it takes."""
    run = store().parent / "clean"
    finish(run, kill_at=10**9)
    return leaves(run), int(run.with_name("clean.count").read_text())


def start(run: Path, *more: str, kill_at: int | None = None) -> subprocess.Popen[bytes]:
    """``mgc train``, new or resumed, leader of its own process group."""
    command = [sys.executable, "-m", "mgc", "train", str(store()), "-o", str(run), "--resume", "--split", "manifest",
               "--encoder", "tiny", "--epochs", str(EPOCHS), "--batch-size", "8", "--lr", "1e-3", "--precision", "fp32",
               "--device", "cpu", "--quiet", *more]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if kill_at is not None:
        paths = [str(store().parent / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        env |= {
            "PYTHONPATH": os.pathsep.join(paths),
            "MGC_CAMPAIGN_RUN": str(run),
            "MGC_CAMPAIGN_KILL_AT": str(kill_at),
        }
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, env=env)


def finish(run: Path, *more: str, kill_at: int | None = None) -> None:
    process = start(run, *more, kill_at=kill_at)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()[-2000:]


def leaves(run: Path) -> dict[str, bytes]:
    """Everything in ``last/`` and ``best/``, the split, and the history but for its times."""
    found = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and (path.parent.name in ("last", "best") or path.name == "splits.json")
    }
    assert not [path for path in run.rglob("*") if path.name.startswith(".")], "a draft was left"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = json.dumps([{**line, "seconds": 0} for line in lines]).encode()
    return found


def kill(number: int, folder: Path, n_kills: int = 3) -> dict[str, Any]:
    """Some kills of one run, then it is finished: every other run saves after each step."""
    rng = random.Random(number)
    expected, n_operations = clean()
    run, more = folder / "run", ("--save-every", "0") if number % 2 else ()
    found = {"kills": n_kills, "while last/ was written": 0, "while best/ was published": 0, "between": 0}
    for i in range(n_kills):
        where = _kill_at_operation(run, more, rng, n_operations) if (number + i) % 3 else _kill_any_time(run, more, rng)
        found[where] += 1
    finish(run, *more)
    assert leaves(run) == expected
    return found


def _kill_at_operation(run: Path, more: tuple[str, ...], rng: random.Random, n_operations: int) -> str:
    """At one of the operations of the start and about two epochs, so that it comes in any case."""
    note = run.with_name("run.killed")
    note.unlink(missing_ok=True)
    process = start(run, *more, kill_at=rng.randrange(n_operations // 4))
    _, err = process.communicate(timeout=300)
    assert process.returncode == -9, err.decode()[-2000:]
    return _place(Path(note.read_text().split(maxsplit=1)[1]))


def _kill_any_time(run: Path, more: tuple[str, ...], rng: random.Random) -> str:
    """Within about an epoch, after at most one more has ended."""
    lines = _n_lines(run) + rng.randrange(2)
    process = start(run, *more)
    started, deadline = time.monotonic(), time.monotonic() + 120
    while _n_lines(run) < lines or not (run / "run.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.1 * (time.monotonic() - started)))
    assert kill_group(process), "the run had ended before it could be killed"
    return _place(*(path for path in run.rglob(".*") if path.name.endswith((".partial", ".old"))))


def _place(*paths: Path) -> str:
    """What was at work when a run died at, or left, these."""
    if any("last" in (path.name, path.parent.name) for path in paths):
        return "while last/ was written"
    return (
        "while best/ was published" if any("best" in part for path in paths for part in path.parts[-2:]) else "between"
    )


def _n_lines(run: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return len((run / "metrics.jsonl").read_bytes().splitlines())
    return 0


def disk_full(number: int, folder: Path) -> dict[str, Any]:
    """A file system with room for a random share of a run; then with room for all."""
    rng = random.Random(number)
    expected, _ = clean()
    need_kib = 2 * sum(map(len, expected.values())) // 1024
    place = folder / "small"
    with small_disk(place, rng.randint(100, need_kib)) as make_room:
        process = start(place / "run")
        _, err = process.communicate(timeout=300)
        full = process.returncode != 0
        if full:
            assert process.returncode == 2, err.decode()[-2000:]
            assert b"No space left on device" in err, err.decode()[-2000:]
            assert b"--resume" in err, err.decode()[-2000:]
            find_state(place / "run")
        make_room()
        finish(place / "run")
        assert leaves(place / "run") == expected
    return {"times full": int(full)}


SMALL = {"split": "manifest", "encoder": "tiny", "batch_size": 32, "lr": 1e-3, "precision": "fp32", "device": "cpu",
         "model_options": {"width": 32, "graph_hidden": 32, "projection_dim": 16}}  # fmt: skip


@contextlib.contextmanager
def _opened() -> Iterator[FeatureStore]:
    with FeatureStore.open(store()) as opened:
        yield opened


@functools.cache
def two_epochs() -> tuple[dict[str, bytes], int]:
    """What two undisturbed epochs leave, and how many operations they take."""
    run = store().parent / "two"
    with _opened() as features, faults(run) as watch:
        train(features, run, TrainConfig(epochs=2, **SMALL))
    return leaves(run), len(watch.seen)


def n_faults() -> int:
    return two_epochs()[1] * len(KINDS)


def fault(number: int, folder: Path, step: int = FAULT_TRIALS, kinds: tuple[Fault, ...] = KINDS) -> dict[str, Any]:
    """Each kind of fault at every 17th operation from one on; :data:`FAULT_TRIALS` trials see them all."""
    expected, n_operations = two_epochs()
    count, config, run = 0, TrainConfig(epochs=2, **SMALL), folder / "run"
    for at in range(number, n_operations, step):
        for kind in kinds:
            with _opened() as features:
                said = ""
                with faults(run, kind, at) as watch, contextlib.suppress(Killed):
                    try:
                        train(features, run, config)
                    except SaveError as error:
                        said = str(error)
                assert not said or "with --resume" in said
                assert watch.fired, f"the fault at operation {at} did not happen"
                state, warnings = find_state(run)
                assert warnings == []
                if state is not None and state.best_epoch and (run / "best").exists():
                    assert load_run(run).epoch in (state.epoch, state.best_epoch, 1)
                train(features, run, config, resume=True)
            assert leaves(run) == expected, f"{kind} at operation {at} ({watch.seen[at]})"
            shutil.rmtree(run)
            count += 1
    return {"operations": count}


@functools.cache
def half_way() -> Path:
    """A run of four epochs that was stopped after two; and beside it one that was not."""
    config, ended = TrainConfig(epochs=4, **SMALL), []
    with _opened() as features, contextlib.suppress(StoppedError):
        train(features, store().parent / "four", config)
        train(features, store().parent / "half", config, stop=lambda: len(ended) > 1,
              on_progress=lambda progress: ended.append(1) if progress.stage == "epoch" else None)  # fmt: skip
    return store().parent / "half"


def damage(number: int, folder: Path, every: int = 1) -> dict[str, Any]:
    """A random byte of each file of a run, one file at a time, or its end, or the file itself is lost; then resume."""
    rng = random.Random(number)
    before, expected = half_way(), leaves(half_way().with_name("four"))
    count = 0
    victims = sorted(path.relative_to(before) for path in before.rglob("*") if path.is_file())
    for victim in victims[number % every :: every]:
        run = Path(shutil.copytree(before, folder / "run"))
        data = bytearray((run / victim).read_bytes())
        kind = rng.choice(("flip", "cut", "lost"))
        (run / victim).unlink()
        if kind == "flip":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if kind != "lost":
            (run / victim).write_bytes(data if kind == "flip" else data[: rng.randrange(len(data))])
        with _opened() as features:
            train(features, run, TrainConfig(epochs=4, **SMALL), resume=True)
        # Lines of earlier epochs cannot be had again; the model card is for people, who may change it.
        spared = {"metrics.jsonl": {"metrics": b""}, "README.md": {"best/README.md": b""}}.get(victim.name, {})
        assert leaves(run) | spared == expected | spared, f"{victim} {kind}"
        shutil.rmtree(run)
        count += 1
    return {"files": count}
