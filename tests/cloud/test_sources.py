"""Audio and lyrics at URLs: downloads, reason codes, and secrets that stay out of stores and messages."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from s3_proxy import Proxy

from mgc import api
from mgc.cache.errors import ManifestError
from mgc.cache.format.schema import Flag
from mgc.cache.object_folder import ObjectFolder
from mgc.cache.places import place
from mgc.cache.reading.store import FeatureStore
from mgc.pipeline.sources import files


def wav(folder: Path) -> bytes:
    t = np.arange(22_050) / 22_050
    soundfile.write(folder / "tone.wav", (0.2 * np.sin(2 * np.pi * 300 * t)).astype(np.float32), 22_050)
    return (folder / "tone.wav").read_bytes()


@pytest.fixture
def web(tmp_path: Path, moto_port: int) -> Iterator[str]:
    """A web server: a clip at any path, or the fault that the path names; needs the packages of `moto_port`."""
    audio, asked = wav(tmp_path), set[str]()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            status = int(name[:3]) if name[:3].isdigit() else 200
            if name == "redirected.wav":
                self.send_response(302)
                self.send_header("Location", "/true.wav")
                self.end_headers()
                return
            if name == "slow.wav":
                time.sleep(0.5)
            body = b"Words of a song" if name.endswith(".txt") else audio
            body = b"an error page" if status != 200 else body
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            is_broken = name == "broken.wav" or (name == "once.wav" and name not in asked)
            asked.add(name)
            self.wfile.write(body[: len(body) // 2] if is_broken else body)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def table(folder: Path, rows: list[str]) -> Path:
    file = folder / "songs.csv"
    file.write_text("\n".join(["id,path,genres,artist,lyrics_path", *rows]) + "\n")
    return file


def test_files_of_urls_give_the_features_of_local_files(
    proxy: Proxy, web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DEADLINE_S", 5.0)
    (tmp_path / "a").mkdir()
    data = wav(tmp_path / "a")
    ObjectFolder(place("s3://music")).put("songs/über 100%.wav", data)
    paths = {
        "local": "a/tone.wav",
        "web": f"{web}/a%20b/song.wav",
        "again": f"{web}/once.wav",
        "moved": f"{web}/redirected.wav",
        "s3": "s3://music/songs/über 100%.wav",
        "gone": f"{web}/404.wav",
        "no": f"{web}/403.wav",
        "s3-gone": "s3://music/none.wav",
        "broken": f"{web}/broken.wav",
        "down": "http://127.0.0.1:9/song.wav",
    }
    rows = [f"{name},{path},rock,a,{f'{web}/song.txt' if name == 'web' else ''}" for name, path in paths.items()]
    source = api.read_source(table(tmp_path, rows)).source
    report = api.extract(source, tmp_path / "songs.zarr", features=("mel",), clip_s=1.0, workers=0)
    assert report.reasons == {"SRC_MISSING": 2, "SRC_DENIED": 1, "SRC_TIMEOUT": 2}
    tracks = {row["id"]: row for row in FeatureStore.open(tmp_path / "songs.zarr").tracks.to_pylist()}
    same = [tracks[name] for name in ("local", "web", "again", "moved", "s3")]
    assert len({track["source_sha256"] for track in same}) == 1
    assert all(track["flags"] == same[0]["flags"] for track in same)
    reasons = {name: tracks[name]["reason"] for name in ("gone", "no", "s3-gone", "broken", "down")}
    assert reasons == {
        "gone": "SRC_MISSING",
        "no": "SRC_DENIED",
        "s3-gone": "SRC_MISSING",
        "broken": "SRC_TIMEOUT",
        "down": "SRC_TIMEOUT",
    }
    for file in (file for file in (tmp_path / "songs.zarr").rglob("*") if file.is_file()):
        assert b"of-a-test" not in file.read_bytes(), file


def test_lyrics_at_urls(web: str, tmp_path: Path) -> None:
    from mgc.pipeline.sources.manifest import Track, track_lyrics

    def lyrics(path: str) -> Any:
        return track_lyrics(Track(id="x", path="x.mp3", lyrics_path=path), tmp_path, None)

    assert lyrics(f"{web}/song.txt").text == "Words of a song"
    assert lyrics(f"{web}/404.txt").flags == Flag.LYRICS_FAILED


def test_limits_of_size_and_time(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(path: str, max_bytes: int = 10**6) -> str:
        with pytest.raises(files.ClipError) as raised, files.local_file(tmp_path, path, max_bytes):
            pass
        return str(raised.value.reason)

    assert reason(f"{web}/song.wav", 1000) == "TOO_LARGE"
    monkeypatch.setattr(files, "DEADLINE_S", 0.1)
    assert reason(f"{web}/slow.wav") == "SRC_TIMEOUT"


@pytest.mark.parametrize(
    "path", ["https://user:hidden@host/a.wav", "https://host/a.wav?X-Amz-Signature=hidden", "s3://hidden@bucket/a.wav"]
)
def test_urls_with_secrets_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ManifestError, match=r"songs.csv, line 2: a URL with user, password, query") as raised:
        api.read_source(table(tmp_path, [f"x,{path},rock,a,"]))
    assert "hidden" not in str(raised.value)


def test_songs_at_urls_are_predicted_and_tagged(web: str, call: Callable[..., Any], tmp_path: Path) -> None:
    done = call("tag", f"{web}/song.wav", "--workers", "0", "--json")
    assert [song["reason"] for song in done.json["predictions"]] == [None]
    assert done.json["predictions"][0]["id"] == f"{web}/song.wav"
