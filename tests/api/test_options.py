"""Options of the API: one value, or keyword arguments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mgc import api
from mgc.api.shared import extra
from mgc.api.training import make_config
from mgc.cache.errors import ConfigError, MissingExtraError, RunError
from mgc.cache.reading.store import FeatureStore
from mgc.pipeline.extraction.options import ExtractOptions, Scheduler
from mgc.pipeline.sources.options import SourceOptions


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = ["id,path,genres", "a,a.wav,rock", "b,b.wav,", "c,c.wav,jazz", "d,d.wav,folk"]
    (tmp_path / "songs.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "songs.csv"


def test_options_by_name_override_those_in_the_value(table: Path) -> None:
    value = SourceOptions(min_labels=1, limit=1)
    assert [track.id for track in api.read_source(table, value).source.tracks] == ["a"]
    assert [track.id for track in api.read_source(table, value, limit=2).source.tracks] == ["a", "c"]
    assert api.read_source(table, limit=2).source == api.read_source(table, SourceOptions(limit=2)).source
    assert api.read_source(table, root=str(table.parent)).source.root == table.parent


def test_an_unknown_option_is_an_error_with_the_nearest_name(table: Path) -> None:
    with pytest.raises(TypeError, match="SourceOptions has no option 'min_label'; did you mean 'min_labels'"):
        api.read_source(table, min_label=1)
    source = api.read_source(table).source
    with pytest.raises(TypeError, match="ExtractOptions has no option 'text_modell'; did you mean 'text_model'"):
        api.extract(source, table.with_suffix(".zarr"), text_modell="minilm")
    with pytest.raises(TypeError, match="has no option 'clip'"):
        api.plan(source, clip=1.0)
    assert not table.with_suffix(".zarr").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"features": ["mel", "chroma"]}, "invalid features: 'mel,chroma'. Use mel, lyrics or both"),
        ({"features": ["genres"]}, "Use mel, lyrics or both"),
        ({"features": ["mel", "genres"]}, "the encoder of the lyrics embeds the genre names"),
        ({"workers": 2, "scheduler": Scheduler(address="tls://a:1")}, "--workers and --scheduler exclude each other"),
        ({"features": ["mel"], "genre_names": "common"}, "genres are not embedded"),
        ({"add": "minilm", "genre_names": "common"}, "Remove --genre-names"),
        ({"shard": (1, 2), "retry_failed": True}, "Run it once, without --shard"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ExtractOptions(**options)


def test_workers_option_chooses_the_process_of_the_parts() -> None:
    scheduler = Scheduler(address="tls://a:1")
    assert ExtractOptions(scheduler=scheduler).workforce == scheduler
    assert [ExtractOptions(workers=n).workforce for n in (0, 3)] == [0, 3]
    assert ExtractOptions(shard=(1, 2)).workforce == 0
    assert ExtractOptions().workforce >= 1


def test_missing_extra_is_the_one_of_the_failing_import() -> None:
    with pytest.raises(MissingExtraError, match=r"^decoding needs mgc-music\[extract\]$"), extra("language"):
        raise MissingExtraError("decoding needs mgc-music[extract]")


def test_resumed_run_keeps_its_options(small_store: FeatureStore, tmp_path: Path) -> None:
    small = {"encoder": "tiny", "batch_size": 32, "epochs": 1, "model_options": {"width": 16, "graph_hidden": 16}}
    run = tmp_path / "run"
    first = api.train(small_store.path, run, preset="paper-tuned", options={**small, "seed": 3, "lr": 2e-3}).result
    assert first.config.model_options["graph_normalisation"] == "reweighted"
    again = api.train(small_store.path, run, resume=True, settings=["epochs=2"]).result
    assert again.config == dataclasses.replace(first.config, epochs=2)
    assert [record.epoch for record in again.history] == [1, 2]
    spare = (run / "best/model.safetensors").read_bytes()
    damaged = next(path for path in (run / "last").glob("weights-*") if path.read_bytes() == spare)
    damaged.write_bytes(spare[:-1])
    repaired = api.train(small_store.path, run, resume=True).result.warnings
    assert [warning for warning in repaired if f"{damaged}: truncated" in warning]  # not repaired without a warning
    with pytest.raises(RunError, match="other options: .*prior_bias: False, was True"):
        api.train(small_store.path, run, resume=True, preset="paper")
    fresh = make_config(resumed=tmp_path / "not there yet")
    assert fresh.preset == "default"
