"""The source files of the package, for the tests that check each of them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
"""Top-level folders of the package."""


def source_files() -> list[Path]:
    """Return every module of the package, at the root and in all folders, sorted."""
    return sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))])
