"""Arguments in the wrong place or of the wrong kind: the message states what is there, and what is expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mgc.cache.reading.store import FeatureStore
from mgc.cli import app


@pytest.mark.parametrize(
    "command", [("evaluate", "{store}", "{run}"), ("predict", "{store}", "{run}"), ("compare", "{store}", "{run}")]
)
def test_store_in_the_place_of_a_run_is_reported_as_such(
    call: Callable[..., Any], small_store: FeatureStore, evaluated_run: Path, command: tuple[str, ...]
) -> None:
    done = call(*(word.format(store=small_store.path, run=evaluated_run) for word in command))
    assert done.code == 2
    assert f"{small_store.path}: a feature store, where a run is expected. The run comes first" in done.err


@pytest.mark.parametrize("command", [("train",), ("train", "--dry-run"), ("ablate",)])
def test_store_as_the_folder_of_a_run_is_refused(
    call: Callable[..., Any], small_store: FeatureStore, command: tuple[str, ...]
) -> None:
    before = sorted(small_store.path.rglob("*"))
    done = call(command[0], small_store.path, "-o", small_store.path, *command[1:])
    assert (done.code, "a feature store. Give another folder" in done.err) == (2, True), done.err
    assert sorted(small_store.path.rglob("*")) == before


def test_resume_is_advised_only_where_a_training_was_interrupted(
    call: Callable[..., Any], small_store: FeatureStore, tmp_path: Path
) -> None:
    for command in (("evaluate", tmp_path / "away", small_store.path), ("compare", tmp_path / "away", tmp_path)):
        absent = call(*command)
        assert (absent.code, f"{tmp_path / 'away'}: no such folder" in absent.err) == (2, True)
        assert "--resume" not in absent.err
    (tmp_path / "begun").mkdir()
    assert "--resume" not in call("evaluate", tmp_path / "begun", small_store.path).err
    (tmp_path / "begun" / "config.yaml").write_text("{}")
    begun = call("evaluate", tmp_path / "begun", small_store.path)
    assert f"`mgc train STORE -o {tmp_path / 'begun'} --resume`" in begun.err


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from commands(child, (*path, name))
    if not children:
        yield path, command


def test_no_value_is_refused_in_the_terms_of_pydantic(call: Callable[..., Any]) -> None:
    """Every option whose parser refuses a word is given one; the others would start the command."""
    refused = 0
    for path, command in commands(typer.main.get_command(app)):
        for parameter in command.params:
            option = parameter.opts[0]
            try:
                command.make_context("mgc", [f"{option}=x y"])
            except typer.BadParameter as error:
                is_refused = getattr(error.param, "name", None) == parameter.name and not parameter.required
            except Exception:
                is_refused = False
            else:
                is_refused = False
            if is_refused:
                done = call(*path, f"{option}=x y")
                assert f"for '{option}'" in done.err
                assert not re.search(r"Value error|Input should|unable to parse|pydantic", done.err), (path, option)
                refused += 1
    assert refused > 30
