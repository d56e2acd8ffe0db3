"""Time whole extractions: the script, mgc on one core, on two, two at once; then growing collections."""

from __future__ import annotations

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
SEPARATE = "two separate mgc extract on half the songs each, one per core (limit)"
LEAST_COSINE = 0.999
"""Smallest cosine between token states, of which one side is stored as float16."""
SHORT_CLIP_S = 5.0
GB = 1e9


@dataclass(frozen=True)
class Amounts:
    """Numbers of songs of the small and the large collection of each implementation, and rows per part."""

    of_script: tuple[int, int]
    of_mgc: tuple[int, int]
    part_rows: int


FP32 = Amounts((4, 24), (4, 24), part_rows=2)
BF16 = Amounts((16, 64), (64, 320), part_rows=16)
QUICK = Amounts((4, 8), (4, 8), part_rows=2)


class Extractions:
    """The implementations: whole extractions of the first songs of one collection, each with its own files."""

    def __init__(self, folder: Path, encoder: Path, amounts: Amounts) -> None:
        self.folder, self.encoder, self.amounts = folder, encoder, amounts
        self.header, *self.songs = write_collection(folder, max(amounts.of_script + amounts.of_mgc))
        self.saved = folder / "saved"
        self.stores = {ONE: ["one.zarr"], TWO: ["two.zarr"], SEPARATE: ["separate0.zarr", "separate1.zarr"]}
        self.functions = {
            SCRIPT: self.script,
            ONE: lambda n: [self.extract("one.zarr", self.songs[:n], _cores()[:1])],
            TWO: lambda n: [self.extract("two.zarr", self.songs[:n], _cores()[:2])],
            SEPARATE: self.separate,
        }

    def extract(self, name: str, songs: list[str], cores: list[int]) -> Run:
        """Run ``mgc extract`` into a new store, with one worker per core."""
        store = self.folder / name
        shutil.rmtree(store, ignore_errors=True)
        options = {
            "-o": store,
            "--text-model": self.encoder,
            "--text-precision": "auto",
            "--part-rows": self.amounts.part_rows,
            "--workers": len(cores),
        }
        command = [sys.executable, "-m", "mgc", "extract", self._table(store.with_suffix(".csv"), songs), "--quiet"]
        return whole_process.run([*command, *(value for option in options.items() for value in option)], cores=cores)

    def separate(self, n: int) -> list[Run]:
        """Run two extractions at the same time."""
        work = [(name, self.songs[index:n:2], [_cores()[index]]) for index, name in enumerate(self.stores[SEPARATE])]
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda arguments: self.extract(*arguments), work))

    def script(self, n: int) -> list[Run]:
        """Run the librosa and transformers script."""
        shutil.rmtree(self.saved, ignore_errors=True)
        self.saved.mkdir()
        table = self._table(self.folder / "script.csv", self.songs[:n])
        command = [sys.executable, "-m", "benchmarks.speed.rivals", table, self.encoder, self.saved]
        return [whole_process.run(command, cores=_cores()[:1], cwd=ROOT)]

    def sizes(self, name: str) -> tuple[int, int]:
        """Return the numbers of songs of the small and the large collection of an implementation."""
        return self.amounts.of_script if name == SCRIPT else self.amounts.of_mgc

    def difference(self, name: str) -> str | None:
        """Return the difference between the stores of an implementation and the files of the script, or None."""
        results = [_differences(self.saved, self.folder / store) for store in self.stores[name]]
        n_songs, n = sum(count for count, _ in results), self.sizes(SCRIPT)[1]
        wrong = next((text for _, text in results if text), None)
        return wrong or (None if n_songs == n else f"{n_songs} of {n} songs")

    def _table(self, path: Path, songs: list[str]) -> Path:
        path.write_text("\n".join([self.header, *songs]) + "\n")
        return path


