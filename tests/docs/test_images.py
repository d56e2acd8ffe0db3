"""The images of README and docs: each is used, and the dark diagram differs from the light one by its colours only."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "docs" / "images").iterdir())
COLOUR = re.compile(r"#[0-9a-f]{6}\b")


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_every_image_is_used_by_a_page(image: Path) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(f"images/{image.name}" in page.read_text(encoding="utf-8") for page in pages)


@pytest.mark.parametrize("image", [path for path in IMAGES if path.suffix == ".svg"], ids=lambda path: path.name)
def test_svg_images_load_nothing(image: Path) -> None:
    text = image.read_text(encoding="utf-8")
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert re.findall(r"(?:href|src)=|url\((?!#)|<script", text) == []


def test_light_and_dark_diagram_differ_by_colours_only() -> None:
    light, dark = ((ROOT / "docs" / "images" / f"overview-{name}.svg").read_text("utf-8") for name in ("light", "dark"))
    assert COLOUR.sub("", light) == COLOUR.sub("", dark)
    assert not set(COLOUR.findall(light)) & set(COLOUR.findall(dark))
