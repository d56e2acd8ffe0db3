"""Test what `mgc train` prints: warnings before the first step, each once, with options as one types them."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mgc.cache.messages import duration
from mgc.heads.config import TrainConfig
from mgc.heads.model.config import ModelConfig

ROOT = Path(__file__).parents[2]
TINY = ("--encoder", "tiny", "--set", "width=32")


@pytest.fixture(scope="module")
def odd_store(make_world: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 training tracks without artists; all 3 validation tracks and the test track have another genre."""
    world = make_world()
    for i, track in enumerate(world.tracks):
        track["split"] = "train" if i < 36 else "val" if i < 39 else "test"
        track["genres"] = ["rock"] if i < 36 else ["rare"]
    path = tmp_path_factory.mktemp("odd") / "odd.zarr"
    world.write(path).close()
    return path


def test_warnings_are_printed_before_the_first_step_the_most_severe_first(
    call: Callable[..., Any], odd_store: Path, tmp_path: Path
) -> None:
    done = call("train", odd_store, "-o", tmp_path / "run", *TINY, "--epochs", 1, "--lr", 1e-3)
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    (first_step,) = [i for i, line in enumerate(lines) if line.startswith("train: 1 of 1")]
    warnings = [line for line in lines[:first_step] if line.startswith("warning: ")]
    for line, start in zip(
        warnings, ("no validation track", "no test track", "1 of 2 genres have no tr"), strict=False
    ):
        assert line.startswith(f"warning: {start}")
    assert len(warnings) == len(set(warnings)) >= 3
    assert [line for line in lines if line.startswith("warning: ")] == warnings, "printed twice"
    assert "warning:" not in done.out
    assert "split manifest: train 36, validation 0, test 0" in done.out
    assert "3 of 3 validation tracks have none of the learned genres and are left out" in done.out
    assert "1 of 1 test tracks has none" in done.out


def test_json_and_dry_run_have_the_same_warnings_in_the_same_order(
    call: Callable[..., Any], odd_store: Path, tmp_path: Path
) -> None:
    command = ("train", odd_store, "-o", tmp_path / "run", *TINY, "--epochs", 1, "--json")
    forecast = call(*command, "--dry-run").json
    assert forecast["split"] == {"policy": "manifest", "train": 36, "validation": 0, "test": 0}
    done = call(*command)
    listed = [line.removeprefix("warning: ") for line in done.json["remarks"] if line.startswith("warning: ")]
    assert listed == forecast["warnings"]
    assert done.err.splitlines() == [f"warning: {warning}" for warning in listed]


