"""Define trials that kill training, let its disk fail or fill up, or damage its files, and compare the final bytes."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.campaigns.faults import Fault, Killed, faults
from benchmarks.campaigns.processes import full_disk_error, kill_group, output, run_first, small_disk
from benchmarks.campaigns.processes import start as start_mgc
from benchmarks.worlds.noise import DRY, make_store
from mgc.cache.errors import SaveError, StoppedError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.runs.checkpoint import find_state
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.train import train

OPTIONS = {
    "--split": "manifest",
    "--encoder": "tiny",
    "--epochs": 8,
    "--batch-size": 8,
    "--lr": 1e-3,
    "--precision": "fp32",
    "--device": "cpu",
}
KINDS: tuple[Fault, ...] = ("kill", "EIO", "ENOSPC")
FAULT_TRIALS = 17
KILLED_AT = """
import atexit, os, sys
if folder := os.environ.get("MGC_CAMPAIGN_RUN"):
    operations, real, at = [], os.fsync, int(os.environ["MGC_CAMPAIGN_KILL_AT"])
    def count(name, path):
        if str(path).startswith(folder):
            operations.append(name)
            if len(operations) - 1 == at:
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
    atexit.register(lambda: open(folder + ".count", "w").write(str(len(operations))))
"""
"""Start-up code of a training: it kills itself right before the n-th operation that changes a run folder."""


@functools.cache
def store() -> Path:
    """Write a store of 24 training and 8 validation tracks of noise, for the life of this process."""
    path = Path(tempfile.mkdtemp(prefix="mgc-campaign-training-")) / "s.zarr"
    make_store(DRY, path, n_train=24, n_validation=8).close()
    return path


@functools.cache
def kill_code() -> dict[str, str]:
    """Write :data:`KILLED_AT` for the life of this process; return an environment that makes processes run it."""
    return run_first(store().parent / "site", KILLED_AT)


@functools.cache
def clean() -> tuple[dict[str, bytes], int]:
    """Return the files of an uninterrupted run, and the number of operations on its folder."""
    run = store().parent / "clean"
    finish(run, kill_at=10**9)
    return results(run), int(run.with_name("clean.count").read_text())


def start(run: Path, *more: str, kill_at: int | None = None) -> subprocess.Popen[bytes]:
    """Start or resume ``mgc train``."""
    env = {"OMP_NUM_THREADS": "1"}
    if kill_at is not None:
        env |= kill_code() | {"MGC_CAMPAIGN_RUN": str(run), "MGC_CAMPAIGN_KILL_AT": str(kill_at)}
    options = [value for option in OPTIONS.items() for value in option]
    return start_mgc("train", store(), "-o", run, "--resume", "--quiet", *options, *more, env=env)


def finish(run: Path, *more: str, kill_at: int | None = None) -> None:
    """Train the remaining epochs."""
    output(start(run, *more, kill_at=kill_at))


def results(run: Path) -> dict[str, bytes]:
    """Read the files of ``last/`` and ``best/``, the split, and the history without its times."""
    files = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and (path.parent.name in ("last", "best") or path.name == "splits.json")
    }
    assert not [path for path in run.rglob("*") if path.name.startswith(".")], "a draft is left"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    files["metrics"] = json.dumps([{**line, "seconds": 0} for line in lines]).encode()
    return files


def kill(number: int, folder: Path, n_kills: int = 3) -> dict[str, Any]:
    """Kill `mgc train` at random times by SIGKILL, with a checkpoint per step in half the runs, then finish.

    Final checkpoints, model and history are those of an uninterrupted run, byte for byte.
    """
    rng = random.Random(number)
    expected, n_operations = clean()
    run, more = folder / "run", ("--save-every", "0") if number % 2 else ()
    kills = {"kills": n_kills, "while last/ was written": 0, "while best/ was published": 0, "between": 0}
    for i in range(n_kills):
        step = _kill_at_operation(run, more, rng, n_operations) if (number + i) % 3 else _kill_any_time(run, more, rng)
        kills[step] += 1
    finish(run, *more)
    assert results(run) == expected
    return kills


def _kill_at_operation(run: Path, more: tuple[str, ...], rng: random.Random, n_operations: int) -> str:
    """Kill at one of the operations of the start and of about two epochs, which always happen."""
    note = run.with_name("run.killed")
    note.unlink(missing_ok=True)
    process = start(run, *more, kill_at=rng.randrange(n_operations // 4))
    _, err = process.communicate(timeout=300)
    assert process.returncode == -9, err.decode()[-2000:]
    return _step_at(Path(note.read_text().split(maxsplit=1)[1]))


def _kill_any_time(run: Path, more: tuple[str, ...], rng: random.Random) -> str:
    """Kill within the first or second of the remaining epochs."""
    lines = _n_lines(run) + rng.randrange(2)
    process = start(run, *more)
    started, deadline = time.monotonic(), time.monotonic() + 120
    while _n_lines(run) < lines or not (run / "run.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.1 * (time.monotonic() - started)))
    assert kill_group(process), "the run had ended before it could be killed"
    return _step_at(*(path for path in run.rglob(".*") if path.name.endswith((".partial", ".old"))))


def _step_at(*paths: Path) -> str:
    """Return the step of a training that was killed at these paths, or left these drafts."""
    if any("last" in (path.name, path.parent.name) for path in paths):
        return "while last/ was written"
    if any("best" in part for path in paths for part in path.parts[-2:]):
        return "while best/ was published"
    return "between"


def _n_lines(run: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return len((run / "metrics.jsonl").read_bytes().splitlines())
    return 0


def disk_full(number: int, folder: Path) -> dict[str, Any]:
    """Fill a small tmpfs at a random point of a training: the command ends with an error that names the cause.

    After space is freed, the final run equals an uninterrupted one.
    """
    rng = random.Random(number)
    expected, _ = clean()
    need_kib = 2 * sum(map(len, expected.values())) // 1024
    disk = folder / "small"
    with small_disk(disk, rng.randint(100, need_kib)) as make_room:
        error = full_disk_error(start(disk / "run"), timeout_s=300)
        if error is not None:
            assert "--resume" in error, error[-2000:]
            find_state(disk / "run")
        make_room()
        finish(disk / "run")
        assert results(disk / "run") == expected
    return {"times full": int(error is not None)}


def _train(run: Path, epochs: int, **options: Any) -> None:
    """Train a smaller model than that of :func:`start`, in this process."""
    config = TrainConfig(
        split="manifest",
        encoder="tiny",
        epochs=epochs,
        batch_size=32,
        lr=1e-3,
        precision="fp32",
        device="cpu",
        model_options={"width": 32, "graph_hidden": 32, "projection_dim": 16},
    )
    with FeatureStore.open(store()) as features:
        train(features, run, config, **options)


@functools.cache
def two_epochs() -> tuple[dict[str, bytes], int]:
    """Return the files of two uninterrupted epochs, and the number of operations."""
    run = store().parent / "two"
    with faults(run) as watch:
        _train(run, epochs=2)
    return results(run), len(watch.operations)


def n_faults() -> int:
    return two_epochs()[1] * len(KINDS)


def fault(number: int, folder: Path, step: int = FAULT_TRIALS, kinds: tuple[Fault, ...] = KINDS) -> dict[str, Any]:
    """Kill a training of two epochs, or let its disk fail (EIO, ENOSPC), at every operation.

    It leaves an intact checkpoint or none, and equals an uninterrupted run after a resume.
    """
    expected, n_operations = two_epochs()
    count, run = 0, folder / "run"
    for at in range(number, n_operations, step):
        for kind in kinds:
            message = ""
            with faults(run, kind, at) as watch, contextlib.suppress(Killed):
                try:
                    _train(run, epochs=2)
                except SaveError as error:
                    message = str(error)
            assert not message or "with --resume" in message
            assert watch.fired, f"the fault at operation {at} did not happen"
            state, warnings = find_state(run)
            assert warnings == []
            if state is not None and state.best_epoch and (run / "best").exists():
                assert load_run(run).epoch in (state.epoch, state.best_epoch, 1)
            _train(run, epochs=2, resume=True)
            assert results(run) == expected, f"{kind} at operation {at} ({watch.operations[at]})"
            shutil.rmtree(run)
            count += 1
    return {"operations": count}


@functools.cache
def half_way() -> Path:
    """Train an uninterrupted run of four epochs, and one that was stopped after two; return the latter."""
    epochs = []

    def count(step: str, done: int, total: int, note: str = "") -> None:
        if step == "train":
            epochs.append(done)

    _train(store().parent / "four", epochs=4)
    with contextlib.suppress(StoppedError):
        _train(store().parent / "half", epochs=4, stop=lambda: len(epochs) > 1, on_progress=count)
    return store().parent / "half"


def damage(number: int, folder: Path, every: int = 1) -> dict[str, Any]:
    """Flip a bit of a file of a stopped run, truncate the file or delete it, one file at a time.

    Damaged files are refused and intact ones used instead, so that the resumed run equals an uninterrupted one.
    """
    rng = random.Random(number)
    before, expected = half_way(), results(half_way().with_name("four"))
    count = 0
    victims = sorted(path.relative_to(before) for path in before.rglob("*") if path.is_file())
    for victim in victims[number % every :: every]:
        run = Path(shutil.copytree(before, folder / "run"))
        data = bytearray((run / victim).read_bytes())
        kind = rng.choice(("flip", "cut", "missing"))
        (run / victim).unlink()
        if kind == "flip":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if kind != "missing":
            (run / victim).write_bytes(data if kind == "flip" else data[: rng.randrange(len(data))])
        _train(run, epochs=4, resume=True)
        # Lines of earlier epochs cannot be recovered; users may edit the model card.
        ignored = {"metrics.jsonl": {"metrics": b""}, "README.md": {"best/README.md": b""}}.get(victim.name, {})
        assert results(run) | ignored == expected | ignored, f"{victim} {kind}"
        shutil.rmtree(run)
        count += 1
    return {"files": count}
