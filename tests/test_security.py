"""The protections in SECURITY.md that no other test covers."""

from __future__ import annotations

import ast
import getpass
import hashlib
import json
import re
import shutil
import socket
import threading
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from source_tree import ROOT, source_files

from benchmarks.worlds.small_store import create, fill
from mgc import api
from mgc.cache.durable import fingerprint, seal, unseal
from mgc.cache.errors import ClipError, StoreCorruptError
from mgc.cache.format.recipe import MelRecipe
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.hdf5_writer import convert
from mgc.cache.upkeep.seal import write_seal
from mgc.cache.upkeep.verify import verify
from mgc.pipeline.audio.clip_reader import ClipReader
from mgc.pipeline.sources.manifest import Source, Track

UNPICKLERS = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("file", source_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_pickle_no_shell_no_foreign_code(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names} | {
                (getattr(node, "module", "") or "").split(".")[0]
            }
            assert not names & UNPICKLERS
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"eval", "exec", "os.system", "os.popen", "yaml.load", "torch.load", "torch.save"}, called
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            assert not (keyword.arg in {"shell", "trust_remote_code", "allow_pickle"} and value is not False), called
        if called.endswith(("AutoModel.from_pretrained", "AutoTokenizer.from_pretrained", "BertModel.from_pretrained")):
            assert "trust_remote_code" in {keyword.arg for keyword in node.keywords}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store and a trained model below a folder with a recognisable name."""
    folder = tmp_path_factory.mktemp("secret-place")
    rng = np.random.default_rng(0)
    tracks = []
    for i in range(12):
        soundfile.write(folder / f"{i}.wav", rng.normal(0, 0.1, 22_050).astype(np.float32), 22_050)
        tracks.append(
            Track(
                id=f"t{i}",
                path=f"{i}.wav",
                genres=(("rock", "jazz")[i % 2],),
                artists=(f"a{i}",),
                lyrics="unmistakable words of a song",
            )
        )
    tracks.append(Track(id="gone", path="gone.wav", genres=("rock",)))
    api.extract(Source(root=folder, tracks=tracks), folder / "s.zarr", text_model="minilm", workers=0, clip_s=1.0)
    convert(folder / "s.zarr", folder / "s.h5")
    options = {"encoder": "tiny", "epochs": 1, "precision": "fp32", "device": "cpu"}
    api.train(folder / "s.zarr", folder / "run", options=options)
    return folder


def texts(folder: Path) -> str:
    """Return all text below a folder, including the text of Parquet tables."""
    matches = []
    for file in folder.rglob("*"):
        if file.suffix == ".parquet":
            matches.append(json.dumps(pq.read_table(file).to_pylist(), default=str))
            matches.append(str(pq.read_schema(file).metadata))
        elif file.is_file() and file.relative_to(folder).parts[0] != "log":
            matches.append(file.read_bytes().decode("latin-1"))
    return "\n".join(matches)


@pytest.mark.parametrize("name", ["s.zarr", "run/best"])
def test_stores_and_models_contain_no_paths_hosts_or_users(made, name):
    content = texts(made / name)
    assert len(content) > 1000
    for secret in ("secret-place", str(made), str(Path.home()), "unmistakable words"):
        assert secret not in content, secret
    for word in (socket.gethostname(), getpass.getuser()):
        assert len(word) < 4 or not re.search(rf"\b{re.escape(word)}\b", content), word


def test_sealed_stores_contain_no_paths_hosts_or_users(made):
    content = (made / "s.h5").read_bytes()
    for secret in ("secret-place", str(Path.home()), "unmistakable words"):
        assert secret.encode() not in content


PLAYLISTS = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
    "plain.mp3": "#EXTM3U\n#EXTINF:10,x\n{url}\n",
    "concat.wav": "ffconcat version 1.0\nfile '{url}'\n",
    "sdp.m4a": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
    "dash.mp4": '<?xml version="1.0"?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>',
    "pls.ogg": "[playlist]\nFile1={url}\nNumberOfEntries=1\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_opens_no_connection_and_no_other_file(tmp_path, name):
    asked = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        stop = threading.Event()

        def accept():
            while not stop.is_set():
                try:
                    asked.append(listener.accept()[1])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            soundfile.write(tmp_path / "other.wav", np.full(22_050, 0.5, np.float32), 22_050)
            for url in (f"http://127.0.0.1:{port}/a.mp3", (tmp_path / "other.wav").as_uri(), "other.wav"):
                (tmp_path / name).write_text(PLAYLISTS[name].format(url=url, port=port))
                with ClipReader(MelRecipe(clip_s=1.0)) as reader, pytest.raises(ClipError) as error:
                    reader.read(tmp_path / name)
                assert error.value.reason in ("NOT_AUDIO", "BAD_HEADER", "UNSUPPORTED_CODEC")
        finally:
            stop.set()
            thread.join()
    assert asked == []


def test_lock_has_the_versions_of_the_constraints_with_hashes():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    locked = {}
    for line in lines:
        matches = re.fullmatch(r"([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line)
        assert matches, line
        locked[normal(matches[1])] = matches[2]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if "==" in line and not line.startswith("#"):
            name, version = line.split("==")
            pins[normal(name)] = version
    assert len(locked) > 40
    assert {name: pins.get(name) for name in locked} == locked
    assert "torch" not in locked


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture
def trap(tmp_path):
    """A small store, and a folder with a file next to it that a malicious record refers to."""
    fill(create(tmp_path / "s.zarr"))
    (tmp_path / "precious.txt").write_text("precious")
    return tmp_path


def test_a_record_with_an_outside_path_writes_nothing_there(trap):
    store, data = trap / "s.zarr", b"evil"
    record = unseal(store / "commits/0.json")
    for key in ("../precious.txt", "mel/../../precious.txt", str(trap / "precious.txt"), "link/precious.txt"):
        objects = [*record["objects"], {"key": key, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}]
        hostile = {**record, "objects": objects, "digest": fingerprint(objects)}
        (store / "commits/0.json").write_bytes(seal(hostile))
        staged = store / "staging" / f"commits+0~{hostile['digest']}"
        (staged / "link").mkdir(parents=True)
        for place in (staged / "link/precious.txt", store / "staging/precious.txt"):
            place.write_bytes(data)
        if key.startswith("link"):
            (store / "link").symlink_to(trap)
        with pytest.raises(StoreCorruptError, match="outside the store"):
            FeatureStore.open(store)
        assert any("outside the store" in damage.detail for damage in verify(store))
        assert (trap / "precious.txt").read_text() == "precious"
        shutil.rmtree(store / "staging")


def test_a_sealed_store_with_an_outside_path_writes_nothing_there(trap):
    convert(trap / "s.zarr", trap / "s.h5")
    with h5py.File(trap / "s.h5", "r+") as file:
        up = file["records"].create_group("..")
        up.create_dataset("precious.txt", data=np.frombuffer(b"evil", np.uint8))
    write_seal(trap / "s.h5")
    with pytest.raises(StoreCorruptError, match=r"records/\.\./precious\.txt: is not the name of a record"):
        convert(trap / "s.h5", trap / "out.zarr")
    assert (trap / "precious.txt").read_text() == "precious"
    assert not (trap / "out.zarr").exists()
