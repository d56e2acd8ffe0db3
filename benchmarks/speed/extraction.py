"""Whole extractions as processes: the script, ours on one core, on two, twice at once; then ever longer collections."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import ROOT
from benchmarks.speed import audio, text, whole_process
from benchmarks.speed.inputs import RECORDINGS, write_clips, write_collection
from benchmarks.speed.whole_process import Run
from benchmarks.timing import in_turn, spread, table
from mgc.cache.reading.store import FeatureStore

SCRIPT, ONE, TWO = "the script, one core", "mgc extract, one core", "mgc extract, two workers on two cores"
APART = "two separate mgc extract on half the songs each, one a core (limit)"
LEAST_COSINE = 0.999
"""Of token states that one of them keeps as float16."""
SHORT_CLIP_S = 5.0
GB = 1e9


@dataclass(frozen=True)
class Amounts:
    """Songs of the two collections that each takes, and rows a part: enough for the difference to stand out."""

    of_script: tuple[int, int]
    of_ours: tuple[int, int]
    part_rows: int


FP32 = Amounts((4, 24), (4, 24), part_rows=2)
BF16 = Amounts((16, 64), (64, 320), part_rows=16)
QUICK = Amounts((4, 8), (4, 8), part_rows=2)


def run(folder: Path, encoder: Path, amounts: Amounts, rounds: int) -> str:
    """Side by side: the librosa and transformers script, ours on one core, ours on two, and two of ours at once.

    Each takes a few songs and many: the difference is what songs cost, the rest what it costs to start.
    """
    saved = folder / "saved"
    lines = write_collection(folder, max(amounts.of_script + amounts.of_ours))

    def extract(songs: list[str], store: Path, workers: int, cores: list[int]) -> Run:
        shutil.rmtree(store, ignore_errors=True)
        return whole_process.run(
            [sys.executable, "-m", "mgc", "extract", str(_table(store.with_suffix(".csv"), songs)), "-o", str(store),
             "--text-model", str(encoder), "--text-precision", "auto", "--part-rows", str(amounts.part_rows),
             "--workers", str(workers), "--quiet"],
            cores=cores,
        )  # fmt: skip

    def script(n: int) -> list[Run]:
        shutil.rmtree(saved, ignore_errors=True)
        saved.mkdir()
        table = _table(folder / "script.csv", lines[: n + 1])
        command = [sys.executable, "-m", "benchmarks.speed.rivals", str(table), str(encoder), str(saved)]
        return [whole_process.run(command, cores=_cores()[:1], cwd=ROOT)]

    def apart(n: int) -> list[Run]:
        songs, cores = lines[1 : n + 1], _cores()[:2]
        halves = [[lines[0], *songs[index::2]] for index in range(2)]
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(extract, halves, stores[APART], [1, 1], [[core] for core in cores]))

    stores = {ONE: [folder / "one.zarr"], TWO: [folder / "two.zarr"],
              APART: [folder / "apart0.zarr", folder / "apart1.zarr"]}  # fmt: skip
    entrants = {
        SCRIPT: script,
        ONE: lambda n: [extract(lines[: n + 1], *stores[ONE], 1, _cores()[:1])],
        TWO: lambda n: [extract(lines[: n + 1], *stores[TWO], 2, _cores()[:2])],
        APART: apart,
    }
    sizes = {name: amounts.of_script if name == SCRIPT else amounts.of_ours for name in entrants}
    found: dict[str, list[tuple[list[Run], list[Run]]]] = {name: [] for name in entrants}

    def both(name: str) -> Callable[[], str]:
        def work() -> str:
            few, many = sizes[name]
            found[name].append((entrants[name](few), entrants[name](many)))
            return name

        return work

    in_turn({name: both(name) for name in entrants}, rounds=rounds, warm_up=False,
            agree=lambda _, other: _wrong(saved, stores[other], sizes[SCRIPT][1]))  # fmt: skip
    a_song = {name: [(_seconds(b) - _seconds(a)) / (sizes[name][1] - sizes[name][0]) for a, b in runs]
              for name, runs in found.items()}  # fmt: skip

    def times(slow: str, fast: str) -> str:
        return spread([a / b for a, b in zip(a_song[slow], a_song[fast], strict=True)], 1, 2)

    rows = [
        [name, "{} and {}".format(*sizes[name]), spread(a_song[name], 1, 3),
         "-" if name == SCRIPT else times(SCRIPT, name), times(ONE, name) if name in (TWO, APART) else "-",
         spread([_seconds(a) - sizes[name][0] * one for (a, _), one in zip(found[name], a_song[name], strict=True)],
                1, 1),
         spread([sum(run.tree_bytes for run in b) / GB for _, b in found[name]], 1, 2)]
        for name in entrants
    ]  # fmt: skip
    title = f"Whole extraction: sound and BERT-base-sized text (songs of 30 s, parts of {amounts.part_rows})"
    header = ["", "songs", "s a song", "times the script", "times one core", "s to start", "GB, all processes"]
    note = ("\n\nWhole processes. What a song costs is the difference between the two collections by how many songs "
            "they differ in; the rest is starting, mostly importing torch and transformers: once in the script, in "
            "ours once to plan and once in each worker. Two separate extractions share nothing but the processor: what "
            "they lose against twice one core is memory bandwidth, caches and clock, and no scheduler gets it "
            f"back. {RECORDINGS} recordings, met again under other ids; all lyrics differ.")  # fmt: skip
    return table(title, header, rows) + note


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def _seconds(runs: list[Run]) -> float:
    """Of runs that started together."""
    return max(run.seconds for run in runs)


def _wrong(saved: Path, stores: list[Path], n: int) -> str | None:
    """What of the stores is not what the script saved of its `n` songs."""
    wrong = [_differences(saved, store) for store in stores]
    n_met = sum(met for met, _ in wrong)
    return next(filter(None, (found for _, found in wrong)), None) or (None if n_met == n else f"{n_met} of {n} songs")


def _differences(saved: Path, store: Path) -> tuple[int, str | None]:
    """How many songs both have, and what is wrong with the first that differs."""
    n_met = 0
    with FeatureStore.open(store) as opened:
        for row, name in zip(
            opened.tracks.column("row").to_pylist(), opened.tracks.column("id").to_pylist(), strict=True
        ):
            if not (saved / f"{name}.mel.npy").exists():
                continue
            n_met += 1
            states = opened.read("lyrics", [row])[0, : int(opened.read("lyrics_tokens", [row])[0])].astype(np.float32)
            wrong = audio.apart(np.load(saved / f"{name}.mel.npy"), opened.read("mel", [row])[0])
            wrong = wrong or text.agree([np.load(saved / f"{name}.lyrics.npy")], [states], LEAST_COSINE)
            if wrong:
                return n_met, f"{name}: {wrong}"
    return n_met, None


def growth(folder: Path, sizes: list[int], workers: int) -> str:
    """The same extraction of ever longer collections of short clips; what one track more costs, and memory."""
    clips = write_clips(folder / "audios", RECORDINGS, seconds=SHORT_CLIP_S)
    found = []
    for n in sizes:
        songs, store = folder / f"{n}.csv", folder / f"{n}.zarr"
        with songs.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "path", "artists", "genres"])
            for index in range(n):
                writer.writerow(
                    [f"{index:06}", f"audios/{clips[index % len(clips)].name}", f"artist {index % 997}", "rock"]
                )
        found.append(whole_process.run(
            [sys.executable, "-m", "mgc", "extract", str(songs), "-o", str(store), "--features", "mel", "--clip-s",
             f"{SHORT_CLIP_S:g}", "--part-rows", "128", "--workers", str(workers), "--quiet"]
        ))  # fmt: skip
        with FeatureStore.open(store) as opened:
            if len(opened.ok_rows) != n:
                raise SystemExit(f"{store}: {len(opened.ok_rows)} of {n} tracks are ok")
        shutil.rmtree(store)
    rows = []
    for index, (n, one) in enumerate(zip(sizes, found, strict=True)):
        more, base, added = "-", found[0], n - sizes[0]
        own = cpu = "-"
        if index:
            more = f"{(one.seconds - base.seconds) / added * 1e3:.2f}"
            own = f"{(one.own_cpu_s - base.own_cpu_s) / added * 1e3:.3f}"
            cpu = f"{(one.own_cpu_s - base.own_cpu_s) / (one.cpu_s - base.cpu_s):.1%}"
        rows.append([n, f"{one.seconds:.1f}", more, own, cpu, f"{one.own_bytes / GB:.2f}",
                     f"{one.largest_bytes / GB:.2f}", f"{one.tree_bytes / GB:.2f}"])  # fmt: skip
    header = ["tracks", "s", "ms a track beyond the first row", "of which scheduling process, ms of CPU", "of all CPU",
              "GB, scheduling process", "GB, largest worker or decoder", "GB, all processes"]  # fmt: skip
    title = f"Growth: sound only, clips of {SHORT_CLIP_S:g} s, {workers} workers, parts of 128"
    note = (f"\n\nOne run a size. {RECORDINGS} recordings, each met again and again under other ids; short clips make "
            "scheduling look worse than with 30 s, where a track costs several times as much.")  # fmt: skip
    return table(title, header, rows) + note
