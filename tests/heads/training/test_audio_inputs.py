"""Train, resume, evaluate and predict with added feature sets as audio input."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mgc.cache.durable import seal, unseal
from mgc.cache.errors import ConfigError, RecipeMismatchError, RunError, StoppedError, TrainingError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import PRESETS, TrainConfig, read_settings
from mgc.heads.data.batches import Examples, FeatureBatches, choose_placement
from mgc.heads.data.embeddings import STD_FLOOR, Layout, audio_feature_sets, embedding_statistics, read_steps
from mgc.heads.data.task import prepare
from mgc.heads.evaluation.evaluate import evaluate
from mgc.heads.evaluation.predict import predict_blocks, score_store, store_for
from mgc.heads.evaluation.predict_options import PredictOptions
from mgc.heads.model.config import EmbeddingShape
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.dry_run import dry_run
from mgc.heads.training.train import train

MakeWorld = Callable[..., Any]
CPU = torch.device("cpu")
SMALL = {"encoder": "tiny", "model_options": {"width": 32, "graph_hidden": 32, "projection_dim": 16}}
INPUTS = ("pooled", "states", "mel,pooled")
N_STEPS = 10


def config(audio: str, **options: Any) -> TrainConfig:
    return TrainConfig(**{"lr": 2e-3, "epochs": 2, "precision": "fp32", "audio": audio, **SMALL, **options})


def added_values(world: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float16], npt.NDArray[np.int64]]:
    """Return a pooled feature (n, 2, 6), states (n, 3 layers, 10 steps, 8) with NaN in padding, and their lengths."""
    random = np.random.default_rng(7)
    labels = np.asarray([[name in track["genres"] for name in world.GENRES] for track in world.tracks])
    pooled = random.normal(5, 3, (world.n_tracks, 2, 6)).astype(np.float32)
    pooled[:, 0, :5] += 6 * labels
    states = random.normal(0, 1, (world.n_tracks, 3, N_STEPS, 8)).astype(np.float16)
    states[..., :5] += labels[:, None, None].astype(np.float16)
    lengths = random.integers(1, N_STEPS + 1, world.n_tracks)
    lengths[0] = N_STEPS
    for i, n in enumerate(lengths.tolist()):
        states[i, :, n:] = np.nan
    return pooled, states, lengths


def add_all(world: Any, path: Path, **options: Any) -> FeatureStore:
    pooled, states, lengths = added_values(world)
    world.add(path, "pooled", pooled, **options).close()
    dims = ("states_layer", "states_frame", "states_dim")
    store: FeatureStore = world.add(path, "states", states, dims=dims, lengths=lengths, **options)
    return store


@pytest.fixture(scope="module")
def store(make_world: MakeWorld, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """40 tracks with mel, lyrics, `pooled` and `states`; shared, so read-only."""
    world, path = make_world(), tmp_path_factory.mktemp("audio") / "s.zarr"
    world.write(path).close()
    return add_all(world, path)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("audio", INPUTS)
def test_every_preset_trains_on_every_input_and_predicts_from_its_folder(
    store: FeatureStore, tmp_path: Path, audio: str, preset: str
) -> None:
    heads = ("graph", "query") if preset == "paper-tuned" else (TrainConfig.from_preset(preset).head,)
    for head in heads:
        run = tmp_path / head
        options = {"epochs": 1, "audio": audio, "head": head, "precision": "fp32", "encoder": "tiny", "split": "random"}
        result = train(store, run, TrainConfig.from_preset(preset, **options))
        assert np.isfinite(result.history[-1].loss)
        shutil.move(run / "best", tmp_path / f"{head}-model")
        loaded = load_run(tmp_path / f"{head}-model")
        assert loaded.model.config.audio == tuple(audio.split(","))
        assert set(loaded.added) == set(loaded.training.added_audio)
        scores = score_store(loaded, store).scores
        assert scores.shape == (40, 5)
        assert np.isfinite(scores).all()
        card = (tmp_path / f"{head}-model" / "README.md").read_text()
        assert all(f"`{name}`" in card for name in loaded.added)


@pytest.mark.parametrize("audio", INPUTS)
def test_genres_are_learned_from_embeddings_alone(store: FeatureStore, tmp_path: Path, audio: str) -> None:
    result = train(
        store, tmp_path / "run", config(audio, modalities="audio", head="linear", epochs=40, bce_reduction="sum")
    )
    assert result.history[-1].classification < result.history[0].classification / 2
    assert evaluate(tmp_path / "run", store, split="train", n_replicates=0).metrics.mean_average_precision.value > 0.9


@pytest.mark.parametrize("audio", INPUTS)
def test_resume_gives_identical_bytes(store: FeatureStore, tmp_path: Path, audio: str) -> None:
    options = config(audio, deterministic=True, batch_size=8)
    train(store, tmp_path / "complete", options)
    polls = iter(range(10**6))
    with pytest.raises(StoppedError):
        train(store, tmp_path / "run", options, stop=lambda: next(polls) > 5)
    train(store, tmp_path / "run", options, resume=True)
    for folder in ("best", "last"):
        assert files_of(tmp_path / "run" / folder) == files_of(tmp_path / "complete" / folder)


def test_placements_give_identical_batches_with_padding_set_to_0(store: FeatureStore) -> None:
    labels = np.zeros((40, 5), dtype=np.bool_)
    examples = Examples.of(store, store.ok_rows, labels, ("mel", "pooled", "states"))
    _, states, lengths = added_values_of(store)
    index = np.array([3, 0, 17, 9])
    batches = []
    for wanted in ("mapped", "host"):
        placement = choose_placement(store, examples, device=CPU, wanted=wanted)
        assert placement.n_bytes > 40 * (3 * N_STEPS * 8 * 2 + 12 * 4 + 128 * 44 * 2)
        batches.append(FeatureBatches(store, examples, placement=placement, device=CPU).batch(index))
    for name in ("pooled", "states"):
        for first, second in zip(batches[0].embeddings[name], batches[1].embeddings[name], strict=True):
            assert first.dtype == second.dtype
            assert torch.equal(first, second)
    values, steps = batches[0].embeddings["states"]
    assert values.dtype == torch.float16
    assert steps.tolist() == lengths[index].tolist()
    expected = np.nan_to_num(states[index], nan=0.0)[:, :, : lengths[index].max()]
    assert np.array_equal(values.numpy(), expected)
    assert batches[0].embeddings["pooled"][0].shape == (4, 1, 1, 12)
    without = examples.take(index)
    assert without.steps["states"].tolist() == lengths[index].tolist()


def added_values_of(store: FeatureStore) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.int64]]:
    rows = store.ok_rows
    return store.read("pooled", rows), store.read("states", rows), read_steps(store, "states", rows)


def test_mel_is_not_read_for_a_model_without_it(store: FeatureStore) -> None:
    examples = Examples.of(store, store.ok_rows, np.zeros((40, 5), dtype=np.bool_), ("pooled",))
    placement = choose_placement(store, examples, device=CPU, wanted="host")
    batch = FeatureBatches(store, examples, placement=placement, device=CPU).batch(np.arange(4))
    assert batch.mel.shape == (4, 1, 1)
    assert placement.n_bytes < 40 * 128 * 44
    assert prepare(store, config("pooled")).statistics.n_values == 0


def test_statistics_are_those_of_valid_steps_in_numpy(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, states, lengths = added_values_of(store)
    rows = np.array([4, 0, 11, 30, 31])
    flat = np.concatenate([states[row, :, : lengths[row]].transpose(1, 0, 2) for row in rows]).astype(np.float64)
    for at_once in (1, 2**23):
        monkeypatch.setattr("mgc.heads.data.embeddings._READ_AT_ONCE", at_once)
        statistics = embedding_statistics(store, "states", rows, lengths[rows])
        np.testing.assert_allclose(statistics.mean, flat.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(statistics.std, flat.std(axis=0), rtol=1e-5)


def test_constant_values_get_the_floor_of_the_standard_deviation(make_world: MakeWorld, tmp_path: Path) -> None:
    world, path = make_world(n_tracks=12), tmp_path / "s.zarr"
    values = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    values[:, 2] = 3.0
    world.write(path).close()
    world.add(path, "same", np.full((12, 2), 7.0, np.float32)).close()
    with world.add(path, "mixed", values) as store:
        rows, steps = np.arange(12), np.ones(12, dtype=np.int64)
        mixed = embedding_statistics(store, "mixed", rows, steps)
        expected = STD_FLOOR * np.sqrt((values.astype(np.float64).std(axis=0) ** 2).mean())
        assert mixed.std[0, 2] == pytest.approx(expected, rel=1e-5)
        assert embedding_statistics(store, "same", rows, steps).std.tolist() == [[1.0, 1.0]]


def test_values_that_are_not_finite_are_refused_with_their_track(make_world: MakeWorld, tmp_path: Path) -> None:
    world, path = make_world(), tmp_path / "s.zarr"
    world.write(path).close()
    values = np.ones((40, 3), np.float32)
    values[:, 1] = np.inf
    with world.add(path, "odd", values) as store, pytest.raises(TrainingError, match=r"stored odd of t00\d\d.*drop"):
        train(store, tmp_path / "run", config("odd"))


@pytest.mark.parametrize(
    ("dims", "shape", "length", "expected"),
    [
        (("d",), (7,), None, (1, 1, 7)),
        (("statistic", "mel_band"), (6, 128), None, (1, 1, 768)),
        (("x_layer", "x_frame", "x_dim"), (3, 5, 2), None, (3, 5, 2)),
        (("x_dim", "x_frame"), (4, 5), "x_frame", (1, 5, 4)),
        (("frame", "x_head", "x_dim"), (5, 2, 3), None, (1, 5, 6)),
        (("x_frame", "x_beat"), (5, 2), "x_beat", (1, 2, 5)),
        ((), (), None, (1, 1, 1)),
    ],
)
def test_layout_puts_layers_then_time_first_and_flattens_the_rest(
    store: FeatureStore, dims: Any, shape: Any, length: str | None, expected: tuple[int, int, int]
) -> None:
    recipe = dataclasses.replace(store.extractors["pooled"], dims=dims, shape=shape, length=length)
    layout = Layout.of(recipe)
    values = np.arange(2 * np.prod(shape, dtype=int)).reshape(2, *shape).astype(np.float32)
    arranged = layout.arrange(values)
    assert arranged.shape == (2, *expected)
    assert layout.widths == EmbeddingShape(layers=expected[0], dim=expected[2])
    assert layout.has_lengths == (length is not None)
    if dims in (("x_dim", "x_frame"), ("x_frame", "x_beat")):
        assert np.array_equal(arranged[:, 0], values.transpose(0, 2, 1))


def test_tracks_without_the_feature_are_left_out_counted_and_named(make_world: MakeWorld, tmp_path: Path) -> None:
    world, path, run = make_world(), tmp_path / "s.zarr", tmp_path / "run"
    world.write(path).close()
    with add_all(world, path, failed={1, 8}) as store:
        result = train(store, run, config("mel,pooled"))
        assert "2 of 40 tracks have no pooled and are left out" in result.remarks
        assert json.loads((run / "run.json").read_text())["kept"][0]["filter"] == "feature=pooled"
        ids = {name for names in result.task.split.ids.values() for name in names}
        assert len(ids) == 38
        assert not {"t0001", "t0008"} & ids
        assert dry_run(store, config("mel,pooled")).to_dict()["kept"][0].startswith("2 of 40 tracks")
        evaluation = evaluate(run, store, split="all", n_replicates=0)
        assert evaluation.n_tracks + evaluation.n_left_out == 38
        blocks = list(predict_blocks(load_run(run), store, PredictOptions()))
        rows = {row["id"]: row for block in blocks for row in block.tracks.to_pylist()}
        assert rows["t0001"]["reason"] == rows["t0008"]["reason"] == "EXTRACTOR_FAILED"
        assert sum(block.has_scores.sum() for block in blocks) == 38
        plain = train(store, tmp_path / "plain", config("mel", epochs=1))
        assert not any("left out" in remark for remark in plain.remarks)


def test_missing_feature_sets_are_refused_with_the_existing_ones(
    store: FeatureStore, small_store: FeatureStore, make_world: MakeWorld, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"'clap'.*audio features: mel, pooled, states.*--add clap"):
        train(store, tmp_path / "run", config("clap"))
    with pytest.raises(ConfigError, match=r"--audio: no added feature set 'pooled'.*audio features: mel\)"):
        dry_run(small_store, config("mel,pooled"))
    world, path = make_world(n_tracks=8), tmp_path / "t.zarr"
    world.write(path).close()
    with world.add(path, "words", np.ones((8, 2), np.float32), input="text", clip=None) as texts:
        assert audio_feature_sets(texts) == []
        with pytest.raises(ConfigError, match="not computed from audio: feature set 'words'"):
            prepare(texts, config("words"))
    train(store, tmp_path / "run", config("pooled", epochs=1))
    with pytest.raises(RecipeMismatchError, match=r"no feature set 'pooled'.*--add pooled"):
        evaluate(tmp_path / "run", small_store, n_replicates=0)


def test_another_version_of_the_feature_set_is_refused(
    store: FeatureStore, make_world: MakeWorld, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(store, run, config("mel,pooled", epochs=1))
    world, path = make_world(), tmp_path / "s.zarr"
    world.write(path).close()
    changes = {"version": "2", "parameters": {"weights_sha256": "c"}}
    with world.add(path, "pooled", added_values(world)[0], **changes) as other:
        with pytest.raises(RunError, match="recipe fingerprints"):
            train(other, run, config("mel,pooled", epochs=2), resume=True)
        with pytest.raises(RecipeMismatchError, match=r"pooled.parameters.weights_sha256: absent in the model, c in"):
            store_for(load_run(run), other)
        with pytest.raises(RecipeMismatchError, match=r"pooled.version: 1 in the model, 2 in the store"):
            list(predict_blocks(load_run(run), other, PredictOptions()))
    result = train(store, run, config("mel,pooled", epochs=2), resume=True)
    assert len(result.history) == 2


def test_options_without_audio_keep_their_meaning() -> None:
    document = TrainConfig().to_dict()
    assert document.pop("audio") == ["mel"]
    assert TrainConfig.from_dict(document) == TrainConfig()
    assert TrainConfig(audio="pooled,mel").audio == ("mel", "pooled")  # type: ignore[arg-type]
    assert TrainConfig.from_dict({**document, "audio": ["pooled"]}).audio == ("pooled",)
    assert read_settings(["audio=mel,pooled"]) == {"audio": "mel,pooled"}
    assert TrainConfig(audio=("pooled",), modalities="lyrics").audio == ("mel",)
    assert not TrainConfig(audio=("pooled",), spec_augment=True).spec_augment
    assert TrainConfig(audio=("mel", "pooled"), spec_augment=True).spec_augment
    with pytest.raises(ConfigError, match="model='santana': needs audio='mel'"):
        TrainConfig(model="santana", audio=("pooled",))


def test_models_published_without_audio_inputs_load(store: FeatureStore, tmp_path: Path) -> None:
    """A model of an earlier version has no key for audio inputs."""
    run = tmp_path / "run"
    train(store, run, config("mel", epochs=1))
    scores = score_store(load_run(run), store).scores
    document = unseal(run / "best" / "config.json")
    del document["training"]["audio"], document["model"]["audio"], document["model"]["embeddings"]
    (run / "best" / "config.json").write_bytes(seal(document))
    assert "added" not in unseal(run / "best" / "preprocessor.json")
    loaded = load_run(run)
    assert loaded.added == {}
    assert np.array_equal(score_store(loaded, store).scores, scores)
    assert loaded.training == config("mel", epochs=1)
