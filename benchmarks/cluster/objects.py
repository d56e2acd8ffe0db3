"""Kill extractions to an object store at random times, behind a proxy that injects faults.

The server is moto on loopback. The proxy answers 500 and 503, delays by 100 ms, truncates answers, loses the answers of
requests that the server has served, and repeats old lists.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import itertools
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from benchmarks.worlds.full_store import continue_full
from benchmarks.worlds.small_store import tree
from mgc.cache.errors import MgcError
from mgc.cache.object_folder import ObjectFolder
from mgc.cache.places import ObjectPath, place
from mgc.cache.upkeep.object_stores import verify_remote
from mgc.cache.writing.remote import writable_folder

FAULTS = ("500", "503", "delayed", "truncated", "answer lost", "stale list")
FAULT_RATE = 0.3
_KILLS, _LIFE_S = 20, 6.0
_OWN = ("content-length", "transfer-encoding", "connection", "date", "server")
_STOPPED = 3
_RECORD = r"plan\.json|(commits|generations|features)/.*"


def missing() -> str:
    """Return what this machine lacks for the campaign."""
    lacking = [name for name in ("obstore", "moto", "flask") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(lacking)} (extra cloud-test)" if lacking else ""


@contextmanager
def s3_server() -> Iterator[int]:
    """Run moto with an empty bucket ``music``; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            bucket = urllib.request.Request(f"http://127.0.0.1:{port}/music", method="PUT")
            for attempt in range(300):
                try:
                    urllib.request.urlopen(bucket, timeout=60).close()
                    break
                except OSError:
                    if server.poll() is not None or attempt == 299:
                        raise
                    time.sleep(0.2)
            yield port
        finally:
            server.kill()


class FaultProxy:
    """Forward requests to a server on loopback, with faults.

    Attributes
    ----------
    url : address for clients.
    rate : share of requests with a fault.
    delay_s : delay of every request.
    faults : number of faults by kind.
    """

    def __init__(self, port: int, *, rate: float = 0.0, delay_s: float = 0.0, seed: int = 0) -> None:
        self.rate, self.delay_s, self.faults, self.requests = rate, delay_s, Counter[str](), 0
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._lists: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_list = "list-type=2" in self.path
                fault = proxy._draw(is_list=is_list, has_body=self.command == "GET")
                time.sleep(proxy.delay_s + (0.1 if fault == "delayed" else 0.0))
                if fault in ("500", "503"):
                    self._answer(int(fault), [], b"")
                    return
                status, headers, data = _forward(port, self.command, self.path, body, self.headers)
                if is_list:
                    old = proxy._lists.setdefault(self.path, (status, headers, data))
                    if fault == "stale list":
                        status, headers, data = old
                    else:
                        proxy._lists[self.path] = (status, headers, data)
                if fault == "answer lost":
                    self.close_connection = True
                elif fault == "truncated":
                    self._answer(status, headers, data, sent=len(data) // 2)
                else:
                    self._answer(status, headers, data)

            def _answer(
                self, status: int, headers: list[tuple[str, str]], data: bytes, sent: int | None = None
            ) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                if not any(name.lower() == "content-length" for name, _ in headers):
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[:sent])
                if sent is not None:
                    self.close_connection = True

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # the client was killed
                    super().handle()

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _draw(self, *, is_list: bool, has_body: bool) -> str | None:
        with self._lock:
            self.requests += 1
            if self._random.random() >= self.rate:
                return None
            kinds = [kind for kind in FAULTS if (kind != "stale list" or is_list) and (kind != "truncated" or has_body)]
            fault = self._random.choice(kinds)
            self.faults[fault] += 1
            return fault


def _forward(
    port: int, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, dict(headers.items()))
    answer = connection.getresponse()
    data = answer.read()
    kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OWN]
    if method == "HEAD" and (length := answer.getheader("Content-Length")) is not None:
        kept.append(("Content-Length", length))
    connection.close()
    return answer.status, kept, data


def environment(endpoint: str) -> dict[str, str]:
    """Return the settings of a client."""
    return {
        "AWS_ACCESS_KEY_ID": "key-id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "NO_PROXY": "127.0.0.1",
    }


def objects_of(url: ObjectPath, pattern: str = "(?!log/).*") -> dict[str, bytes]:
    """Return the objects of a store in an object store whose keys match, by default all but its log."""
    folder = ObjectFolder(url)
    return {key: folder.get(key) for key in folder.listing() if re.fullmatch(pattern, key)}


def _extract(url: str, settings: dict[str, str], scratch: str) -> None:
    """Run in a process of its own: write the store, or continue."""
    os.environ |= settings
    tempfile.tempdir = scratch
    try:
        continue_full(writable_folder(place(url)))
    except MgcError as error:  # a request that failed five times
        print(error, file=sys.stderr)
        os._exit(_STOPPED)


def kill(number: int, folder: Path) -> dict[str, Any]:
    """Kill up to three extractions at once to S3 (moto) at random times, behind a proxy: 30 % of requests have a fault.
    No record is lost or changed. The final objects are those of a local store, byte for byte.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    chance, figures = random.Random(number), Counter[str]()
    local = folder / "local.zarr"
    continue_full(local)
    expected = {key: data for key, data in tree(local).items() if data is not None}
    with s3_server() as port:
        proxy = FaultProxy(port, rate=FAULT_RATE, seed=number)
        os.environ |= environment(f"http://127.0.0.1:{port}")  # this process sees the server without faults

        def start(url: ObjectPath) -> ForkServerProcess:
            process = context.Process(target=_extract, args=(str(url), environment(proxy.url), str(folder)))
            process.start()
            return process

        for store in itertools.count():
            url, records, is_complete = place(f"s3://music/{store}.zarr"), dict[str, bytes](), False
            assert isinstance(url, ObjectPath)
            while not is_complete and figures["kills"] < _KILLS:
                writers = [start(url) for _ in range(chance.choice((1, 2, 3)))]
                for writer in writers:
                    writer.join(chance.uniform(0.2, _LIFE_S))
                    writer.kill()
                    writer.join()
                    if writer.exitcode == -signal.SIGKILL:
                        figures["kills"] += 1
                    else:
                        assert writer.exitcode in (0, _STOPPED), writer.exitcode
                        figures["writers stopped by faults"] += writer.exitcode == _STOPPED
                        is_complete |= writer.exitcode == 0
                found = objects_of(url, _RECORD)
                assert {key: found.get(key) for key in records} == records, "a record was lost or changed"
                records = found
            while not is_complete:
                last = start(url)
                last.join()
                is_complete = last.exitcode == 0
                assert last.exitcode in (0, _STOPPED), last.exitcode
            proxy.rate = 0.0
            last = start(url)
            last.join()
            proxy.rate = FAULT_RATE
            assert last.exitcode == 0
            assert objects_of(url) == expected
            assert verify_remote(url, full=True) == []
            figures["stores"] += 1
            if figures["kills"] >= _KILLS:
                break
        proxy.close()
    return {**figures, "faults": sum(proxy.faults.values()), **proxy.faults, "requests": proxy.requests}
