"""The ablation of audio inputs: rows on the same tracks, and a folder that several tables share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

OPTIONS = ("--seeds", 1, "--epochs", 1, "--encoder", "tiny", "--precision", "fp32", "--split", "random")


@pytest.fixture(scope="module")
def store(make_world: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 tracks with mel, lyrics and two added feature sets, of which 2 and 3 tracks fail."""
    world, path = make_world(), tmp_path_factory.mktemp("ablation") / "s.zarr"
    world.write(path).close()
    random = np.random.default_rng(0)
    world.add(path, "clap", random.normal(size=(40, 6)).astype(np.float32), failed={1, 2}).close()
    world.add(path, "musicnn", random.normal(size=(40, 4)).astype(np.float32), failed={2, 3, 4}).close()
    return path


def test_rows_are_trained_on_the_tracks_that_have_every_feature_set(
    store: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    folder = tmp_path / "ablation"
    dry = json.loads(call("ablate", store, "-o", folder, "--tables", "audio", *OPTIONS, "--dry-run", "--json").out)
    left_out = ["2 of 40 tracks have no clap and are left out", "2 of 38 tracks have no musicnn and are left out"]
    assert dry["remarks"] == left_out
    assert set(dry["epoch_s"]) == {
        "ru2023, both",
        *(f"ru2023, both, {name}" for name in ("clap", "musicnn", "mel + clap", "mel + musicnn")),
    }
    done = call("ablate", store, "-o", folder, "--tables", "audio", *OPTIONS, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["remarks"][:2] == left_out
    rows = document["tables"][0]["rows"]
    assert [row["name"] for row in rows] == ["mel", "clap", "musicnn", "mel + clap", "mel + musicnn"]
    assert all(row["metrics"]["map"]["value"] is not None for row in rows)
    assert document["caption"]["audio"] == ["clap", "mel", "mel + clap", "mel + musicnn", "musicnn"]
    assert "Audio inputs: clap, mel," in (folder / "tables.md").read_text()
    again = json.loads(call("ablate", store, "-o", folder, "--tables", "audio", *OPTIONS, "--no-train", "--json").out)
    assert again["tables"] == document["tables"]


def test_systems_can_have_an_added_audio_input_and_baselines_keep_mel(
    store: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    command = ("ablate", store, "-o", tmp_path / "a", "--tables", "systems", "--audio", "clap", *OPTIONS)
    planned = json.loads(call(*command, "--dry-run", "--json").out)
    assert {"santana, audio", "pandeya, both", "ru2023, both, clap", "ru2023, audio, clap"} <= set(planned["epoch_s"])
    missing = call(*command[:6], "--audio", "hubert", *OPTIONS, "--dry-run")
    assert missing.code == 2
    assert "no added feature set 'hubert'" in missing.err


def test_folder_accepts_runs_on_feature_sets_that_are_added_later(
    make_world: Callable[..., Any], tmp_path: Path, call: Callable[..., Any]
) -> None:
    world, path, folder = make_world(), tmp_path / "s.zarr", tmp_path / "ablation"
    world.write(path).close()
    values = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    world.add(path, "clap", values).close()
    first = call("ablate", path, "-o", folder, *OPTIONS, "--tables", "audio", "--shard", "1/2", "--json")
    assert json.loads(first.out)["caption"]["runs_finished"] == 2
    about = json.loads((folder / "ablation.json").read_text())
    assert "clap" in about["fingerprints"]
    world.add(path, "other", values).close()
    done = json.loads(call("ablate", path, "-o", folder, *OPTIONS, "--tables", "audio", "--json").out)
    assert done["caption"]["runs_finished"] == 5
