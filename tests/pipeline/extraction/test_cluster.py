"""Crashing workers, remote schedulers, and access control of both."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
import soundfile
from keywords import extract

from mgc.cache.errors import ConfigError, WorkerError
from mgc.cache.format.recipe import MelRecipe, Recipe
from mgc.cache.reading.store import FeatureStore
from mgc.pipeline.extraction import probe
from mgc.pipeline.extraction.cluster import MAX_CRASHES, CrashCounter, run_on_cluster
from mgc.pipeline.extraction.options import Scheduler
from mgc.pipeline.extraction.part import PartJob
from mgc.pipeline.sources.manifest import Source, Track
from mgc.pipeline.text.encoder import TextSource

RECIPE = Recipe(mel=MelRecipe(clip_s=1.0), lyrics=None)


def tones(folder: Path, n: int) -> Source:
    t = np.arange(22_050) / 22_050
    for i in range(n):
        soundfile.write(folder / f"{i}.wav", (0.2 * np.sin(2 * np.pi * (200 + 50 * i) * t)).astype(np.float32), 22_050)
    return Source(root=folder, tracks=[Track(id=f"t{i}", path=f"{i}.wav", genres=("rock",)) for i in range(n)])


def tree(store: Path) -> dict[str, bytes]:
    files = (path for path in store.rglob("*") if path.is_file() and path.relative_to(store).parts[0] != "log")
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


FAULTY = """
import os, sys
if os.environ.get("MGC_TEST_FAULT"):
    from pathlib import Path
    import mgc.pipeline.extraction.builder as builder
    real, kind, scratch = builder.local_file, os.environ["MGC_TEST_FAULT"], Path(os.environ["MGC_TEST_SCRATCH"])
    def faulty(root, path, *limit):
        if path == "5.wav":
            fired = len(list(scratch.glob("fired-*")))
            if kind == "always" or (kind == "once" and fired == 0):
                (scratch / f"fired-{fired}").touch()
                os.kill(os.getpid(), 11) if fired % 2 else os._exit(7)
        return real(root, path, *limit)
    builder.local_file = faulty
"""
"""A sitecustomize: it makes the worker (not the decoder's child) die on one track, by exit and by segfault."""


@pytest.mark.parametrize("kind", ["always", "once"])
def test_track_that_crashes_its_worker_fails_alone(tmp_path, monkeypatch, kind):
    source = tones(tmp_path, 9)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FAULTY)
    clean = tmp_path / "clean"
    extract(source, clean, recipe=RECIPE, text=None, part_rows=4)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.setenv("MGC_TEST_FAULT", kind)
    monkeypatch.setenv("MGC_TEST_SCRATCH", str(tmp_path))
    report = extract(source, tmp_path / "s", recipe=RECIPE, text=None, part_rows=4, workers=2)
    assert len(list(tmp_path.glob("fired-*"))) >= (3 if kind == "always" else 1)
    if kind == "once":
        assert tree(tmp_path / "s") == tree(clean), "a preempted worker changes no byte"
        return
    assert (report.ok, report.reasons) == (8, {"WORKER_CRASH": 1})
    damaged, whole = FeatureStore.open(tmp_path / "s"), FeatureStore.open(clean)
    assert damaged.ok_rows.tolist() == [0, 1, 2, 3, 4, 6, 7, 8]
    np.testing.assert_array_equal(damaged.read("mel", damaged.ok_rows), whole.read("mel", damaged.ok_rows))


def test_job_survives_json_round_trip():
    job = PartJob(
        store=Path("s"),
        part=3,
        root=Path("r\udce9"),
        text=TextSource(model="tiny"),
        inline_lyrics={"a": "la"},
        starts_s={"a": 1.5},
        feature_set="tempo",
        retry_of=2,
    )
    sent = json.dumps(probe._as_json(job), default=str)
    assert probe._from_json(json.loads(sent)) == job


def test_local_workers_listen_on_loopback_only(tmp_path):
    source = tones(tmp_path, 2)
    addresses: set[str] = set()

    def look(*progress):
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            addresses.update(c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN)

    extract(source, tmp_path / "s", recipe=RECIPE, text=None, part_rows=1, workers=1, on_progress=look)
    assert addresses, "no listening port was seen"
    assert addresses <= {"127.0.0.1", "::1"}


