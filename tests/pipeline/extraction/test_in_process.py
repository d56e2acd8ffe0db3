"""Where parts are built: in this process for little work, unless the user, an earlier crash or an extractor decides."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import soundfile
import torch

from mgc import api
from mgc.cache.format.recipe import MelRecipe, Recipe, TextRecipe
from mgc.cache.reading.store import FeatureStore
from mgc.pipeline.extraction import pending
from mgc.pipeline.extraction.forecast import rough_work_s
from mgc.pipeline.extraction.part import build_and_commit
from mgc.pipeline.text.encoder import Precision

KILLED = """
import os, signal, sys
from pathlib import Path
from mgc import api
from mgc.pipeline.extraction import part

commit_part, commits = part.commit_part, []

def killed(*args, **options):
    commits.append(args)
    if len(commits) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return commit_part(*args, **options)

part.commit_part = killed
folder = Path(sys.argv[1])
api.extract(api.read_source(folder / "songs").source, folder / "killed", text_model="minilm", clip_s=1.0, part_rows=2)
"""


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    seconds = np.arange(22_050) / 22_050
    for i in range(6):
        soundfile.write(folder / f"{i}.wav", (0.2 * np.sin(2 * np.pi * (200 + 50 * i) * seconds)).astype("f4"), 22_050)
        (folder / f"{i}.txt").write_text(f"the {i} rivers run down to the sea and never come back again " * (i + 1))
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Numbers of workers that were asked for; the parts are built in this process all the same."""
    workers: list[object] = []

    def run_on_cluster(jobs, n_workers):
        workers.append(n_workers)
        return map(build_and_commit, jobs)

    monkeypatch.setattr(pending, "run_on_cluster", run_on_cluster)
    return workers


def extract(songs: Path, store: str = "store", **options):
    source = api.read_source(songs).source
    return api.extract(source, songs.parent / store, **{"clip_s": 1.0, "part_rows": 2, "features": ("mel",), **options})


def test_little_work_is_done_in_this_process_and_the_report_says_so(songs, started):
    report = extract(songs)
    assert (report.ok, report.parts_built, started) == (6, 3, [])
    assert report.remarks == (
        "extracting in the main process: about 1 s for the tracks (--workers N starts worker processes)",
    )
    assert extract(songs).remarks == ()
    both = extract(songs, "both", features=("mel", "lyrics"), text_model="minilm")
    assert any(" for the tracks, plus the time to load the text encoder (" in remark for remark in both.remarks)
    again = extract(songs, "both", features=("mel", "lyrics"))
    assert again.remarks == ("continuing the store with its own text encoder minilm (--text-model)",)
    assert extract(songs, "both", features=("mel", "lyrics"), text_model="minilm").remarks == ()


def test_the_number_of_workers_that_the_user_gives_wins(songs, started):
    assert extract(songs, workers=2).remarks == ()
    assert started == [2]
    assert extract(songs, "other", workers=0).remarks == ()
    assert started == [2]


def test_much_work_gets_workers(songs, started, monkeypatch):
    monkeypatch.setattr(pending, "IN_PROCESS_S", 0.0)
    assert extract(songs).remarks == ()
    assert len(started) == 1


def test_the_forecast_of_a_trial_counts_more_than_the_rough_one(songs, started, monkeypatch):
    api.plan(api.read_source(songs).source, songs.parent / "store", clip_s=1.0, features=("mel",), sample=2)
    monkeypatch.setattr(pending, "rough_work_s", lambda *_: 1e9)
    assert extract(songs).remarks[0].startswith("extracting in the main process")
    assert len(extract(songs, "other").remarks) == 0


def test_an_extractor_gets_workers(songs, started):
    extract(songs)
    extract(songs, add="pooled_mel")
    assert len(started) == 1


def test_a_crash_in_this_process_loses_nothing_and_the_next_run_has_workers(songs, tmp_path):
    """The same bytes as undisturbed, although some parts were built here and some on workers with one thread."""
    before = torch.get_num_threads()
    whole = extract(songs, "whole", features=("mel", "lyrics", "genres"), text_model="minilm")
    assert whole.remarks
    assert torch.get_num_threads() == before
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with FeatureStore.open(tmp_path / "killed") as store:
        assert len(store.ok_rows) == 2
    again = extract(songs, "killed", features=("mel", "lyrics", "genres"), text_model="minilm")
    assert (again.ok, again.parts_built, again.remarks) == (6, 2, ())
    assert _objects(tmp_path / "killed") == _objects(tmp_path / "whole")


@pytest.mark.parametrize("options", [{"text_backend": "openvino"}, {"text_precision": "int8"}])
def test_other_text_backends_give_the_same_bytes_in_this_process_and_on_a_worker(songs, options):
    options = {"features": ("lyrics", "genres"), "text_model": "minilm", **options}
    assert extract(songs, "here", **options).remarks
    assert extract(songs, "worker", workers=1, **options).ok == 6
    assert _objects(songs.parent / "here") == _objects(songs.parent / "worker")
    with FeatureStore.open(songs.parent / "here") as store:
        assert store.recipe.lyrics.backend == options.get("text_backend", "ctranslate2")


def _objects(store: Path) -> dict[str, bytes]:
    files = (path for path in store.rglob("*") if path.is_file() and path.relative_to(store).parts[0] != "log")
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def test_rough_work_grows_with_the_clip_the_backend_and_the_encoder():
    def seconds(backend="fast", clip_s=30.0, hidden_size=384, precision="bf16", n_lyrics=100):
        text = TextRecipe(
            model="m", weights_sha256="a" * 64, tokenizer_sha256="b" * 64, hidden_size=hidden_size, precision=precision
        )
        return rough_work_s(Recipe(mel=MelRecipe(backend=backend, clip_s=clip_s), lyrics=text), 100, n_lyrics)

    assert seconds(n_lyrics=0) == pytest.approx(3.9)
    assert seconds(n_lyrics=0, backend="librosa", clip_s=60.0) == pytest.approx(2 * 1.7 * 3.9)
    assert seconds(hidden_size=768) - seconds(n_lyrics=0) == pytest.approx(8 * (seconds() - seconds(n_lyrics=0)))
    assert seconds(precision="fp32") > seconds()
    for precision in get_args(Precision):
        assert seconds(precision=precision) > seconds(n_lyrics=0)
    assert rough_work_s(Recipe(mel=None, lyrics=None), 100, 100) == 0
