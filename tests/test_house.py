"""The structure of the package: small folders, imports in one direction, no cycles."""

from __future__ import annotations

import graphlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import grimp
import pytest
from source_tree import ROOMS, ROOT, source_files

MAX_FILES, MAX_LINES = 15, 400


def test_no_folder_above_15_files_and_no_file_above_400_lines() -> None:
    files = [path for path in source_files() if path.name != "__init__.py"]
    in_folder = Counter(path.parent for path in files)
    assert {str(folder): n for folder, n in in_folder.items() if n > MAX_FILES} == {}
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in source_files()}
    assert {path: n for path, n in lines.items() if n > MAX_LINES} == {}


def test_no_import_cycle_between_files() -> None:
    """Include imports inside functions and under TYPE_CHECKING."""
    graph = grimp.build_graph("mgc", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_import_contracts_hold() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_is_in_the_contracts_and_in_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    whole = settings["importlinter"]["contracts"][0]["layers"]  # the contracts of single rooms are exhaustive
    assert {f"mgc.{room}" for room in ROOMS} <= {name for layer in whole for name in layer.split(" | ")}
    folders = {path.parent.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    assert set(settings["setuptools"]["packages"]) == {"mgc", *(".".join(("mgc", *folder.parts)) for folder in folders)}


def test_init_files_contain_only_a_docstring() -> None:
    """Child processes import them, so they must be light. Only mgc.api exports names."""
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("__init__.py") if room != "api"):
        text = path.read_text(encoding="utf-8").strip()
        assert text == "" or (text.startswith('"""') and text.endswith('"""') and text.count('"""') == 2), path


def test_files_in_readmes_exist() -> None:
    """A README refers to files of its folder by name, and to others by their path from the root."""
    gone = []
    for readme in (path for room in (*ROOMS, "benchmarks", "tests") for path in (ROOT / room).rglob("README.md")):
        for name in re.findall(r"`([a-z_0-9/]+\.py)`", readme.read_text(encoding="utf-8")):
            if not ((ROOT / name).is_file() or any(readme.parent.rglob(name)) or (readme.parents[1] / name).is_file()):
                gone.append(f"{readme.relative_to(ROOT)}: {name}")
    assert gone == []
