"""A store with sequences and a batched feature, of :mod:`sequence_extractors`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sequence_extractors import ALL, OPTIONS, make_songs

from mgc import api
from mgc.pipeline.extractors import registry
from mgc.pipeline.extractors.registry import BUILT_IN
from mgc.pipeline.sources.manifest import Source


@pytest.fixture
def sequence_extractors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BUILT_IN", {**BUILT_IN, **ALL})


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Path]:
    """Seven songs of 0.1 to 2 s, and a store of their mels in parts of two tracks."""
    folder = tmp_path_factory.mktemp("base")
    source = make_songs(folder / "songs")
    api.extract(source, folder / "s.zarr", features=("mel",), clip_s=2.0, part_rows=2, **OPTIONS)
    return source, folder / "s.zarr"


@pytest.fixture(scope="session")
def sequence_sample(tones: tuple[Source, Path]) -> Path:
    source, store = tones
    path = Path(shutil.copytree(store, store.parent / "sample.zarr"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "BUILT_IN", {**BUILT_IN, **ALL})
        for name in ALL:
            report = api.extract(source, path, add=name, **OPTIONS)
            assert (report.ok, report.failed, report.parts_built) == (7, 0, 4)
    return path


@pytest.fixture
def sequence_store(sequence_sample: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sequence_sample, tmp_path / "s.zarr"))
