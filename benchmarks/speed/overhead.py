"""CPU time of commands with little work, as whole processes, compared with an earlier commit of mgc."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.speed import whole_process
from benchmarks.timing import spread, table
from mgc.pipeline.synth.world import make_collection

OLD = "3f4f5de"
"""The last commit of the first version."""
N_SONGS = 40
TRAIN = ["--encoder", "tiny", "--epochs", "1", "--split", "random", "--quiet"]


@contextmanager
def old_code(folder: Path) -> Iterator[Path]:
    """Check out the earlier commit; yield a folder from which Python imports it as ``mgc``."""
    tree = folder / "mgc"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), OLD], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def run(folder: Path, rounds: int) -> str:
    """Time one song, a missing folder and help texts with both commits in turn."""
    folder.mkdir()
    songs = make_collection(folder / "songs", N_SONGS, 0, workers=1)
    one = folder / "one"
    one.mkdir()
    shutil.copy(sorted((songs / "audios").iterdir())[0], one / "song.mp3")
    (folder / "new").mkdir()
    (folder / "new" / "mgc").symlink_to(ROOT, target_is_directory=True)
    with old_code(folder / "old") as old:
        code = {"earlier": old, "now": folder / "new"}

        def mgc(version: str, *arguments: object, check: bool = True) -> float:
            """Return the CPU time of a command in s."""
            command = [sys.executable, "-m", "mgc", *arguments]
            inside = {**os.environ, "PYTHONPATH": str(code[version])}
            return whole_process.run(command, env=inside, check=check).cpu_s

        store, trained = folder / "songs.zarr", folder / "run"
        mgc("earlier", "extract", songs, "-o", store, "--text-model", "minilm", "--workers", "2", "--quiet")
        mgc("earlier", "train", store, "-o", trained, *TRAIN)

        def extract_one(version: str) -> float:
            shutil.rmtree(folder / "one.zarr", ignore_errors=True)
            return mgc(version, "extract", one, "-o", folder / "one.zarr", "--features", "mel", "--quiet")

        commands = {
            "`mgc extract` of one song, audio": extract_one,
            "`mgc predict` of one song, audio": lambda version: mgc(version, "predict", trained, one / "song.mp3"),
            "`mgc predict` of a missing file": lambda version: mgc(
                version, "predict", trained, folder / "none.mp3", check=False
            ),
            "`mgc train --help`": lambda version: mgc(version, "train", "--help"),
        }
        rows = []
        for name, command in commands.items():
            times: dict[str, list[float]] = {version: [] for version in code}
            for turn in range(-1, rounds):  # a warm-up first
                for version in sorted(code, reverse=bool(turn % 2)):
                    seconds = command(version)
                    if turn >= 0:
                        times[version].append(seconds)
            share = statistics.median(now / then for now, then in zip(times["now"], times["earlier"], strict=True))
            rows.append([name, spread(times["earlier"], 1, 2), spread(times["now"], 1, 2), f"{share:.0%}"])
    header = ["", f"CPU s at {OLD}", "CPU s now", "share"]
    note = f"\n\nAll processes of a command. The model was trained at {OLD}, on {N_SONGS} generated songs."
    return table("Commands with little work", header, rows) + note
