"""Every script of benchmarks/ can be started, and every result names the script that printed it."""

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


def test_the_folders_stay_small() -> None:
    in_folder = Counter(script.parent for script in SCRIPTS)
    assert {str(folder): n for folder, n in in_folder.items() if n > 15} == {}


@pytest.mark.parametrize("result", RESULTS, ids=lambda path: path.name)
def test_every_result_names_its_script(result: Path) -> None:
    text = result.read_text(encoding="utf-8")
    named = re.findall(r"benchmarks[./](\w+)[./](\w+)(?:\.py)?", text)
    assert named, f"{result} names no script of benchmarks/"
    missing = [f"{folder}/{name}" for folder, name in named if not list((FOLDER / folder).glob(f"{name}*"))]
    assert missing == []
