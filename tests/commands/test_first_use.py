"""The first hour with mgc: messages and listings that a newcomer meets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer

from mgc.cache.format.meanings import unusual_flags
from mgc.cli import app
from mgc.pipeline.sources.table_source import DESCRIPTIONS

MOST_WORDS = 12
"""Longest help text of an option."""

TYPER_OPTIONS = ("help", "install_completion", "show_completion")


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Two songs of two seconds with lyrics next to them, and a text that belongs to no song."""
    folder = tmp_path / "songs"
    folder.mkdir()
    for i in range(2):
        tone = 0.3 * np.sin(2 * np.pi * 220 * (i + 1) * np.arange(44_100) / 22_050)
        soundfile.write(folder / f"{i}.wav", tone.astype(np.float32), 22_050)
        (folder / f"{i}.txt").write_text("some words\n")
    (folder / "notes.txt").write_text("no lyrics")
    return folder


def extract(call: Callable[..., Any], source: Path, store: Path, *more: object) -> Any:
    return call("extract", source, "-o", store, "--features", "mel", "--workers", 0, "--clip-s", 1, *more)


def test_matched_lyrics_are_reported_and_whole_songs_are_not_unusual(
    call: Callable[..., Any], songs: Path, tmp_path: Path
) -> None:
    done = extract(call, songs, tmp_path / "s.zarr")
    assert "2 lyrics files matched to songs by name" in done.err
    assert "1 table or text is not used" in done.err
    assert "LONG" not in done.out
    call("report", tmp_path / "s.zarr", "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<th scope=row>NO_<wbr>LABEL</th>" in page
    assert "<th scope=row>LONG" not in page
    info = call("store", "info", tmp_path / "s.zarr")
    assert "LONG" not in info.out
    assert re.search(r"format 1, \d+\.\d kB$", info.out.splitlines()[0]), info.out
    described = call("store", "info", tmp_path / "s.zarr", "--json").json
    assert described["flags"]["LONG"] == 2
    assert unusual_flags({"LONG": 2, "SILENT": 1}) == {"SILENT": 1}
    arrays = {array["name"]: array for array in described["arrays"]}
    assert arrays["mel"]["dims"] == ["track", "mel_band", "frame"]
    assert arrays["mel"]["shape"] == [16, 128, 44]  # rows of whole parts


def test_absolute_paths_are_read_inside_the_root_and_else_point_to_it(
    call: Callable[..., Any], songs: Path, tmp_path: Path
) -> None:
    rows = [{"id": f"t{i}", "path": str(songs / f"{i}.wav"), "genres": ["rock"]} for i in range(2)]
    lists = tmp_path / "lists"
    lists.mkdir()
    for table in (tmp_path / "tracks.jsonl", lists / "tracks.jsonl"):
        table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert extract(call, tmp_path / "tracks.jsonl", tmp_path / "inside.zarr").code == 0
    refused = extract(call, lists / "tracks.jsonl", tmp_path / "outside.zarr")
    assert (refused.code, f"Give --root {songs}." in refused.err) == (2, True)
    assert extract(call, lists / "tracks.jsonl", tmp_path / "outside.zarr", "--root", songs).code == 0
    (lists / "tracks.jsonl").write_text("".join(f"{json.dumps(row | {'path': '/away/a.wav'})}\n" for row in rows))
    failed = extract(call, lists / "tracks.jsonl", tmp_path / "away.zarr", "--root", songs)
    assert failed.code == 3
    assert "(PATH_ESCAPE), first 't0'. Give the folder that holds all files with --root." in failed.err


def test_help_of_labels_lists_the_columns_that_are_read(call: Callable[..., Any]) -> None:
    columns = {column for column in DESCRIPTIONS if column not in ("artists", "title")} | {"id", "path"}
    for command in ("manifest", "extract", "plan"):
        text = dict(help_texts())[f"mgc {command}", "labels"]
        assert columns <= set(re.findall(r"\w+", text))


def help_texts(command: Any = None, name: str = "mgc") -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the command and name of each visible option and argument, with its help."""
    command = command or typer.main.get_command(app)
    for parameter in command.params:
        if not getattr(parameter, "hidden", False) and parameter.name not in TYPER_OPTIONS:
            yield (name, parameter.name), parameter.help or ""
    for child, sub in getattr(command, "commands", {}).items():
        yield from help_texts(sub, f"{name} {child}")


def commands(command: Any = None, name: str = "mgc") -> Iterator[tuple[str, Any]]:
    command = command or typer.main.get_command(app)
    for child, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, f"{name} {child}") if hasattr(sub, "commands") else [(f"{name} {child}", sub)]


def test_help_of_an_option_is_one_short_phrase() -> None:
    texts = list(help_texts())
    assert len(texts) > 150
    for place, text in texts:
        assert text.endswith("."), place
        assert 1 <= len(text.split()) <= MOST_WORDS, (place, text)


def test_examples_stand_one_per_line_and_fit_a_terminal() -> None:
    for name, command in commands():
        title, *examples = command.help.partition("\n\nExample")[2].rstrip().split("\n")
        examples = [line for line in examples if line.strip()]
        examples = examples[: next((i for i, line in enumerate(examples) if not line.startswith("  ")), None)]
        assert title == ("s:" if len(examples) > 1 else ":"), name
        for line in examples:
            assert re.match(rf"  (\S.* \| )?{name} ?", line), (name, line)
            assert len(line) <= 78, line
