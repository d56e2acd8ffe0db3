"""An S3 server on loopback (moto) behind a proxy, for the tests of object stores; skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_proxy import Proxy

from mgc.cache.places import ObjectPath, place
from mgc.cache.upkeep.copy import copy_store


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    for module, package in (("obstore", "obstore"), ("moto", "moto[server]"), ("flask", "moto[server]")):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{package} is not installed: pip install 'mgc-music[cloud-test]'")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server has ended"
                time.sleep(0.1)
        yield port
        server.kill()


@pytest.fixture
def proxy(moto_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy to an S3 server with an empty bucket ``music``, and the environment of a client."""
    server = f"http://127.0.0.1:{moto_port}"
    for method, path in (("POST", "/moto-api/reset"), ("PUT", "/music")):
        urllib.request.urlopen(urllib.request.Request(server + path, method=method), timeout=60).close()
    running = Proxy(moto_port)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key-id-of-a-test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": running.url,
        "MGC_CACHE_DIR": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield running
    running.close()


@pytest.fixture
def remote_songs(proxy: Proxy, songs_store: Path) -> ObjectPath:
    """A copy of `songs_store` in the bucket; the requests of the copy are not recorded."""
    url = place("s3://music/my collection/songs.zarr")
    assert isinstance(url, ObjectPath)
    copy_store(songs_store, url)
    proxy.requests.clear()
    return url
