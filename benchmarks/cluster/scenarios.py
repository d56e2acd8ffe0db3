"""Define what happens to jobs on a cluster: each scenario submits an extraction or a training and disturbs it.

A scenario asserts that its disturbance took place, and that the result equals that of an undisturbed run outside the
cluster, byte for byte.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.campaigns import kills, training
from benchmarks.campaigns.processes import output, run_first, start
from benchmarks.cluster.slurm import NODES, Cluster
from benchmarks.machine import ROOT
from benchmarks.worlds.small_store import tree
from mgc.cache.format.records import committed

TASKS, PART_ROWS = 4, 2
FEATURES = ("--features", "mel", "--clip-s", "1", "--part-rows", str(PART_ROWS))
N_PARTS = kills.N_SONGS // PART_ROWS
SLOW = """
import os
if seconds := os.environ.get("MGC_BOX_SLOW_S"):
    import time
    import mgc.pipeline.extraction.builder as builder
    real = builder.local_file
    def slow(root, path, *limit):
        time.sleep(float(seconds))
        return real(root, path, *limit)
    builder.local_file = slow
"""
"""Start-up code of an extraction: it waits before each track, so that there is time to disturb it."""
Figures = dict[str, Any]


@functools.cache
def undisturbed() -> dict[str, bytes | None]:
    """Return the store of an undisturbed extraction on this machine."""
    path = kills.songs() / "undisturbed.zarr"
    output(start("extract", kills.songs() / "songs.jsonl", "-o", path, *FEATURES, "--workers", 0))
    return tree(path)


@functools.cache
def slow_code() -> dict[str, str]:
    """Write :data:`SLOW` for the life of this process; return the environment that makes processes run it."""
    return run_first(Path(tempfile.mkdtemp(prefix="mgc-box-")) / "site", SLOW)


class Extraction:
    """A job array that was submitted by ``mgc cluster``."""

    def __init__(
        self, cluster: Cluster, folder: Path, *options: object, seconds_per_track: float = 1.0, memory_gb: float = 1
    ) -> None:
        self.cluster, self.store = cluster, folder / "s.zarr"
        env = {**cluster.env, **slow_code(), "MGC_BOX_SLOW_S": str(seconds_per_track)}
        size = ("--tasks", TASKS, "--hours", 1, "--memory-gb", memory_gb)
        arguments = (kills.songs() / "songs.jsonl", "-o", self.store, *FEATURES, *size, *options, "--submit", "--json")
        self.array, self.last = json.loads(output(start("cluster", *arguments, env=env)))["jobs"]

    def wait_for_parts(self, n: int = 1) -> None:
        """Wait until n parts are committed, but not all."""
        wait_until(lambda: self.store.exists() and len(self.parts()) >= n, 60)
        assert len(self.parts()) < N_PARTS, "the extraction ended before it was disturbed"

    def parts(self) -> list[int]:
        """Return the numbers of the committed parts."""
        try:
            return sorted(committed(self.store))
        except OSError:
            return []

    def finish(self, timeout_s: float = 600) -> Figures:
        """Wait for both jobs; assert that the store is complete and equal, and return states and restarts."""
        tasks = self.cluster.wait(self.array, timeout_s)
        (last,) = self.cluster.wait(self.last, timeout_s)
        assert last.state == "COMPLETED", (last, self.logs()[-3000:])
        assert tree(self.store) == undisturbed()
        states = [task.state for task in tasks]
        ended = {state: states.count(state) for state in sorted(set(states))}
        return {"tasks": ended, "restarts": sum(task.restarts for task in (*tasks, last))}

    def logs(self) -> str:
        """Return the output of all tasks."""
        files = sorted(self.store.with_name("s.zarr.jobs").glob("logs/*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text()}" for file in files)


def undisturbed_array(cluster: Cluster, folder: Path) -> Figures:
    """A job array of four tasks on two nodes, by `mgc cluster --submit`."""
    extraction = Extraction(cluster, folder, seconds_per_track=0.2)
    figures = extraction.finish()
    assert figures == {"tasks": {"COMPLETED": TASKS}, "restarts": 0}, figures
    return figures


def cancelled(cluster: Cluster, folder: Path) -> Figures:
    """Two of the four tasks are cancelled in mid-run (`scancel`); the last job extracts what they left."""
    extraction = Extraction(cluster, folder)
    extraction.wait_for_parts()
    cluster.call("scancel", f"{extraction.array}_2", f"{extraction.array}_3")
    figures = extraction.finish()
    assert figures["tasks"] == {"CANCELLED": 2, "COMPLETED": 2}, figures
    return figures


def out_of_time(cluster: Cluster, folder: Path) -> Figures:
    """Tasks reach the end of their time (`--time=2`) with work left; they stop in time and continue."""
    options = ("--tasks", 2, "--sbatch=--time=2", "--sbatch=--signal=B:USR1@25")
    extraction = Extraction(cluster, folder, *options, seconds_per_track=8)
    figures = extraction.finish(1200)
    assert figures["restarts"] > 0, (figures, extraction.logs()[-3000:])
    return figures


def requeued(cluster: Cluster, folder: Path) -> Figures:
    """All running tasks are put back into the queue by the operator (`scontrol requeue`)."""
    extraction = Extraction(cluster, folder)
    extraction.wait_for_parts()
    cluster.call("scontrol", "requeue", ",".join(f"{extraction.array}_{task}" for task in range(1, TASKS + 1)))
    figures = extraction.finish()
    assert figures["restarts"] == TASKS, figures
    return figures


def node_down(cluster: Cluster, folder: Path) -> Figures:
    """A node is set down in mid-run (`scontrol update state=down`); its tasks are killed and run on the other one."""
    extraction = Extraction(cluster, folder)
    extraction.wait_for_parts()
    cluster.set_down(NODES[0])
    try:
        figures = extraction.finish()
    finally:
        cluster.resume(NODES[0])
    assert figures["restarts"] > 0, figures
    return figures


def node_lost(cluster: Cluster, folder: Path) -> Figures:
    """The daemon of a node is killed, its tasks continue: SLURM starts them on the other node, so both extract."""
    extraction = Extraction(cluster, folder, seconds_per_track=12)
    extraction.wait_for_parts()
    cluster.kill_node(NODES[0])
    try:
        figures = extraction.finish()
    finally:
        cluster.start_node(NODES[0])
        cluster.resume(NODES[0])
    assert figures["restarts"] > 0, figures
    return figures


def out_of_memory(cluster: Cluster, folder: Path) -> Figures:
    """Tasks exceed the memory that they asked for, and are killed; submitted again with more, they complete."""
    first = Extraction(cluster, folder, memory_gb=0.1)
    tasks = cluster.wait(first.array) + cluster.wait(first.last)
    assert {task.state for task in tasks} <= {"OUT_OF_MEMORY", "FAILED", "CANCELLED"}, tasks
    assert re.search("memory limit|oom", first.logs(), re.IGNORECASE), first.logs()
    figures = Extraction(cluster, folder, memory_gb=1.5).finish()
    return {"killed": len(tasks), **figures}


EPOCHS = 200
_DOCUMENTED_TRAINING = (
    "/work/me/venv/bin/mgc train /work/me/m4a.zarr -o /work/me/runs/paper --preset paper --resume --quiet"
)


def documented(language: str, title: str, replacements: Mapping[str, str]) -> str:
    """Return the first script of a section of docs/cluster.md, with values of this cluster in place of its own."""
    section = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8").partition(f"## {title}")[2]
    script = section.partition(f"```{language}\n")[2].partition("```")[0]
    for old, new in replacements.items():
        assert old in script, old
        script = script.replace(old, new)
    return script


def training_stopped(cluster: Cluster, folder: Path) -> Figures:
    """A slot of `mgc train` ends twice in mid-run (SIGUSR1); the script of docs/cluster.md queues it again."""
    run, log, script = folder / "run", folder / "train.log", folder / "train.sh"
    undisturbed = folder / "undisturbed"
    output(training.start(undisturbed, "--epochs", str(EPOCHS)))
    options = [*(value for option in training.OPTIONS.items() for value in option), "--epochs", EPOCHS]
    command = [sys.executable, "-m", "mgc", "train", training.store(), "-o", run, "--resume", "--quiet", *options]
    replacements = {
        "--gres=gpu:1 --cpus-per-task=4 --mem=32G --time=04:00:00": f"--mem=2G --time=10 --output={log}",
        "OMP_NUM_THREADS=4": "OMP_NUM_THREADS=1",
        _DOCUMENTED_TRAINING: shlex.join(map(str, command)),
    }
    script.write_text(documented("bash", "Training in time slots", replacements))
    job = cluster.call("sbatch", "--parsable", script).strip()
    for stop in (1, 2):
        wait_until(lambda: epochs(run) >= 40 * stop, 200)  # noqa: B023
        cluster.call("scancel", "--batch", "--signal=USR1", job)
        wait_until(lambda: cluster.jobs(job)[0].restarts == stop, 60)  # noqa: B023
        cluster.wait_for_start(job)
    (ended,) = cluster.wait(job)
    assert ended.state == "COMPLETED", (ended, log.read_text()[-3000:])
    assert training.results(run) == training.results(undisturbed)
    return {"restarts": ended.restarts}


def dask_workers(cluster: Cluster, folder: Path) -> Figures:
    """An adaptive SLURMCluster (dask-jobqueue, TLS) of up to three workers that live 20 s; one node is set down."""
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=mgc"]
    certificate += ["-keyout", str(folder / "node.key"), "-out", str(folder / "node.pem")]
    subprocess.run(certificate, check=True, capture_output=True)
    shutil.copy(folder / "node.pem", folder / "ca.pem")
    replacements = {
        'memory="4GB"': 'memory="1GB", interface="lo"',
        '"7h30m", "--lifetime-stagger", "20m"': '"20s", "--lifetime-stagger", "5s"',
        '"127.0.0.1:8787"': '":0"',
        '{"dashboard': '{"host": "127.0.0.1", "dashboard',
        "minimum=2, maximum=60": "minimum=1, maximum=3",
    }
    script = documented("python", "Dask through SLURM", replacements)
    env = {**cluster.env, **slow_code(), "MGC_BOX_SLOW_S": "3"}
    pipe = subprocess.PIPE
    jobs = subprocess.Popen([sys.executable, "-c", script], cwd=folder, env=env, stdin=pipe, stdout=pipe, text=True)
    try:
        assert jobs.stdout is not None
        address = jobs.stdout.readline().strip()
        tls = ("--tls-ca", folder / "ca.pem", "--tls-cert", folder / "node.pem", "--tls-key", folder / "node.key")
        store = folder / "s.zarr"
        extraction = start(
            "extract", kills.songs() / "songs.jsonl", "-o", store, *FEATURES, "--scheduler", address, *tls, env=env
        )
        wait_until(lambda: store.exists() and len(committed(store)) >= 2, 120)
        assert extraction.poll() is None, "the extraction ended before it was disturbed"
        cluster.set_down(NODES[0])
        output(extraction, 600)
    finally:
        cluster.resume(NODES[0])
        jobs.communicate("\n", timeout=60)
    assert tree(store) == undisturbed()
    lines = [line for file in (store / "log").glob("*.jsonl") for line in file.read_text().splitlines()]
    workers = {(event["host"], event["pid"]) for event in map(json.loads, lines)}
    assert len(workers) > 3, workers
    return {"workers": len(workers)}


def epochs(run: Path) -> int:
    """Return the number of epochs of a run so far."""
    history = run / "metrics.jsonl"
    return len(history.read_text().splitlines()) if history.exists() else 0


def wait_until(done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"waited for {timeout_s} s"
        time.sleep(0.1)


SCENARIOS: dict[str, Callable[[Cluster, Path], Figures]] = {
    scenario.__name__.replace("_", "-"): scenario
    for scenario in (
        undisturbed_array,
        cancelled,
        out_of_time,
        requeued,
        node_down,
        node_lost,
        out_of_memory,
        training_stopped,
        dask_workers,
    )
}


def in_folder(scenario: Callable[[Cluster, Path], Figures], cluster: Cluster) -> Figures:
    """Run a scenario in a new folder, and delete it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mgc-box-"))
    try:
        started = time.monotonic()
        figures = scenario(cluster, folder)
        return {**figures, "seconds": round(time.monotonic() - started)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
