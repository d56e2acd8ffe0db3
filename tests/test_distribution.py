"""The name of the distribution, and what its command reports where another package is called mgc."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
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


def test_the_installation_page_lists_every_extra_for_users() -> None:
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([\w-]+)` \|", page, re.M))
    assert listed == set(PROJECT["optional-dependencies"]) - {"dev", "docs"}


def test_the_citation_has_this_version_and_the_authors_of_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Ru", "Zhang", "Wang", "Cheng", "Xiao"]
    assert (paper["year"], paper["url"]) == (2023, PROJECT["urls"]["Paper"])


def test_badges_agree_with_pyproject() -> None:
    python, licence, typed = (
        (ROOT / "docs" / "images" / f"badge-{name}.svg").read_text(encoding="utf-8")
        for name in ("python", "licence", "typed")
    )
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"{PROJECT['requires-python'].removeprefix('>=')} or newer" in python
    assert f">{PROJECT['license']}<" in licence
    assert settings["tool"]["mypy"]["strict"]
    assert ">mypy strict<" in typed


def test_containers_and_conda_use_a_python_and_extras_of_pyproject() -> None:
    docker = (ROOT / "containers" / "Dockerfile").read_text(encoding="utf-8")
    apptainer = (ROOT / "containers" / "mgc.def").read_text(encoding="utf-8")
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (python, _, pip) = conda["dependencies"]
    versions = [*re.findall(r"python[:=](3\.\d+)", docker + apptainer), python.removeprefix("python=")]
    supported = {name.rpartition(" ")[2] for name in PROJECT["classifiers"] if ":: Python ::" in name}
    assert len(versions) == 3
    assert set(versions) <= supported
    (docker_extras,) = re.findall(r"^ARG EXTRAS=(\w+)$", docker, re.M)
    (apptainer_extras,) = re.findall(r'"\$1\[(\w+)\]"', apptainer)
    (conda_extras,) = re.findall(r"\.\[(\w+)\]", pip["pip"][1])
    assert {docker_extras, apptainer_extras, conda_extras} <= set(PROJECT["optional-dependencies"])
    wheel = f"{NAME.replace('-', '_')}-*.whl"
    for text in (docker, apptainer):
        assert wheel in text
        assert "--constraint /opt/mgc/constraints.txt" in text


def test_the_container_check_reports_what_it_cannot_check(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "containers" / "check.py"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "not checked: docker (docker is not installed)",
        "not checked: apptainer (apptainer is not installed)",
    ]


def test_the_container_check_fails_where_an_image_cannot_be_built(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\ntest "$1" = info || { echo no space left; exit 9; }\n')
    docker.chmod(0o755)
    (tmp_path / "python").write_text("#!/bin/sh\n")
    (tmp_path / "python").chmod(0o755)
    script = "import runpy, sys; sys.executable = sys.argv[2]; runpy.run_path(sys.argv[1], run_name='__main__')"
    command = [sys.executable, "-c", script, ROOT / "containers" / "check.py", tmp_path / "python"]
    done = subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no space left" in done.stdout
    assert "FAILED  docker build" in done.stderr