def test_warnings_of_the_training_itself_are_printed_at_its_end(
    call: Callable[..., Any], make_world: Callable[..., Any], tmp_path: Path
) -> None:
    world = make_world()
    world.mel[:], world.mel_frames[:] = world.mel[0], world.mel_frames[0]
    world.write(tmp_path / "same.zarr").close()
    done = call(
        "train",
        tmp_path / "same.zarr",
        "-o",
        tmp_path / "run",
        *TINY,
        "--epochs",
        1,
        "--lr",
        1e-3,
        "--modalities",
        "audio",
    )
    lines = done.err.splitlines()
    (first_step,) = [i for i, line in enumerate(lines) if line.startswith("train: 1 of 1")]
    assert [line for line in lines[first_step:] if line.startswith("warning: ") and "learned nothing" in line]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), r"\d+ epochs of 2 steps, learning rate 0.001, by .* tracks; set them with --epochs and --lr"),
        (("--epochs", 2), "learning rate 0.001, by the number of steps; set it with --lr"),
        (("--lr", 1e-3), r"\d+ epochs of 2 steps, by the number of training tracks; set it with --epochs"),
        (("--lr", 1e-3, "--epochs", 1), None),
    ],
)
def test_only_what_a_rule_has_set_is_printed_as_set_by_a_rule(
    call: Callable[..., Any],
    small_store: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[object, ...],
    line: str | None,
) -> None:
    monkeypatch.setattr("mgc.heads.config.MAX_EPOCHS", 1)
    monkeypatch.setattr("mgc.heads.config.MIN_EPOCHS", 1)
    done = call("train", small_store.path, "-o", tmp_path / "run", *TINY, *options)
    assert done.code == 0, done.err
    assert ("set it with" in done.err or "set them with" in done.err) == (line is not None)
    assert line is None or re.search(
        rf"^train: 0 of \d+, {line}$".replace(r"\d+ epochs", r"\d+ epochs?"), done.err, re.M
    )


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and time of change of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("more", [(), ("--resume",), ("--tensorboard",)], ids=["again", "resume", "tensorboard"])
def test_training_a_finished_run_again_changes_no_file(
    call: Callable[..., Any], odd_store: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    command = ("train", odd_store, "-o", run, *TINY, "--epochs", 2, *(more if "--tensorboard" in more else ()))
    first = call(*command, "--json").json
    assert first["nothing_to_do"] is None
    before = snapshot(run)
    again = call(*command, *(more if "--resume" in more else ()))
    assert snapshot(run) == before
    assert again.out.splitlines() == [
        "nothing to do: this run is finished, with 2 epochs",
        f"report: {run / 'report.html'}",
    ]
    assert [line for line in again.err.splitlines() if not line.startswith("statistics: ")] == []
    third = call(*command, "--json").json
    assert snapshot(run) == before
    assert {**third, "remarks": None} == {**first, "nothing_to_do": third["nothing_to_do"], "remarks": None}


def test_damage_of_a_finished_run_is_repaired_and_reported(
    call: Callable[..., Any], odd_store: Path, tmp_path: Path
) -> None:
    command = ("train", odd_store, "-o", tmp_path / "run", *TINY, "--epochs", 1)
    call(*command)
    names = ("splits.json", "config.yaml", "run.json", "report.html")
    whole = {name: (tmp_path / "run" / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / "run" / name).unlink()
    again = call(*command)
    assert (again.code, "splits.json" in again.err) == (0, True)
    assert again.out.startswith("nothing to do")
    for name in ("splits.json", "config.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == whole[name]
    assert "fingerprints" in json.loads((tmp_path / "run" / "run.json").read_text())
    assert (tmp_path / "run" / "report.html").is_file()


def test_training_and_report_state_the_same_duration(call: Callable[..., Any], odd_store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    printed = call("train", odd_store, "-o", run, *TINY, "--epochs", 2).out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    took = duration(sum(line["seconds"] for line in lines))
    assert f", {took} on cpu" in printed
    assert f" in {took}." in (run / "report.html").read_text()


def test_nothing_is_called_tuned_without_a_validation_track(
    call: Callable[..., Any], make_world: Callable[..., Any], tmp_path: Path
) -> None:
    world = make_world()
    for i, track in enumerate(world.tracks):
        track["split"] = "train" if i < 30 else "val" if i < 34 else "test"
        track["genres"] = ["rare"] if 30 <= i < 34 else track["genres"]
    store, run = tmp_path / "s.zarr", tmp_path / "run"
    world.write(store).close()
    texts = {"train": call("train", store, "-o", run, *TINY, "--epochs", 2, "--lr", 1e-3).out}
    texts |= {"evaluate": call("evaluate", run, store).out, "predict": call("predict", run, store).err}
    page = (run / "report.html").read_text().partition("<main>")[2].partition(">Settings<")[0]
    texts |= {"report": re.sub(r"<[^>]*>", " ", page), "card": (run / "best" / "README.md").read_text()}
    assert "epoch 2 of 2 (the last, as there is no validation track)" in texts["train"]
    for name, text in texts.items():
        plain = " ".join(text.split())
        assert "not tuned: no validation track" in plain, name
        assert not re.search(r"(?<!not )\btuned\b|best epoch|best by validation|0 validation tracks", plain), name


def messages(source: str) -> Iterator[str]:
    """Yield the texts of a module that are no docstrings."""
    tree = ast.parse(source)
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements:
            yield node.value


def test_messages_write_training_options_as_one_types_them() -> None:
    names = {item.name for kind in (TrainConfig, ModelConfig) for item in dataclasses.fields(kind)}
    bare = re.compile(rf"(?<!--set )\b(?:{'|'.join(sorted(names))})=[\w.]+")
    in_python = {"heads/model/config.py", "heads/model/fusion.py"}  # TrainConfig settles these before they can fail
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for folder in ("api", "cache", "commands", "heads", "reports")
        for path in (ROOT / folder).rglob("*.py")
        for text in messages(path.read_text(encoding="utf-8"))
        for match in bare.finditer(text)
        if path.relative_to(ROOT).as_posix() not in in_python
    }
    assert found == set()
