"""The commands and the Python of README and docs/, run unchanged in a folder with a few generated songs.

To save time, the tests add options for a short clip, a small model and the local text model, and remove nothing. A
block that cannot run here has an HTML comment with the reason in the line below it, which readers do not see. Its
commands and options must exist all the same.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from typer.main import get_command

import mgc
from mgc import api, cli
from mgc.cache.writing.takedowns import drop
from mgc.pipeline.synth.world import make_collection

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
WRITTEN = [
    *PAGES,
    *sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("docs/design", "examples", "benchmarks")
        for path in (ROOT / folder).rglob("*.md")
    ),
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
"""Every page with links, including those that only show figures."""
BLOCK = re.compile(r"^```(sh|bash|python)\n(.*?)^```\n(?:\n?(<!-- Not run in the tests: .+? -->)$)?", re.M | re.S)
ELSEWHERE = {"mgc demo": "tests/commands/test_demo.py"}
"""Commands that have a test of their own."""
SMALLER = {
    "mgc extract": ["--clip-s", "2", "--workers", "0"],
    "mgc plan": ["--clip-s", "2", "--workers", "0", "--sample", "4"],
    "mgc train": ["--encoder", "tiny", "--epochs", "1", "--split", "random"],
    "mgc ablate": ["--encoder", "tiny", "--epochs", "1", "--seeds", "1", "--tables", "systems"],
}
ALL = get_command(cli.app)
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the pages assume: songs, the same in the layout of Music4All, tables, a new song."""
    folder = tmp_path_factory.mktemp("reader")
    music4all = make_collection(folder / "music4all", 24, clip_s=3.0, workers=2)
    shutil.copytree(music4all, folder / "demo" / "songs")
    songs = folder / "songs"
    shutil.copytree(music4all / "audios", songs)
    for words in sorted((music4all / "lyrics").glob("*.txt")):
        shutil.copyfile(words, songs / words.name)
    rows = [line.split("\t") for line in (music4all / "id_genres.csv").read_text().splitlines()[1:]]
    table = [f'{name}.mp3,"{genres}"\n' for name, genres in rows]
    (folder / "genres.csv").write_text("id,genres\n" + "".join(table))
    numbered = [line.replace(".mp3,", f".mp3,{i},", 1) for i, line in enumerate(table)]
    (folder / "tracks.csv").write_text("path,id,genres\n" + "".join(numbered))
    first = rows[0][0]
    for name in ("new", "song"):
        shutil.copyfile(songs / f"{first}.mp3", folder / f"{name}.mp3")
    (folder / "new.txt").write_text("la la la")
    (folder / "demo" / "new").mkdir()
    for suffix in (".mp3", ".txt"):
        shutil.copyfile(songs / f"{first}{suffix}", folder / "demo" / "new" / f"{first}{suffix}")
    return folder


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same folder with a store and two runs, for the pages that continue from there."""
    folder = tmp_path_factory.mktemp("trained") / "reader"
    shutil.copytree(world, folder)
    songs = api.read_source(folder / "songs", labels=folder / "genres.csv", genre_delimiter=",").source
    api.extract(songs, folder / "songs.zarr", text_model="minilm", workers=0, clip_s=2.0)
    for name, modalities in (("both", "both"), ("audio", "audio")):
        small = {"encoder": "tiny", "epochs": 1, "split": "random", "modalities": modalities}
        api.train(folder / "songs.zarr", folder / "runs" / name, options=small)
        api.evaluate(folder / "runs" / name, folder / "songs.zarr")
    return folder


LINK = re.compile(r"""(?:\]\(|src=["']|srcset=["'])(?!https?:|mailto:)([^)#\s"']*)(#[^)\s"']*)?[)"']""")


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub and mkdocs build them."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", WRITTEN)
def test_every_link_leads_somewhere_in_a_clone(page: str) -> None:
    file = ROOT / page
    for target, anchor in LINK.findall(file.read_text(encoding="utf-8")):
        there = file.parent / target if target else file
        assert there.exists(), f"{page}: there is no {target}"
        if anchor:
            assert anchor[1:] in headings(there), f"{page}: {target} has no heading {anchor}"


