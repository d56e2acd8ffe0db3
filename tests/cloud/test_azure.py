"""Extraction to, and copy from, Azurite, the emulator of Azure Blob Storage (npm install -g azurite)."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import importlib.util
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cluster.objects import objects_of
from benchmarks.worlds.full_store import continue_full
from benchmarks.worlds.small_store import tree
from mgc import api
from mgc.cache.places import ObjectPath, place
from mgc.cache.upkeep.copy import copy_store
from mgc.cache.writing.remote import Replica, remote_of, writable_folder

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Documented key of the emulator, no secret."""


@pytest.fixture
def azurite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An emulator with an empty container ``music``, and the environment of a client."""
    if (program := shutil.which("azurite-blob")) is None or importlib.util.find_spec("obstore") is None:
        pytest.skip("azurite-blob or obstore is missing: npm install -g azurite; pip install 'mgc-music[cloud]'")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [program, "--inMemoryPersistence", "--blobPort", str(port), "--skipApiVersionCheck", "--silent"]
    with subprocess.Popen([*command, "--disableTelemetry"], cwd=tmp_path) as server:
        for _ in range(600):
            try:
                urllib.request.urlopen(url, timeout=60).close()
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.1)
        urllib.request.urlopen(_new_container(url), timeout=60).close()
        for name, value in {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": url,
            "MGC_CACHE_DIR": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setenv(name, value)
        yield
        server.kill()


def _new_container(url: str) -> urllib.request.Request:
    date, version = email.utils.formatdate(usegmt=True), "2021-08-06"
    lines = ["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{version}"]
    text = "\n".join([*lines, f"/{ACCOUNT}/{ACCOUNT}/music", "restype:container"])
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {ACCOUNT}:{signature}"}
    place_of = f"{url}/{ACCOUNT}/music?restype=container"
    return urllib.request.Request(place_of, method="PUT", headers={**headers, "Content-Length": "0"})


def test_store_in_azure_equals_a_local_one(azurite: None, tmp_path: Path) -> None:
    url = place("az://music/a b/songs.zarr")
    assert isinstance(url, ObjectPath)
    store = writable_folder(url)
    replica = remote_of(store)
    assert replica is not None
    replica.refuse_without_conditions()
    for folder in (store, tmp_path / "local.zarr"):
        continue_full(folder)
    assert objects_of(url) == {key: data for key, data in tree(tmp_path / "local.zarr").items() if data is not None}
    assert api.store_verify(url, full=True) == []
    with replica.hold("commits+9~claim") as held, Replica(url).hold("commits+9~claim") as other:
        assert (held, other) == (True, False)
    copy_store(url, tmp_path / "back.zarr")
    assert api.store_verify(tmp_path / "back.zarr", full=True) == []
