"""Define trials with power cuts while a command writes and right after it, on ext4, XFS and btrfs.

The disk of :mod:`benchmarks.campaigns.disk` logs its writes. One run of a command gives a log. Each cut reconstructs
the disk at one position of the log, mounts it, and runs the command again. Positions are drawn over requests, not over
time.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import multiprocessing
import random
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.campaigns import disk, kills, training
from benchmarks.campaigns.processes import kill_group, output, run_first, start
from benchmarks.machine import ONE_THREAD
from mgc.cache.errors import ConfigError
from mgc.cache.format.records import committed
from mgc.heads.runs.checkpoint import find_state

N_CUTS = 10
AFTER_EXIT = 2
"""Number of cuts per trial, and how many of them come right after exit 0."""
LOST = (0.0, 0.5, 0.5, 1.0)
"""Probabilities of losing a block written since the last flush."""
STRAIN = """
import os, sys
if path := os.environ.get("MGC_CAMPAIGN_NEIGHBOUR"):
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    fsync, writes = os.fsync, os.O_WRONLY | os.O_RDWR | os.O_CREAT
    remaining = [int(os.environ["MGC_CAMPAIGN_KILL_AT"])]
    def operate():
        remaining[0] -= 1
        if remaining[0] == 0:
            os.kill(os.getpid(), 9)
        if os.environ["MGC_CAMPAIGN_SYNC"]:
            os.write(handle, b".")
            fsync(handle)
    def hook(event, args):
        opens = event == "open" and isinstance(args[2], int) and args[2] & writes
        if opens or event in ("os.link", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            operate()
    def counted(handle):
        operate()
        fsync(handle)
    os.fsync = counted
    sys.addaudithook(hook)
"""
"""Start-up code of a command. Before each operation it fsyncs another file of the disk, which makes names durable whose
data is not; at one operation it kills the process."""
_PROCESSES = multiprocessing.get_context("forkserver")
"""Context of processes that start with all imports. Each closes its files on exit, so its disk can be unmounted."""
_PROCESSES.set_forkserver_preload(["mgc.cli", "mgc.api", "benchmarks.campaigns.power"])


@dataclass(frozen=True)
class Command:
    """A command that writes into the current folder.

    Attributes
    ----------
    arguments : of ``mgc``; SONGS, FEWER and NOISE are placeholders for sources on another disk.
    before : names of commands that run first, without a cut.
    done : error of the command if there is nothing left to do.
    feature_set : feature set of the parts that it reports as committed.
    """

    arguments: str
    before: tuple[str, ...] = ()
    done: str = ""
    feature_set: str | None = None


_EXTRACT = "-o s.zarr --features mel --clip-s 1 --part-rows 4 --workers 0 -v"
_TRAIN = " ".join(f"{key} {value}" for key, value in (training.OPTIONS | {"--epochs": 1}).items())
_SMALL = "--set width=32 --set graph_hidden=32 --set projection_dim=16"
COMMANDS = {
    "extract": Command(f"extract SONGS {_EXTRACT}"),
    "manifest": Command("manifest SONGS -o tracks.jsonl"),
    "train": Command(f"train NOISE -o runs/first --resume --save-every 0 -v {_TRAIN} {_SMALL}"),
    "append": Command(f"extract SONGS --append {_EXTRACT}", before=("fewer",)),
    "drop": Command("store drop s.zarr t02 t09", before=("extract",)),
    "compact": Command("store compact s.zarr", before=("extract", "drop")),
    "convert": Command("store convert s.zarr s.h5", before=("extract",), done="already exists"),
    "add": Command(f"extract SONGS --add pooled_mel {_EXTRACT}", before=("extract",), feature_set="pooled_mel"),
    "unpack": Command("store convert s.h5 again.zarr", before=("extract", "convert"), done="already exists"),
    "select": Command(
        "store select s.zarr -o less.zarr --genre rock", before=("extract", "drop"), done="already exists"
    ),
    "retract": Command(
        "store drop s.zarr --feature pooled_mel", before=("extract", "add"), done="no features 'pooled_mel'"
    ),
}
_FIRST = {"fewer": Command(f"extract FEWER {_EXTRACT}")}
_VARY = ("run.json", "report.html")
"""Files that contain times, of which only the end is compared."""


@functools.cache
def source(word: str) -> str:
    """Return the path of a placeholder, or the word itself."""
    if word == "NOISE":
        return str(training.store())
    if word not in ("SONGS", "FEWER"):
        return word
    songs = kills.songs() / "songs.jsonl"
    fewer = songs.with_name("fewer.jsonl")
    fewer.write_text("".join(songs.read_text().splitlines(keepends=True)[:14]))
    return str(songs if word == "SONGS" else fewer)


@functools.cache
def undisturbed(name: str) -> tuple[Path, Path]:
    """Return the folders before and after an uninterrupted run of a command."""
    folder = Path(tempfile.mkdtemp(prefix="mgc-campaign-power-"))
    for first in (COMMANDS | _FIRST)[name].before:
        shutil.copytree(undisturbed(first)[1], folder / "before", dirs_exist_ok=True)
    (folder / "before").mkdir(exist_ok=True)
    shutil.copytree(folder / "before", folder / "after")
    output(start(*arguments(name), env=ONE_THREAD, folder=folder / "after"))
    return folder / "before", folder / "after"


def arguments(name: str) -> list[str]:
    return [source(word) for word in (COMMANDS | _FIRST)[name].arguments.split()]


def content(folder: Path) -> dict[str, bytes | None]:
    """Read everything below a folder except logs and drafts: path -> content, None for a folder."""
    contents: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder)
        if "log" in key.parts or any(part.startswith(".") for part in key.parts) or key.parts[0] == "lost+found":
            continue
        contents[key.as_posix()] = None if path.is_dir() else path.read_bytes()
        if path.name in _VARY:
            contents[key.as_posix()] = path.read_bytes()[-3:]
        if path.name == "metrics.jsonl":
            lines = [{**json.loads(line), "seconds": 0} for line in path.read_text().splitlines()]
            contents[key.as_posix()] = json.dumps(lines).encode()
    return contents


def cut(number: int, folder: Path, n_cuts: int = N_CUTS, names: tuple[str, ...] = tuple(COMMANDS)) -> dict[str, Any]:
    """Cut the power of a disk at random points of a command that writes, and right after its exit 0.

    After the next mount, all reported commits are present, a store passes `verify --full`, and a repeated command gives
    the bytes of an uninterrupted one. After exit 0, all its files are present.
    """
    rng = random.Random(number)
    name, kind = names[number % len(names)], list(disk.MAKE)[number % len(disk.MAKE)]
    options = rng.choice(disk.OPTIONS[kind])
    before, expected = undisturbed(name)
    disk.make_image(folder / "before.img", kind, before)
    disk.copy_image(folder / "before.img", folder / "now.img")
    env = run_first(folder / "site", STRAIN) | {"MGC_CAMPAIGN_SYNC": rng.choice(("", "1"))}
    kill_at = rng.choice((0, int(2 ** rng.uniform(0, 7))))
    with disk.logged(folder / "now.img", folder / "now", options) as now:
        first = now.position()
        code, lines = _run(name, now, env, kill_at)
        if killed := code == -9:
            first = now.position()
            code, more = _run(name, now, env)
            lines += more
        last = now.position()
    printed = "".join(line for line, _ in lines)
    assert code == 0 or (killed and COMMANDS[name].done in printed), printed
    writes, ends = disk.read_log(now.log)
    start_at, stop_at = (sum(end <= position for end in ends) for position in (first, last))
    assert start_at < stop_at, "the command sent nothing to the disk"
    moments = range(start_at, stop_at)
    counts = {
        "cuts": 0,
        "after exit 0": 0,
        "of a command continued after a kill": 0,
        "with blocks lost": 0,
        "blocks lost": 0,
    }
    for i in range(n_cuts):
        finished = i < AFTER_EXIT and code == 0
        p_lost = 1.0 if i == 0 else rng.choice(LOST)
        at = stop_at if finished else rng.choice([k for k in moments if not p_lost or writes[k - 1].data] or moments)
        disk.copy_image(folder / "before.img", folder / "cut.img")
        n_lost = disk.cut(folder / "cut.img", writes[:at], p_lost, rng)
        promised = [line for line, position in lines if position <= (ends[at - 1] if at else 0)]
        with disk.mounted(folder / "cut.img", folder / "cut", options) as recovered:
            _in_own_process(check, COMMANDS[name], arguments(name), recovered, expected, promised, finished)
        counts["cuts"] += 1
        counts["after exit 0"] += finished
        counts["of a command continued after a kill"] += killed
        counts["with blocks lost"] += bool(n_lost)
        counts["blocks lost"] += n_lost
    return counts | {f"on {kind}": counts["cuts"]}


def _run(name: str, now: disk.Disk, env: dict[str, str], kill_at: int = 0) -> tuple[int, list[tuple[str, int]]]:
    """Run a command on a disk.

    Returns
    -------
    int
        Its exit status.
    list of (str, int)
        The lines of its stderr, each with the position of the disk's log at that time.
    """
    env = (
        ONE_THREAD | env | {"MGC_CAMPAIGN_NEIGHBOUR": f"{now.folder}/.neighbour", "MGC_CAMPAIGN_KILL_AT": str(kill_at)}
    )
    process = start(*arguments(name), env=env, folder=now.folder)
    try:
        assert process.stderr is not None
        lines = [(line.decode(), now.position()) for line in process.stderr]
        return process.wait(timeout=300), lines
    finally:
        kill_group(process)


def _in_own_process(function: Callable[..., None], *args: object) -> None:
    process = _PROCESSES.Process(target=function, args=args)
    process.start()
    process.join(timeout=300)
    process.kill()
    assert process.exitcode == 0, "the traceback above is from the process that checks the disk after the cut"


def check(command: Command, arguments: list[str], folder: Path, after: Path, lines: list[str], finished: bool) -> None:
    """Check a disk after a power cut, run the command again, and compare the result.

    Parameters
    ----------
    after : folder after an uninterrupted run.
    lines : output of the command before the cut.
    finished : whether the command had ended with exit 0.
    """
    torch.set_num_threads(1)
    expected = content(after)
    for store in (*folder.glob("*.zarr"), *folder.glob("*.h5")):
        _mgc("store", "verify", str(store), "--full")
        _mgc("store", "info", str(store))
    _check_promises(command, folder, "".join(lines))
    if finished:
        contents = content(folder)
        differing = [key for key, data in expected.items() if data is not None and contents.get(key) != data]
        assert not differing, f"lost after exit 0: {differing}"
    with contextlib.chdir(folder):
        try:
            _mgc(*arguments)
        except ConfigError as error:
            if not command.done or command.done not in str(error):
                raise
    contents = content(folder)
    differing = [key for key in expected.keys() | contents.keys() if contents.get(key, b"-") != expected.get(key, b"-")]
    assert not differing, f"differs from an uninterrupted run: {sorted(differing)}"


def _mgc(*arguments: str) -> None:
    """Run a command in this process; assert that it succeeds."""
    from mgc.cli import app

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = app(list(arguments), standalone_mode=False)
    assert not code, printed.getvalue()


def _check_promises(command: Command, folder: Path, lines: str) -> None:
    if parts := {int(number) for number in re.findall(r"part (\d+): ", lines)}:
        assert parts <= committed(folder / "s.zarr", command.feature_set).keys()
    if epochs := re.findall(r"epoch (\d+): ", lines):
        state, warnings = find_state(folder / "runs" / "first")
        assert warnings == []
        assert state is not None
        assert state.epoch >= int(epochs[-1])
