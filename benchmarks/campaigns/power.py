"""Power cuts while a command writes, and right after it: ext4, XFS and btrfs on a disk that logs its writes.

The disk is :mod:`benchmarks.campaigns.disk`. One run of a command gives a log; each cut makes the disk of one moment of
it, mounts that, and gives the command again. Cuts are drawn over the requests of the disk, not over time.
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
"""Cuts of each trial, and how many of them come right after exit 0."""
LOST = (0.0, 0.5, 0.5, 1.0)
"""Share of the blocks written since the last flush that a cut loses."""
STRAIN = """
import os, sys
if path := os.environ.get("MGC_CAMPAIGN_NEIGHBOUR"):
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    fsync, writes = os.fsync, os.O_WRONLY | os.O_RDWR | os.O_CREAT
    left = [int(os.environ["MGC_CAMPAIGN_KILL_AT"])]
    def operate():
        left[0] -= 1
        if left[0] == 0:
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
"""Code that a command runs first. Before each of its operations, another file of the disk is fsynced, which makes names
durable whose data are not; at one of them it is killed."""
_PROCESSES = multiprocessing.get_context("forkserver")
"""Processes that start with everything imported; each ends with what it has open, so that its disk can be unmounted."""
_PROCESSES.set_forkserver_preload(["mgc.cli", "mgc.api", "benchmarks.campaigns.power"])


@dataclass(frozen=True)
class Command:
    """A command that writes into the current folder.

    Attributes
    ----------
    arguments : of ``mgc``; SONGS, FEWER and NOISE stand for sources on another disk.
    before : names of commands that run first, undisturbed.
    done : error of the command where nothing is left to do.
    feature_set : whose parts it reports as committed.
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
    "convert": Command("store convert s.zarr s.h5", before=("extract",), done="there is something already"),
    "add": Command(f"extract SONGS --add pooled_mel {_EXTRACT}", before=("extract",), feature_set="pooled_mel"),
    "unpack": Command(
        "store convert s.h5 again.zarr", before=("extract", "convert"), done="there is something already"
    ),
    "select": Command(
        "store select s.zarr -o less.zarr --genre rock", before=("extract", "drop"), done="there is something already"
    ),
    "retract": Command(
        "store drop s.zarr --feature pooled_mel", before=("extract", "add"), done="no features 'pooled_mel'"
    ),
}
_FIRST = {"fewer": Command(f"extract FEWER {_EXTRACT}")}
_VARY = ("run.json", "report.html")
"""Files with times in them, of which only the end is compared."""


@functools.cache
def source(word: str) -> str:
    """Return the path that a word of the arguments stands for, or the word."""
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
    """Return what a command finds, and what it leaves."""
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
    """Read everything below a folder but logs and drafts: path -> content, None for a folder."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder)
        if "log" in key.parts or any(part.startswith(".") for part in key.parts) or key.parts[0] == "lost+found":
            continue
        found[key.as_posix()] = None if path.is_dir() else path.read_bytes()
        if path.name in _VARY:
            found[key.as_posix()] = path.read_bytes()[-3:]
        if path.name == "metrics.jsonl":
            lines = [{**json.loads(line), "seconds": 0} for line in path.read_text().splitlines()]
            found[key.as_posix()] = json.dumps(lines).encode()
    return found


def cut(number: int, folder: Path, n_cuts: int = N_CUTS, names: tuple[str, ...] = tuple(COMMANDS)) -> dict[str, Any]:
    """Cut the power of a disk at random moments of a command that writes, and right after its exit 0.

    What it reported as committed is there after the next mount, a store verifies in full, and the command, given again,
    ends as an undisturbed one, byte for byte. After exit 0 everything is there.
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
        lost = 1.0 if i == 0 else rng.choice(LOST)
        at = stop_at if finished else rng.choice([k for k in moments if not lost or writes[k - 1].data] or moments)
        disk.copy_image(folder / "before.img", folder / "cut.img")
        n_lost = disk.cut(folder / "cut.img", writes[:at], lost, rng)
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
        The lines of its stderr, each with the position of the disk's log when it came.
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
    assert process.exitcode == 0, "the traceback above is of the process that looked at the disk after the cut"


def check(command: Command, arguments: list[str], folder: Path, after: Path, lines: list[str], finished: bool) -> None:
    """Look at a disk after a power cut, give the command again and look again.

    Parameters
    ----------
    after : what an undisturbed run leaves.
    lines : what the command had printed before the cut.
    finished : the command had ended with exit 0.
    """
    torch.set_num_threads(1)
    expected = content(after)
    for store in (*folder.glob("*.zarr"), *folder.glob("*.h5")):
        _mgc("store", "verify", str(store), "--full")
        _mgc("store", "info", str(store))
    _check_promises(command, folder, "".join(lines))
    if finished:
        found = content(folder)
        lost = [key for key, data in expected.items() if data is not None and found.get(key) != data]
        assert not lost, f"lost after exit 0: {lost}"
    with contextlib.chdir(folder):
        try:
            _mgc(*arguments)
        except ConfigError as error:
            if not command.done or command.done not in str(error):
                raise
    found = content(folder)
    other = [key for key in expected.keys() | found.keys() if found.get(key, b"-") != expected.get(key, b"-")]
    assert not other, f"other than after an undisturbed run: {sorted(other)}"


def _mgc(*arguments: str) -> None:
    """Run a command in this process; it must succeed."""
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
