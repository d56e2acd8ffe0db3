"""Test training: learning, exact resume, refusals, and independence of the model from test tracks."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mgc.cache.errors import ConfigError, RunError, StoppedError, TrainingError
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.hdf5_writer import seal_store
from mgc.heads.config import SWITCHES, TrainConfig, switched_on
from mgc.heads.data.splits import Split
from mgc.heads.data.task import prepare
from mgc.heads.device import compiling, deterministic
from mgc.heads.evaluation.evaluate import evaluate
from mgc.heads.metrics.validation import CARD_REPLICATES, validation_intervals
from mgc.heads.runs.checkpoint import find_state
from mgc.heads.runs.history import read_history
from mgc.heads.training import loop
from mgc.heads.training import train as train_module
from mgc.heads.training.start import make_model
from mgc.heads.training.train import train

MakeWorld = Callable[..., Any]
SMALL = {"encoder": "tiny", "model_options": {"width": 32, "graph_hidden": 32, "projection_dim": 16}}


def small_config(**options: Any) -> TrainConfig:
    return TrainConfig(**{"lr": 1e-3, "epochs": 3, "precision": "fp32", **SMALL, **options})


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_loss_halves_and_the_run_folder_is_complete(small_store: FeatureStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    reports: list[tuple[str, int, int]] = []
    result = train(
        small_store, run, small_config(epochs=15, lr=2e-3), on_progress=lambda *report: reports.append(report[:3])
    )
    history = read_history(run / "metrics.jsonl")
    assert tuple(history) == result.history
    assert history[-1].loss < history[0].loss / 2
    assert history[-1].classification < history[0].classification / 2
    assert [record.epoch for record in history] == list(range(1, 16))
    assert result.best_map == max(record.val_map for record in history if record.val_map is not None)
    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "run.json",
        "splits.json",
        "metrics.jsonl",
        "last",
        "best",
    }
    assert {path.name for path in (run / "best").iterdir()} == {
        "model.safetensors",
        "config.json",
        "preprocessor.json",
        "labels.json",
        "graph.json",
        "thresholds.json",
        "README.md",
    }
    assert read_config(run) == small_config(epochs=15, lr=2e-3)
    assert [report for report in reports if report[0] == "train"] == [("train", epoch, 15) for epoch in range(1, 16)]
    assert {report[0] for report in reports} == {"statistics", "train"}


def test_losses_add_up_to_the_total(small_store: FeatureStore, tmp_path: Path) -> None:
    for record in train(small_store, tmp_path / "run", small_config(lambda_=0.4)).history:
        assert record.loss == pytest.approx(0.4 * record.contrastive + 0.6 * record.classification, rel=1e-5)
        assert record.tau is not None


def test_lambda_warmup_weights_the_losses_per_epoch(small_store: FeatureStore, tmp_path: Path) -> None:
    config = small_config(lambda_=0.4, lambda_warmup_epochs=1)
    for record, weight in zip(train(small_store, tmp_path / "run", config).history, (0.2, 0.4, 0.4), strict=True):
        weighted = weight * record.contrastive + (1 - weight) * record.classification
        assert record.loss == pytest.approx(weighted, rel=1e-5)


def test_gradient_norms_are_logged_and_a_dominant_loss_gives_a_warning(
    small_store: FeatureStore, tmp_path: Path
) -> None:
    even = train(small_store, tmp_path / "even", small_config(bce_reduction="sum", lambda_=0.2))
    mean = train(small_store, tmp_path / "mean", small_config(lambda_=0.9))
    ratios = [
        [record.gradient_contrastive / record.gradient_classification for record in result.history]  # type: ignore[operator]
        for result in (even, mean)
    ]
    assert max(ratios[0]) < 10 < min(ratios[1])
    assert not [warning for warning in even.warnings if "gradient" in warning]
    (warning,) = [warning for warning in mean.warnings if "gradient" in warning]
    assert f"the audio-lyrics loss is {sorted(ratios[1])[1]:.0f} times" in warning
    single = train(small_store, tmp_path / "single", small_config(contrastive=False)).history
    assert {(record.gradient_contrastive, record.gradient_classification) for record in single} == {(None, None)}


def test_biases_norms_and_tau_do_not_decay(small_store: FeatureStore) -> None:
    """A step with zero gradients changes decaying parameters only."""
    config = small_config(optimizer="adamw", weight_decay=0.5, lr=1.0)
    model, optimizer = make_model(prepare(small_store, config), config, torch.device("cpu"))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    unchanged = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert {"no_lyrics", "bias", "projection.tau", "fusion.audio_block.norm.weight"} <= unchanged
    assert unchanged == {name for name in before if name.endswith(("bias", "norm.weight", "tau", "no_lyrics"))} | {
        name for name, value in before.items() if not value.any() or value.ndim < 2
    }


def test_learning_rate_is_halved_on_schedule(small_store: FeatureStore, tmp_path: Path) -> None:
    result = train(small_store, tmp_path / "run", small_config(epochs=4, lr_halve_every=2))
    assert [record.lr for record in result.history] == [1e-3, 1e-3, 5e-4, 5e-4]


def test_true_labels_are_learned_and_shuffled_labels_are_not(make_world: MakeWorld, tmp_path: Path) -> None:
    store = make_world(n_tracks=280, seed=3).write(tmp_path / "s.zarr", part_rows=64)
    ids, genres = (store.tracks.column(name).to_pylist() for name in ("id", "genres"))
    order = np.random.default_rng(0).permutation(280)
    shuffled = {name: genres[k] for name, k in zip(ids, order, strict=True)}

    def excess(name: str, labels: dict[str, list[str]] | None) -> float:
        config = small_config(epochs=4, lr=3e-3, split="random")
        train(store, tmp_path / name, config, labels=labels)
        evaluation = evaluate(tmp_path / name, store, labels=labels, n_replicates=0)
        prevalence = evaluation.baselines["label_prior"].mean_average_precision.value
        return evaluation.metrics.mean_average_precision.value - prevalence

    assert excess("true", None) > 0.35
    assert abs(excess("shuffled", shuffled)) < 0.15


@pytest.fixture(scope="module")
def complete(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train an uninterrupted run of three epochs."""
    run = tmp_path_factory.mktemp("complete") / "run"
    train(small_store, run, small_config())
    return run


