"""No text counts artists, or claims a bootstrap over artists, where the artists of the tracks are unknown."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgc.heads.metrics import bootstrap

TRAIN = ("--encoder", "tiny", "--set", "width=32", "--epochs", 1, "--lr", 1e-3, "--modalities", "audio")
NO_CLAIM = re.compile(r"\b\d+ artists?\b|(over|of|resample|few|all|than \d+) artists", re.IGNORECASE)


@pytest.fixture(scope="module")
def few() -> Any:
    """Let two groups be enough for an interval, so that the texts about intervals are printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "FEW_GROUPS", 2)
        yield


def texts_of(call: Callable[..., Any], store: Path, run: Path) -> dict[str, str]:
    """Train, evaluate and compare runs; return the printed texts and the pages."""
    assert call("train", store, "-o", run, *TRAIN).code == 0
    texts = {"evaluate": call("evaluate", run, store).out}
    other = shutil.copytree(run, run.with_name("other"))
    compared = call("compare", run, other)
    texts |= {"compare": compared.out + compared.err, "card": (run / "best" / "README.md").read_text()}
    call("report", run, other, "-o", run.with_name("pair.html"))
    pages = {"report": run / "report.html", "comparison": run.with_name("pair.html")}
    for name, page in pages.items():
        body = page.read_text().partition("<main>")[2]
        texts[name] = html.unescape(re.sub(r"<[^>]*>", " ", body))
    return {name: " ".join(text.split()) for name, text in texts.items()}


@pytest.mark.usefixtures("few")
def test_unknown_artists_are_not_counted(call: Callable[..., Any], make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    for track in world.tracks:
        track["artists"] = []
    world.write(tmp_path / "s.zarr").close()
    texts = texts_of(call, tmp_path / "s.zarr", tmp_path / "run")
    for name, text in texts.items():
        assert "by unknown artists" in text, name
        # the card's sentence on the split, and the warning about it, are about possible common artists
        assert [match[0] for match in NO_CLAIM.finditer(text)] == [], name
        assert re.search("bootstrap over tracks|bootstrap draws of tracks", text), name


@pytest.mark.usefixtures("few")
def test_partly_known_artists_are_counted_as_groups(call: Callable[..., Any], make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    for i, track in enumerate(world.tracks):
        track["artists"] = [] if i % 4 == 0 else track["artists"]
        track["split"] = ("train", "val", "test")[i // 16]
    world.write(tmp_path / "s.zarr").close()
    texts = texts_of(call, tmp_path / "s.zarr", tmp_path / "run")
    for name, text in texts.items():
        n, of = ("12", "16") if name == "card" else ("6", "8")
        assert f"groups (artist known for {n} of {of} tracks)" in text, name
        assert re.search("(over|of) artists, and tracks of unknown artists", text), name
