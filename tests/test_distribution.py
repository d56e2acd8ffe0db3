"""The name of the distribution, and what its command reports where another package is called mgc."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from source_tree import ROOT, source_files

from mgc.cache.distribution import NAME, __version__, install_command

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OTHER = "Metadata-Version: 2.1\nName: mgc\nVersion: 0.0.1\nSummary: A comprehensive independence testing package\n"


def run_command(*folders: Path) -> subprocess.CompletedProcess[str]:
    """Run ``mgc --version`` through its entry point, with these folders first on the import path."""
    path = os.pathsep.join(map(str, [*folders, ROOT / "launcher"]))
    script = "import sys; sys.argv = ['mgc', '--version']; import mgc_music; mgc_music.main()"
    environment = os.environ | {"PYTHONPATH": path + os.pathsep + os.environ.get("PYTHONPATH", "")}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd="/")


def write_distribution(site: Path, entry_point: str = "") -> None:
    folder = site / "mgc-0.0.1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(OTHER)
    if entry_point:
        (folder / "entry_points.txt").write_text(f"[console_scripts]\nmgc = {entry_point}\n")


def test_name_and_version_are_those_of_pyproject() -> None:
    assert (NAME, __version__) == (PROJECT["name"], PROJECT["version"])


def test_the_command_runs_where_nothing_shadows_it() -> None:
    done = run_command()
    assert (done.returncode, done.stdout.strip()) == (0, __version__), done.stderr


def test_another_distribution_called_mgc_is_reported_with_what_to_do(tmp_path: Path) -> None:
    write_distribution(tmp_path)
    done = run_command(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the distribution mgc 0.0.1 is another project")
    assert str(tmp_path / "mgc") in done.stderr
    assert "pip uninstall mgc" in done.stderr
    assert f"--no-deps {NAME}" in done.stderr


@pytest.mark.parametrize("entry_point", ["mgc.cli:main", "mgc_music:main"])
def test_an_earlier_installation_of_this_project_is_no_conflict(tmp_path: Path, entry_point: str) -> None:
    write_distribution(tmp_path, entry_point)
    assert run_command(tmp_path).returncode == 0


@pytest.mark.parametrize("source", ["__version__ = '0.0.1'\n", "raise ImportError('numba')\n"])
def test_a_package_that_shadows_mgc_is_reported_by_its_folder(tmp_path: Path, source: str) -> None:
    (tmp_path / "mgc").mkdir()
    (tmp_path / "mgc" / "__init__.py").write_text(source)
    done = run_command(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: `import mgc` loads another package than mgc-music: {tmp_path / 'mgc'}.")
    assert "PYTHONPATH" in done.stderr


def test_advice_to_install_an_extra_names_this_distribution_and_an_extra_that_exists() -> None:
    """In code, tests, benchmarks and documentation: ``mgc[extra]`` would install another project."""
    pages = [path for path in ROOT.rglob("*.md") if not {".venv", "build", "demo"} & set(path.parts)]
    folders = ("benchmarks", "examples", "tests")
    scripts = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    wrong, extras = [], {re.search(r"\[(\w+)\]", install_command("all"))[1]}  # type: ignore[index]
    for path in (*pages, *source_files(), *scripts, ROOT / "pyproject.toml"):
        text = path.read_text(encoding="utf-8")
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in re.findall(r"(?<![\w`-])mgc\[[a-z,]+\]", text)]
        for names in re.findall(r"mgc-music\[([a-z,]+)\]", text):
            extras.update(names.split(","))
        extras.update(re.findall(r"(?:\bextra|install_command)\([\"'](\w+)[\"']\)", text))
    assert wrong == []
    assert extras <= set(PROJECT["optional-dependencies"])
