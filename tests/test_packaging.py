"""Wheel and sdist contain the files of the tree; imports are relative and light."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from source_tree import ROOT, source_files


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build sdist and wheel from a copy of the tree; return their folder."""
    out = tmp_path_factory.mktemp("dist")
    tree = tmp_path_factory.mktemp("tree") / "mgc"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines() or [str(path.relative_to(ROOT)) for path in (*ROOT.glob("*"), *source_files())]
    for name in files:
        source = ROOT / name
        if source.is_file():
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def modules() -> set[str]:
    return {f"mgc/{path.relative_to(ROOT)}" for path in source_files()}


def page_files() -> set[str]:
    """Templates, styles and script of the report pages."""
    return {
        f"mgc/{path.relative_to(ROOT)}"
        for room in ("static", "templates")
        for path in (ROOT / "reports" / room).iterdir()
    }


def test_wheel_contains_only_the_package_and_its_entry_point(dist):
    (wheel,) = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == modules() | page_files() | {"mgc/py.typed", "mgc_music.py"}


def test_sdist_contains_every_module_and_template(dist):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name.removeprefix("mgc/") for name in modules() | page_files()} <= names
    assert "LICENSE" in names


def test_root_has_only_the_modules_of_the_design():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "cli.py"}


def test_imports_inside_the_package_are_relative():
    absolute = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in source_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.lstrip().startswith(("import mgc", "from mgc"))
    ]
    assert absolute == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("mgc", {"numpy", "zarr", "torch", "transformers", "librosa", "dask", "typer"}),
        ("mgc.cli", {"numpy", "zarr", "torch", "transformers", "librosa", "dask", "distributed", "pyarrow", "h5py"}),
        ("mgc.cache.reading.store", {"torch", "transformers", "librosa", "dask", "distributed"}),
    ],
)
def test_import_loads_no_heavy_package(module, unwanted):
    script = f"import sys, {module}; print(*({set(unwanted)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_prints_disk_and_time_before_it_installs(target, tmp_path):
    done = subprocess.run(["make", "-n", target, f"VENV={tmp_path / 'new'}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, _, after = done.stdout.partition("pip install")
    assert "GB on disk" in before
    assert "minutes" in before
    assert "--quiet" not in after.splitlines()[0]
