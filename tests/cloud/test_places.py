"""URLs of stores: what is one, what is refused, and which commands need a local path. No server is needed."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mgc
from mgc.cache.errors import ConfigError, MissingExtraError
from mgc.cache.places import ObjectPath, place
from mgc.cache.reading.store import FeatureStore


@pytest.mark.parametrize("url", ["s3://bucket/songs.zarr", "gs://b/a/b.zarr", "az://container/x", "s3://bucket"])
def test_url_stays_a_url(url: str) -> None:
    path = place(url)
    assert isinstance(path, ObjectPath)
    assert str(path) == url
    for same in (place(Path(url)), place(f"{url}/"), pickle.loads(pickle.dumps(path)), path.absolute(), path.resolve()):
        assert str(same) == url
        assert same == path
    assert not path.exists()
    assert str(path / "plan.json") == f"{url}/plan.json"


@pytest.mark.parametrize("text", ["songs.zarr", "/data/s3/x", "s3", "a:/b", "./s3:/x", "C://x"])
def test_other_paths_are_local(text: str) -> None:
    assert place(text) == Path(text)
    assert not isinstance(place(text), ObjectPath)


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3://key:secret@bucket/x", "s3://bucket/x?sig=secret", "s3://b/../x", "https://u:secret@h/x?s=secret"],
)
def test_refused_urls_do_not_repeat_secrets(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        place(url)
    assert "secret" not in str(raised.value)


URL = "s3://bucket/songs.zarr"
NEED_LOCAL: dict[str, list[str]] = {
    "drop": ["store", "drop", URL, "x"],
    "drop feature": ["store", "drop", URL, "--feature", "x"],
    "compact": ["store", "compact", URL],
    "repair": ["store", "repair", URL],
    "convert": ["store", "convert", URL, "songs.h5"],
    "convert to": ["store", "convert", "songs.h5", URL],
    "plan": ["plan", "songs", "-o", URL],
    "cluster": ["cluster", "songs", "-o", URL],
    "train": ["train", "songs.zarr", "-o", URL],
    "ablate": ["ablate", "songs.zarr", "-o", URL],
}


@pytest.mark.parametrize("name", NEED_LOCAL)
def test_commands_that_write_refuse_urls(
    name: str, call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "a.wav").write_bytes(b"")
    done = call(*NEED_LOCAL[name])
    assert done.code != 0
    assert f"{URL}: this command needs a local path." in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["songs"]


def test_songs_from_the_web_are_inputs_and_stores_are_not(tmp_path: Path) -> None:
    from mgc.api.prediction import read_inputs
    from mgc.heads.evaluation.predict_options import PredictOptions

    with pytest.raises(ConfigError, match=r"https://host/a\.zarr: mgc does not read https URLs\. Download the file"):
        FeatureStore.open(Path("https://host/a.zarr"))
    source = read_inputs([Path("https://host/a.mp3")], PredictOptions())
    assert not isinstance(source, Path)
    assert [track.path for track in source.tracks] == ["https://host/a.mp3"]
    with pytest.raises(ConfigError, match="a URL with user, password, query or fragment"):
        read_inputs([Path("https://host/a.mp3?sig=x")], PredictOptions())


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"s3://b/x: the extra 'cloud' is not installed .*'mgc-music\[cloud\]'"):
        mgc.open("s3://b/x")
