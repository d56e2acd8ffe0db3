"""The screenshots of the README: size of the first screen, and a small palette."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import screenshots
from benchmarks.chromium import Chromium


def test_screenshots_have_the_stated_size_in_both_schemes(
    evaluated_run: Path, browser: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["screenshots", str(evaluated_run), "--output", str(tmp_path / "images")])
    screenshots.main()
    corners = {}
    for scheme in ("light", "dark"):
        data = (tmp_path / "images" / f"report-{scheme}.png").read_bytes()
        image = Image.open(io.BytesIO(data))
        assert image.size == (screenshots.WIDTH_PX, screenshots.HEIGHT_PX)
        assert len(data) < 150_000
        corners[scheme] = image.convert("L").getpixel((2, screenshots.HEIGHT_PX - 2))
    assert corners["light"] > 200 > 60 > corners["dark"]