def test_the_page_about_xarray_finds_what_mgc_finds(tmp_path: Path, songs_store: Path, monkeypatch: Any) -> None:
    shutil.copytree(songs_store, tmp_path / "songs.zarr")
    monkeypatch.chdir(tmp_path)
    drop(tmp_path / "songs.zarr", ["song04"], planned=["song04"])
    names: dict[str, Any] = {}
    plain = [code for kind, code, _ in blocks("docs/xarray.md") if kind == "python" and "import mgc" not in code]
    exec(compile("\n".join(plain), "docs/xarray.md", "exec"), names)
    found, ours = names["songs"], mgc.to_xarray(mgc.open("songs.zarr"))
    assert found["track"].values.tolist() == ours["track"].values.tolist()
    assert "song04" not in found["track"].values
    for name in ("mel", "labels", "split", "language", "lyrics_pooled"):
        one, other = (data[name].sortby("genre") if name == "labels" else data[name] for data in (found, ours))
        np.testing.assert_array_equal(one.values, other.values)
    assert found["mel"].chunks[0] == (8, 8, 6), (
        "a chunk a part of 8 rows, without the failed track and the one taken down"
    )
    assert names["test"]["track"].values.tolist() == mgc.open("songs.zarr").sel(split="test").tracks["id"].to_pylist()


def blocks(page: str) -> list[tuple[str, str, bool]]:
    """Return language, text and whether it runs, for each block of commands or Python."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [(kind, code, not mark) for kind, code, mark in BLOCK.findall(text)]


def commands(code: str) -> list[list[str]]:
    """Return the words of each command of a block, without comments."""
    lines = re.sub(r"\\\n", " ", code).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def named(words: list[str]) -> tuple[str, click.Command] | None:
    """Return ``mgc store info`` and its command, for words that call mgc."""
    start = next((i for i, word in enumerate(words) if word == "mgc" or word.endswith("/mgc")), None)
    if start is None or start + 1 == len(words):
        return None
    command, name = ALL, "mgc"
    for word in words[start + 1 :]:
        if not hasattr(command, "commands"):
            break
        if word.startswith(("-", ">")):
            return None
        assert word in command.commands, f"{shlex.join(words)}: {name} has no command {word!r}"
        command, name = command.commands[word], f"{name} {word}"
    return name, command


def check_options(words: list[str]) -> None:
    found = named(words)
    if found:
        known = {"--help"}.union(*(parameter.opts for parameter in found[1].params))
        unknown = {word for word in words if re.fullmatch(r"--[a-z][a-z-]*", word)} - known
        assert not unknown, f"{shlex.join(words)}: {found[0]} has no option {', '.join(unknown)}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_exists_with_its_options(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for kind, code, _ in blocks(page):
        for words in commands(code) if kind != "python" else []:
            check_options(words)
    for span in re.findall(r"`(mgc [^`]+)`", text):
        check_options(shlex.split(span.replace("\n", " ").replace("...", "")))


def continues(page: str) -> bool:
    """Whether a page starts from a store and runs that its reader already has."""
    shell = [code for kind, code, runs in blocks(page) if runs and kind != "python"]
    lines = [shlex.join(words) for code in shell for words in commands(code)]
    first = next((line for line in lines if re.search(r"songs\.zarr|runs/", line)), "mgc extract")
    return not first.startswith("mgc extract") and not any(kind == "python" for kind, *_ in blocks(page))


@pytest.mark.parametrize("page", [page for page in PAGES if any(runs for *_, runs in blocks(page))])
def test_a_page_does_what_it_says(
    page: str, request: pytest.FixtureRequest, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "reader"
    shutil.copytree(request.getfixturevalue("trained" if continues(page) else "world"), place)
    monkeypatch.chdir(place)
    names: dict[str, Any] = {}
    for kind, code, runs in blocks(page):
        if not runs:
            continue
        makes_store = kind != "python" and ("songs.zarr" not in code or "mgc extract" in code)
        if not makes_store and not (place / "songs.zarr").exists():
            shutil.copytree(request.getfixturevalue("songs_store"), place / "songs.zarr")
        if kind == "python":
            exec(compile(code, page, "exec"), names)
            continue
        for words in commands(code):
            found = named(words)
            assert found, (
                f"{page}: {shlex.join(words)} is not a command of mgc, and no comment below its block has the reason"
            )
            name, _ = found
            if name in ELSEWHERE:
                assert f'("{name.removeprefix("mgc ")}",' in (ROOT / ELSEWHERE[name]).read_text(), "that test is gone"
                continue
            more = list(SMALLER.get(name, []))
            if name in ("mgc extract", "mgc plan") and "--text-model" not in words:
                more += ["--text-model", "minilm"]
            if name in ("mgc store drop", "mgc explain"):
                first = mgc.open("songs.zarr").tracks["id"][0].as_py()
                words = [first if word in ("ID", "TRACK") else word for word in words]
            done = call(*words[1:], *more)
            assert done.code == 0, f"{page}: {shlex.join(words)}\n{done.out}\n{done.err}"