STRANGER = """
import asyncio, os, sys
from distributed.comm import connect
from distributed.security import Security
async def ask(port, protocol, security):
    try:
        options = security.get_connection_args("client")
        await asyncio.wait_for(connect(f"{protocol}://127.0.0.1:{port}", 5, **options), 20)
    except Exception as error:
        print("refused", type(error).__name__)
    else:
        print("LET IN at", port, protocol)
async def main():
    kinds = (("tcp", Security()), ("tls", Security.temporary()))
    await asyncio.gather(*(ask(port, *kind) for port in sys.argv[1:] for kind in kinds))
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
asyncio.run(main())
"""
"""Another user of the machine, where root runs the tests: he asks each port to run code, with and without TLS."""


def test_another_user_cannot_run_code_on_the_local_workers(tmp_path):
    source = tones(tmp_path, 2)
    output: list[str] = []
    answers: list[int] = []

    def ask(*progress):
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = (c for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN)
        ports = sorted({str(c.laddr.port) for c in listening})
        if not ports or output:
            return
        command = [sys.executable, "-c", STRANGER, *ports]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=200)
        output.extend(done.stdout.splitlines())
        for port in ports:
            with contextlib.suppress(OSError, http.client.HTTPException):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/info/main/workers.html", timeout=3)
                answers.append(int(port))

    extract(source, tmp_path / "s", recipe=RECIPE, text=None, part_rows=1, workers=1, on_progress=ask)
    assert len(output) >= 4, "no port was tried"
    assert all(line.startswith("refused") for line in output), output
    assert answers == [], "an HTTP page is served"


def test_site_that_requires_encryption_works(tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "True")
    dask.config.refresh()
    try:
        assert extract(tones(tmp_path, 2), tmp_path / "s", recipe=RECIPE, text=None, part_rows=1, workers=1).ok == 2
    finally:
        monkeypatch.undo()
        dask.config.refresh()


def test_failed_worker_start_reports_cause_and_remedy(tmp_path, monkeypatch):
    def no_lock(self):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("multiprocessing.context.BaseContext.Lock", no_lock)
    with pytest.raises(WorkerError, match=r"cannot start: .*Read-only file system\. Use --workers 0") as raised:
        extract(tones(tmp_path, 2), tmp_path / "s", recipe=RECIPE, text=None, part_rows=1, workers=1)
    assert "\n" not in str(raised.value)


