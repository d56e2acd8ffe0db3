"""Test that every script of benchmarks/ imports, and that every result page names its script."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest
from source_tree import ROOT

FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(path.relative_to(ROOT).with_suffix("") for path in FOLDER.rglob("*.py"))
RESULTS = sorted(FOLDER.glob("*/*.md"))


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_every_script_imports(script: Path) -> None:
    importlib.import_module(".".join(script.parts))


def test_folders_have_at_most_15_scripts() -> None:
    in_folder = Counter(script.parent for script in SCRIPTS)
    assert {str(folder): n for folder, n in in_folder.items() if n > 15} == {}


@pytest.mark.parametrize("result", RESULTS, ids=lambda path: path.name)
def test_every_result_names_its_script(result: Path) -> None:
    text = result.read_text(encoding="utf-8")
    scripts = re.findall(r"benchmarks[./](\w+)[./](\w+)(?:\.py)?", text)
    assert scripts, f"{result} names no script of benchmarks/"
    missing = [f"{folder}/{name}" for folder, name in scripts if not list((FOLDER / folder).glob(f"{name}*"))]
    assert missing == []
