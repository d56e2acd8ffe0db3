"""Run the examples in the docstrings of the public API, in a folder with a store and a model."""

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
    """Write ``songs.zarr``, an audio-only model in ``best/``, a valid song and an invalid one."""
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
def test_docstring_examples_pass(folder: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