def run(folder: Path, encoder: Path, amounts: Amounts, rounds: int) -> str:
    """Compare the librosa and transformers script with mgc on one core, on two, and two extractions at once.

    Each extracts a small and a large collection. Their difference gives the cost of songs; the rest is the start.
    """
    work = Extractions(folder, encoder, amounts)
    runs: dict[str, list[tuple[list[Run], list[Run]]]] = {name: [] for name in work.functions}

    def both(name: str) -> Callable[[], str]:
        def extract_both() -> str:
            small, large = work.sizes(name)
            runs[name].append((work.functions[name](small), work.functions[name](large)))
            return name

        return extract_both

    functions = {name: both(name) for name in work.functions}
    in_turn(functions, rounds=rounds, warm_up=False, agree=lambda _, name: work.difference(name))
    per_song: dict[str, list[float]] = {}
    for name, pairs in runs.items():
        small, large = work.sizes(name)
        per_song[name] = [(_seconds(b) - _seconds(a)) / (large - small) for a, b in pairs]

    def times(slow: str, fast: str) -> str:
        return spread([a / b for a, b in zip(per_song[slow], per_song[fast], strict=True)], 1, 2)

    rows = []
    for name, pairs in runs.items():
        small, large = work.sizes(name)
        start_s = [_seconds(a) - small * song_s for (a, _), song_s in zip(pairs, per_song[name], strict=True)]
        memory_gb = [sum(run.tree_bytes for run in b) / GB for _, b in pairs]
        rows.append(
            [
                name,
                f"{small} and {large}",
                spread(per_song[name], 1, 3),
                "-" if name == SCRIPT else times(SCRIPT, name),
                times(ONE, name) if name in (TWO, SEPARATE) else "-",
                spread(start_s, 1, 1),
                spread(memory_gb, 1, 2),
            ]
        )
    title = f"Whole extraction: audio and BERT-base-sized text (songs of 30 s, parts of {amounts.part_rows})"
    header = ["", "songs", "s per song", "times the script", "times one core", "s to start", "GB, all processes"]
    note = (
        "\n\nWhole processes. The cost per song is the difference between the times of both collections, divided by "
        "the difference in songs. The rest is the start, mostly imports of torch and transformers: once in the script; "
        "in mgc once for the plan and once per worker. Two separate extractions share only the processor. Their loss "
        "compared with twice one core is due to memory bandwidth, caches and clock, which no scheduler can recover. "
        f"{RECORDINGS} recordings are repeated under other ids; all lyrics differ."
    )
    return table(title, header, rows) + note


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _seconds(runs: list[Run]) -> float:
    """Return the duration in s of runs that start together."""
    return max(run.seconds for run in runs)


def _differences(saved: Path, store: Path) -> tuple[int, str | None]:
    """Return the number of common songs, and the difference of the first song that differs."""
    n_songs = 0
    with FeatureStore.open(store) as opened:
        for track in opened.tracks.select(["row", "id"]).to_pylist():
            row, name = track["row"], track["id"]
            if not (saved / f"{name}.mel.npy").exists():
                continue
            n_songs += 1
            states = opened.read("lyrics", [row])[0, : int(opened.read("lyrics_tokens", [row])[0])].astype(np.float32)
            wrong = audio.difference(np.load(saved / f"{name}.mel.npy"), opened.read("mel", [row])[0])
            cosine = float(text.token_cosines([np.load(saved / f"{name}.lyrics.npy")], [states]).min())
            wrong = wrong or (f"a token at cosine {cosine:.6f}" if cosine < LEAST_COSINE else None)
            if wrong:
                return n_songs, f"{name}: {wrong}"
    return n_songs, None


def growth(folder: Path, sizes: list[int], workers: int) -> str:
    """Extract growing collections of short clips; measure memory and the cost per additional track."""
    clips = write_clips(folder / "audios", RECORDINGS, seconds=SHORT_CLIP_S)
    runs = []
    for n in sizes:
        songs, store = folder / f"{n}.csv", folder / f"{n}.zarr"
        lines = (f"{i:06},audios/{clips[i % len(clips)].name},artist {i % 997},rock\n" for i in range(n))
        songs.write_text("id,path,artists,genres\n" + "".join(lines))
        command = [sys.executable, "-m", "mgc", "extract", songs, "-o", store, "--quiet", "--features", "mel"]
        options = ["--clip-s", f"{SHORT_CLIP_S:g}", "--part-rows", "128", "--workers", workers]
        runs.append(whole_process.run([*command, *options]))
        with FeatureStore.open(store) as opened:
            if len(opened.ok_rows) != n:
                raise SystemExit(f"{store}: {len(opened.ok_rows)} of {n} tracks are ok")
        shutil.rmtree(store)
    rows = []
    for n, run in zip(sizes, runs, strict=True):
        costs = ["-", "-", "-"]
        if n > sizes[0]:
            base, n_more, own_cpu_s = runs[0], n - sizes[0], run.own_cpu_s - runs[0].own_cpu_s
            ms_per_track = (run.seconds - base.seconds) / n_more * 1e3
            share = own_cpu_s / (run.cpu_s - base.cpu_s)
            costs = [f"{ms_per_track:.2f}", f"{own_cpu_s / n_more * 1e3:.3f}", f"{share:.1%}"]
        memory = [f"{n_bytes / GB:.2f}" for n_bytes in (run.own_bytes, run.largest_bytes, run.tree_bytes)]
        rows.append([n, f"{run.seconds:.1f}", *costs, *memory])
    header = [
        "tracks",
        "s",
        "ms per track beyond the first row",
        "of which scheduling process, ms of CPU",
        "of all CPU",
        "GB, scheduling process",
        "GB, largest worker or decoder",
        "GB, all processes",
    ]
    title = f"Growth: audio only, clips of {SHORT_CLIP_S:g} s, {workers} workers, parts of 128"
    note = (
        f"\n\nOne run per size. {RECORDINGS} recordings are repeated under other ids. Short clips overstate the share "
        "of scheduling: a clip of 30 s costs several times as much. Plans of 10 million tracks, without tensors, are "
        "measured by the campaign `large` ([reliability.md](../campaigns/reliability.md))."
    )
    return table(title, header, rows) + note