def test_read_only_shared_memory_is_reported(tmp_path):
    tones(tmp_path, 2)
    mount = "mount -t tmpfs -o ro none /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting needs root")
    run = f"{mount}; {sys.executable} -m mgc extract {tmp_path} -o {tmp_path}/s --features mel --clip-s 1 --workers 2"
    done = subprocess.run(["unshare", "-m", "sh", "-c", run], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot start: no lock can be created; on Linux locks are files in /dev/shm: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "bug of mgc" not in done.stderr


@pytest.mark.parametrize(
    ("scheduler", "output"),
    [
        (Scheduler(), "Use --scheduler or --scheduler-file"),
        (Scheduler(address="tcp://a:1", file=Path("x.json")), "exactly one address"),
        (Scheduler(address="tcp://10.0.0.7:8786"), "Use tls://.*or add --insecure-network"),
        (Scheduler(address="node7:8786"), "plain TCP over a network"),
        (Scheduler(address="tls://node7:8786"), "Add --tls-ca"),
        (Scheduler(file=Path("no-such-file.json")), "no scheduler address"),
    ],
)
def test_unsafe_or_missing_scheduler_is_refused(scheduler, output):
    with pytest.raises(ConfigError, match=output):
        next(run_on_cluster(iter(()), scheduler))


def test_insecure_network_option_allows_plain_tcp():
    assert Scheduler(address="tcp://10.0.0.7:8786", insecure_network=True).checked_address() == "tcp://10.0.0.7:8786"
    assert Scheduler(address="tcp://127.0.0.1:8786").checked_address()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*command: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{command[2]}.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def make_certificate(folder: Path) -> None:
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("form", ["tls", "file"])
def test_a_real_scheduler_and_workers_in_processes_of_their_own(tmp_path, form):
    source, address = tones(tmp_path, 6), f"127.0.0.1:{free_port()}"
    (tmp_path / "net").mkdir()
    options: list[str] = []
    if form == "tls":
        make_certificate(tmp_path)
        options = ["--tls-ca-file", "../cert.pem", "--tls-cert", "../cert.pem", "--tls-key", "../key.pem"]
        scheduler = Scheduler(
            address=f"tls://{address}",
            tls_ca=tmp_path / "cert.pem",
            tls_cert=tmp_path / "cert.pem",
            tls_key=tmp_path / "key.pem",
        )
    else:
        scheduler = Scheduler(file=tmp_path / "net" / "scheduler.json")
    protocol = "tls" if form == "tls" else "tcp"
    with ExitStack() as stack:
        listen = ["--host", "127.0.0.1", "--port", address.split(":")[1], "--no-dashboard", "--protocol", protocol]
        stack.enter_context(
            running(
                sys.executable,
                "-m",
                "distributed.cli.dask_scheduler",
                *listen,
                *options,
                "--scheduler-file",
                "scheduler.json",
                folder=tmp_path / "net",
            )
        )
        deadline = time.monotonic() + 60
        while not (tmp_path / "net" / "scheduler.json").exists():
            assert time.monotonic() < deadline, (tmp_path / "net" / "distributed.cli.dask_scheduler.log").read_text()
            time.sleep(0.1)
        for _ in range(2):
            stack.enter_context(
                running(
                    sys.executable,
                    "-m",
                    "distributed.cli.dask_worker",
                    f"{protocol}://{address}",
                    *options,
                    "--nthreads",
                    "1",
                    "--host",
                    "127.0.0.1",
                    "--no-dashboard",
                    folder=tmp_path / "net",
                )
            )
        report = extract(source, tmp_path / "s", recipe=RECIPE, text=None, part_rows=1, scheduler=scheduler)
    assert (report.ok, report.parts_built) == (6, 6)
    extract(source, tmp_path / "here", recipe=RECIPE, text=None, part_rows=1)
    assert tree(tmp_path / "s") == tree(tmp_path / "here")
    lines = [line for log in (tmp_path / "s" / "log").iterdir() for line in log.read_text().splitlines()]
    workers = {json.loads(line)["pid"] for line in lines}
    assert os.getpid() not in workers


def test_lost_scheduler_raises_and_keeps_committed_parts(tmp_path):
    source, address = tones(tmp_path, 12), f"127.0.0.1:{free_port()}"
    (tmp_path / "net").mkdir()
    listen = ["--host", "127.0.0.1", "--port", address.split(":")[1], "--no-dashboard"]
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            running(sys.executable, "-m", "distributed.cli.dask_scheduler", *listen, folder=tmp_path / "net")
        )
        stack.enter_context(
            running(
                sys.executable,
                "-m",
                "distributed.cli.dask_worker",
                f"tcp://{address}",
                "--nthreads",
                "1",
                "--host",
                "127.0.0.1",
                "--no-dashboard",
                "--death-timeout",
                "60",
                folder=tmp_path / "net",
            )
        )

        def end(step, done, total, note=""):
            if done:
                scheduler.kill()

        with pytest.raises(WorkerError, match="scheduler lost. Committed parts are kept"):
            extract(
                source,
                tmp_path / "s",
                recipe=RECIPE,
                text=None,
                part_rows=1,
                on_progress=end,
                scheduler=Scheduler(address=f"tcp://{address}"),
            )
    assert len(FeatureStore.open(tmp_path / "s").ok_rows) >= 1


def test_parts_on_one_worker_share_its_crash() -> None:
    """A part next to parts that crash their workers gets half of each crash; a part alone on its worker gets all."""
    crashes = CrashCounter()
    for worker in range(4):
        crashes.add(worker + 10, f"worker {worker}")
        crashes.add(3, f"worker {worker}")
    assert crashes.share(3) == 2
    assert crashes.share(10) == 0.5
    for worker in range(4):
        crashes.add(7, f"other {worker}")
    assert crashes.share(7) == 4 > MAX_CRASHES
    assert crashes.share(99) == 0