def assert_same_run(run: Path, complete: Path) -> None:
    """Compare every byte of checkpoints and model, and the history except for its times."""
    assert folder_bytes(run / "last") == folder_bytes(complete / "last")
    assert folder_bytes(run / "best") == folder_bytes(complete / "best")
    timeless = [
        [dataclasses.replace(record, seconds=0) for record in read_history(folder / "metrics.jsonl")]
        for folder in (run, complete)
    ]
    assert timeless[0] == timeless[1]
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]


class StopAtPoll:
    """Stop callback that returns True from its n-th call on.

    Training calls it twice for statistics, then per epoch after each of two steps, after scoring, and at the end.
    """

    def __init__(self, n: int) -> None:
        self._remaining = n

    def __call__(self) -> bool:
        self._remaining -= 1
        return self._remaining <= 0


@pytest.mark.parametrize(("n", "epoch", "steps"), [(3, 1, 1), (8, 2, 2), (9, 2, 2)], ids=["first", "last", "scoring"])
def test_resume_after_a_stop_within_an_epoch_gives_identical_bytes(
    small_store: FeatureStore, complete: Path, tmp_path: Path, n: int, epoch: int, steps: int
) -> None:
    with pytest.raises(StoppedError, match=rf"epoch {epoch} after {steps} steps?, saved"):
        train(small_store, tmp_path / "run", small_config(), stop=StopAtPoll(n))
    state, _ = find_state(tmp_path / "run")
    assert state is not None
    assert state.point == (epoch - 1, steps)
    with pytest.raises(RunError, match="unfinished run.*--resume"):
        train(small_store, tmp_path / "run", small_config())
    train(small_store, tmp_path / "run", small_config(), resume=True)
    assert_same_run(tmp_path / "run", complete)


def test_resume_within_an_epoch_gives_identical_bytes_with_all_switches(
    small_store: FeatureStore, tmp_path: Path
) -> None:
    switches = switched_on(*SWITCHES)
    assert {"loss", "modality_dropout", "spec_augment", "optimizer"} <= switches.keys()
    model_options = {**SMALL["model_options"], "tau_scale": "log"}
    more = {"epochs": 3, "warmup_epochs": 1, "lambda_warmup_epochs": 2, "model_options": model_options}
    config = small_config(**{**switches, **more})
    train(small_store, tmp_path / "complete", config)
    with pytest.raises(StoppedError):
        train(small_store, tmp_path / "run", config, stop=StopAtPoll(7))
    state, _ = find_state(tmp_path / "run")
    assert state is not None
    assert state.point == (1, 1)
    train(small_store, tmp_path / "run", config, resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "complete")


