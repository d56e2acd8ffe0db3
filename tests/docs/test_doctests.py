"""The examples in the docstrings of what people call, run as they stand: in a folder with a store and a model."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc import api


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, songs_store: Path) -> Path:
    """``songs.zarr``, a model of its sounds in ``best/``, one song that can be heard and one that cannot."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "songs.zarr").symlink_to(songs_store)
    options = {"encoder": "tiny", "epochs": 1, "modalities": "audio", "split": "manifest"}
    api.train(songs_store, folder / "run", options=options)
    (folder / "run" / "best").rename(folder / "best")
    soundfile.write(folder / "song.wav", np.sin(np.arange(22_050) / 10).astype(np.float32), 22_050)
    (folder / "broken.wav").write_text("<html>404</html>")
    return folder


@pytest.mark.parametrize(
    "module", ["mgc", "mgc.api.prediction", "mgc.api.views", "mgc.cache.reading.store", "mgc.cache.reading.view"]
)
def test_examples_say_what_happens(folder: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    assert found.failed == 0