def test_checkpoints_within_epochs_change_no_result_and_are_removed(
    small_store: FeatureStore, complete: Path, tmp_path: Path
) -> None:
    run, points = tmp_path / "run", set()

    def record_point() -> bool:
        state, _ = find_state(run)
        points.add(None if state is None else state.point)
        return False

    train(small_store, run, small_config(), save_every_s=0, stop=record_point)
    assert {(0, 1), (1, 1), (2, 1)} <= points
    assert_same_run(run, complete)


@pytest.mark.parametrize("damage", ["cut", "altered", "missing"])
@pytest.mark.parametrize("folder", ["last", "best"])
def test_resume_of_a_damaged_run_gives_identical_bytes(
    small_store: FeatureStore, complete: Path, tmp_path: Path, folder: str, damage: str
) -> None:
    run = tmp_path / "run"
    train(small_store, run, small_config())
    for path in sorted((run / folder).glob("*3*" if folder == "last" else "*")):
        data = path.read_bytes()
        path.unlink()
        if damage != "missing":
            path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"?" + data[1:])
    result = train(small_store, run, small_config(), resume=True)
    if (folder, damage) != ("last", "missing") and folder == "last":
        assert any("state-000003.json" in warning and "end of epoch 2" in warning for warning in result.warnings)
    assert_same_run(run, complete)


def test_damaged_history_and_split_give_warnings(small_store: FeatureStore, complete: Path, tmp_path: Path) -> None:
    run = shutil.copytree(complete, tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text(lines[0] + lines[1][:30] + "\n" + lines[2])
    split = (run / "splits.json").read_bytes()
    (run / "splits.json").write_bytes(split[:100])
    result = train(small_store, run, small_config(), resume=True)
    assert [record.epoch for record in result.history] == [1, 3]
    assert sum("metrics.jsonl" in warning or "splits.json" in warning for warning in result.warnings) == 2
    assert (run / "splits.json").read_bytes() == split


def test_finished_run_can_be_extended_and_is_otherwise_unchanged(
    small_store: FeatureStore, complete: Path, tmp_path: Path
) -> None:
    first = train(small_store, tmp_path / "run", small_config(epochs=2))
    assert not any("nothing to do" in remark for remark in first.remarks)
    files = [folder_bytes(tmp_path / "run" / name) for name in ("best", "last")]
    for resume in (False, True):
        again = train(small_store, tmp_path / "run", small_config(epochs=2), resume=resume)
        assert (len(again.history), again.placement) == (2, None)
        assert again.remarks[0] == "nothing to do: this run is finished, with 2 epochs"
        assert [folder_bytes(tmp_path / "run" / name) for name in ("best", "last")] == files
    train(small_store, tmp_path / "run", small_config(epochs=3), resume=True)
    ends = [folder_bytes(run / "last") for run in (tmp_path / "run", complete)]
    assert ends[0].pop("state-000002.json") != ends[1].pop("state-000002.json")  # saved with epochs=2
    assert ends[0] == ends[1]


def test_resume_of_a_finished_run_removes_older_checkpoints_left_by_a_power_cut(
    small_store: FeatureStore, complete: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(complete, tmp_path / "run"))
    (run / "last" / "state-000002+000001.json").write_bytes((run / "last" / "state-000002.json").read_bytes())
    (run / "last" / "random-000002+000001.safetensors").write_bytes(b"")
    train(small_store, run, small_config(), resume=True)
    assert_same_run(run, complete)


def test_best_is_published_on_resume_if_a_kill_came_before_it(small_store: FeatureStore, tmp_path: Path) -> None:
    train(small_store, tmp_path / "run", small_config(epochs=1))
    best = folder_bytes(tmp_path / "run" / "best")
    (tmp_path / "run" / "best").rename(tmp_path / "run" / ".best.old")
    train(small_store, tmp_path / "run", small_config(epochs=1), resume=True)
    assert folder_bytes(tmp_path / "run" / "best") == best


def test_resume_refuses_other_options_other_tracks_and_damaged_checkpoints(
    small_store: FeatureStore, make_world: MakeWorld, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(small_store, run, small_config(epochs=1))
    with pytest.raises(RunError, match=r"epochs: 2, was 1 \(train more with --resume\)"):
        train(small_store, run, small_config(epochs=2))
    with pytest.raises(RunError, match=r"lr: 0\.002, was 0\.001"):
        train(small_store, run, small_config(epochs=1, lr=2e-3))
    with pytest.raises(RunError, match=r"lr: 0\.002, was 0\.001"):
        train(small_store, run, small_config(epochs=2, lr=2e-3), resume=True)
    other = make_world(seed=1).write(tmp_path / "other.zarr")
    with pytest.raises(RunError, match="audio, lyrics or labels"):
        train(other, run, small_config(epochs=2), resume=True)
    fewer = make_world(n_tracks=20).write(tmp_path / "fewer.zarr")
    with pytest.raises(RunError, match="training and validation tracks of the run are missing"):
        train(fewer, run, small_config(epochs=2), resume=True)
    for state in (run / "last").glob("state-*"):
        state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(RunError, match="no checkpoint of this run is intact"):
        train(small_store, run, small_config(epochs=2), resume=True)
    shutil.rmtree(run / "last")
    with pytest.raises(RunError, match="no checkpoint, although best/ exists"):
        train(small_store, run, small_config(epochs=2), resume=True)


@pytest.mark.parametrize("policy", ["auto", "random"])
def test_published_model_does_not_depend_on_test_tracks(make_world: MakeWorld, tmp_path: Path, policy: str) -> None:
    """No byte of best/ changes with audio, lyrics or labels of test tracks, including A1 in graph.json."""
    config = small_config(split=policy, epochs=2)
    train(make_world().write(tmp_path / "a.zarr"), tmp_path / "a", config)
    test_ids = set(Split.load(tmp_path / "a" / "splits.json").ids["test"])
    scrambled = make_world()
    test = [i for i, track in enumerate(scrambled.tracks) if track["id"] in test_ids]
    random = np.random.default_rng(9)
    for i in test:
        scrambled.mel[i] = random.normal(-10, 30, scrambled.mel[i].shape)
        scrambled.lyrics[i] = random.normal(5, 3, scrambled.lyrics[i].shape)
        scrambled.lyrics_tokens[i] = random.integers(3, 20)
        scrambled.mel_frames[i] = random.integers(3, 40)
        scrambled.tracks[i]["genres"] = list(random.permutation(scrambled.GENRES)[: random.integers(1, 4)])
    store = scrambled.write(tmp_path / "b.zarr", genres=scrambled.GENRES)
    train(store, tmp_path / "b", config)
    assert len(test) == 8
    assert folder_bytes(tmp_path / "a" / "best") == folder_bytes(tmp_path / "b" / "best")
    evaluations = [
        evaluate(tmp_path / name, FeatureStore.open(tmp_path / f"{name}.zarr"), n_replicates=0) for name in "ab"
    ]
    assert evaluations[0].metrics.to_dict() != evaluations[1].metrics.to_dict()


def test_sealed_store_gives_identical_weights_and_scores(
    complete: Path, small_store: FeatureStore, tmp_path: Path
) -> None:
    seal_store(small_store.path, tmp_path / "s.h5")
    with FeatureStore.open(tmp_path / "s.h5") as sealed:
        train(sealed, tmp_path / "run", read_config(complete))
        assert folder_bytes(tmp_path / "run" / "best") == folder_bytes(complete / "best")
        scores = evaluate(tmp_path / "run", sealed, n_replicates=0).metrics.to_dict()
    assert scores == evaluate(complete, small_store, n_replicates=0, save=False).metrics.to_dict()


def read_config(run: Path) -> TrainConfig:
    return TrainConfig.from_dict(yaml.safe_load((run / "config.yaml").read_text()))


def test_equal_seeds_give_equal_runs_and_other_seeds_other_weights(small_store: FeatureStore, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(small_store, tmp_path / name, small_config(epochs=1, seed=seed))
    assert torch.equal(before, torch.get_rng_state())
    weights = {name: folder_bytes(tmp_path / name / "best")["model.safetensors"] for name in "abc"}
    assert weights["a"] == weights["b"] != weights["c"]
    splits = {name: Split.load(tmp_path / name / "splits.json").ids for name in "ac"}
    assert splits["a"] == splits["c"]


def test_deterministic_run_refuses_to_resume_with_other_settings(small_store: FeatureStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(small_store, run, small_config(epochs=1, deterministic=True))
    assert not torch.are_deterministic_algorithms_enabled()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(RunError, match=rf"threads: {threads + 1}, was {threads}.*OMP_NUM_THREADS"):
            train(small_store, run, small_config(epochs=2, deterministic=True), resume=True)
        train(small_store, tmp_path / "free", small_config(epochs=1))
        torch.set_num_threads(threads)
        result = train(small_store, tmp_path / "free", small_config(epochs=2), resume=True)
        assert any("differ in their last bits" in warning for warning in result.warnings)
    finally:
        torch.set_num_threads(threads)
    assert len(train(small_store, run, small_config(epochs=2, deterministic=True), resume=True).history) == 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and there is no g++")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # raised within torch
def test_compiled_run_has_the_same_losses(small_store: FeatureStore, tmp_path: Path) -> None:
    """Lyrics only, since compiling the audio encoder takes a minute."""
    options: dict[str, Any] = {
        "modalities": "lyrics",
        "head": "linear",
        "epochs": 2,
        "model_options": {**SMALL["model_options"], "dropout": 0.0},
    }
    plain = train(small_store, tmp_path / "plain", small_config(**options))
    torch._dynamo.utils.counters.clear()
    compiled = train(small_store, tmp_path / "compiled", small_config(**options, compile=True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # the model was in fact compiled
    for record, expected in zip(compiled.history, plain.history, strict=True):
        assert record.loss == pytest.approx(expected.loss, rel=1e-5)
        assert record.val_bce == pytest.approx(expected.val_bce, rel=1e-5)


def test_failed_compilation_is_a_training_error() -> None:
    class NoCompilerError(RuntimeError): ...

    NoCompilerError.__module__ = "torch._inductor.exc"
    with pytest.raises(TrainingError, match=r"compile: .*\(no g\+\+\). Train without compile"), compiling(True):
        raise NoCompilerError("no g++\nand more")
    with pytest.raises(NoCompilerError), compiling(False):
        raise NoCompilerError
    with pytest.raises(RuntimeError, match="shape"), compiling(True):
        raise RuntimeError("shape")


def test_operation_without_deterministic_algorithm_is_refused() -> None:
    before = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    with deterministic(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == before
    values = torch.rand(1, 1, 4, 4, requires_grad=True)
    pooled, indices = torch.nn.functional.max_pool2d(values, 2, return_indices=True)
    with pytest.raises(TrainingError, match="max_unpooling2d.*Train without"), deterministic(True):
        torch.nn.functional.max_unpool2d(pooled, indices, 2)
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == before


@pytest.mark.parametrize(("feature", "check_every"), [("mel", 1), ("lyrics", 1), ("lyrics", 16)])  # 16: as on a GPU
def test_features_that_are_not_finite_stop_the_run_with_the_track(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feature: str, check_every: int
) -> None:
    monkeypatch.setitem(loop._CHECK_EVERY, "cpu", check_every)
    world = make_world()
    healthy = world.write(tmp_path / "healthy.zarr")
    train(healthy, tmp_path / "healthy", small_config(epochs=1))
    victim = Split.load(tmp_path / "healthy" / "splits.json").ids["train"][2]
    row = int(victim[1:])
    world.lyrics_tokens[row] = 9
    getattr(world, feature)[row, 3, 3] = np.nan
    with pytest.raises(TrainingError, match=rf"features of {victim} are|track '{victim}' .*mel is not"):
        train(world.write(tmp_path / "s.zarr"), tmp_path / "run", small_config())
    assert not (tmp_path / "run" / "best").exists()


def test_loss_that_is_not_finite_is_reported_with_the_batch(small_store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"batch of t0.*lower --lr"):
        train(small_store, tmp_path / "run", small_config(lr=1e30))


def test_early_stopping_follows_patience(small_store: FeatureStore, tmp_path: Path) -> None:
    result = train(small_store, tmp_path / "run", small_config(epochs=12, patience=2, lr=0.0))
    assert result.stopped_early
    assert (result.best_epoch, len(result.history)) == (1, 3)
    assert (
        len(train(small_store, tmp_path / "run", small_config(epochs=12, patience=2, lr=0.0), resume=True).history) == 3
    )


def test_counts_of_filters_are_in_order_of_application(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    for track in world.tracks[:4]:
        track["genres"] = ["spoken word"]
    world.tracks[4]["genres"] = []
    world.failed.add(5)
    config = small_config(
        epochs=1,
        split="random",
        genres=("rock", "jazz", "spoken word", "folk"),
        top_genres=3,
        min_genre_count=5,
        min_labels=1,
    )
    result = train(world.write(tmp_path / "s.zarr"), tmp_path / "run", config)
    steps = [(count.filter, count.kept, count.of) for count in result.task.filters]
    assert steps[:4] == [("labelled", 38, 39), ("genres", 4, 6), ("top_genres=3", 3, 4), ("min_genre_count=5", 3, 3)]
    assert result.task.genres.names == ("rock", "jazz", "folk")
    assert sum(of for _, _, of in steps[4:]) == 38
    assert result.task.n_train == steps[4][1] < steps[4][2]


@pytest.mark.parametrize(
    "options",
    [
        {"contrastive": False},
        {"attention": False},
        {"head": "linear"},
        {"head": "query"},
        {"modalities": "audio", "attention": False, "contrastive": False},
        {"modalities": "lyrics", "attention": False, "contrastive": False},
    ],
)
def test_every_ablation_trains_and_evaluates(
    small_store: FeatureStore, tmp_path: Path, options: dict[str, Any]
) -> None:
    result = train(small_store, tmp_path / "run", small_config(epochs=2, **options))
    assert result.history[1].classification < result.history[0].classification
    assert evaluate(tmp_path / "run", small_store, n_replicates=0).metrics.n_tracks == 8


def test_store_without_text_trains_audio_only(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    world.recipe = dataclasses.replace(world.recipe, lyrics=None)
    store = world.write(tmp_path / "s.zarr")
    with pytest.raises(ConfigError, match="no text features"):
        train(store, tmp_path / "run", small_config())
    options = {"modalities": "audio", "attention": False, "contrastive": False, "head": "linear"}
    assert train(store, tmp_path / "run", small_config(epochs=1, **options)).history[0].contrastive == 0


def test_constant_scores_give_a_warning(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    world.mel[:], world.mel_frames[:] = world.mel[0], world.mel_frames[0]
    config = small_config(epochs=1, modalities="audio", attention=False, contrastive=False)
    result = train(world.write(tmp_path / "same.zarr"), tmp_path / "same", config)
    assert "learned nothing" in result.warnings[-1]
    result = train(make_world().write(tmp_path / "s.zarr"), tmp_path / "run", config)
    assert not any("learned nothing" in warning for warning in result.warnings)


def test_last_epoch_is_the_best_without_validation_labels(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    for i, track in enumerate(world.tracks):
        track["split"] = "train" if i < 36 else "val"
        track["genres"] = ["rock"] if i < 36 else ["rare"]
    result = train(world.write(tmp_path / "s.zarr"), tmp_path / "run", small_config(epochs=2))
    assert result.best_epoch == 2
    assert result.best_map is None
    assert result.thresholds.overall == 0.5
    assert any("no validation track" in warning for warning in result.warnings)
    assert any("not learned: rare" in warning for warning in result.warnings)


def test_unknown_model_option_is_refused(small_store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model_options: unknown option 'widht'.*did you mean 'width'"):
        train(small_store, tmp_path / "run", small_config(model_options={"widht": 3}))


def test_loss_halves_in_bf16(small_store: FeatureStore, tmp_path: Path) -> None:
    result = train(small_store, tmp_path / "run", small_config(epochs=6, lr=2e-3, precision="bf16"))
    assert result.history[-1].loss < result.history[0].loss / 2


def test_intervals_are_computed_once_and_are_those_of_an_interrupted_run(
    small_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []

    def count(*arguments: Any, n_replicates: int = CARD_REPLICATES) -> dict[str, dict[str, float | None]]:
        computed.append(n_replicates)
        return validation_intervals(*arguments, n_replicates=n_replicates)

    monkeypatch.setattr(train_module, "validation_intervals", count)
    train(small_store, tmp_path / "run", small_config(epochs=2))
    assert computed.count(CARD_REPLICATES) == 1
    best = folder_bytes(tmp_path / "run" / "best")
    assert "validation_intervals" in json.loads(best["config.json"])

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(train_module._Training, "_publish_intervals", kill)
        with pytest.raises(KeyboardInterrupt):
            train(small_store, tmp_path / "killed", small_config(epochs=2))
    interim = folder_bytes(tmp_path / "killed" / "best")
    assert "validation_intervals" not in json.loads(interim["config.json"])
    assert b"after the last epoch" in interim["README.md"]
    train(small_store, tmp_path / "killed", small_config(epochs=2), resume=True)
    assert folder_bytes(tmp_path / "killed" / "best") == best
