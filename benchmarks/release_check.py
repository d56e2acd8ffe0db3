"""Check wheel and sdist as users install them: outside this tree, first without extras, then with all.

    python -m benchmarks.release_check [--keep DIR]

Prints one line per check and ends with exit status 1 at the first that fails. It takes minutes, mostly for pip.
tests/test_packaging.py checks the contents of the wheel.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

import mgc
from benchmarks.machine import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TIMEOUT_S = 1800


class CheckError(Exception):
    """Raised for a failed check, with its name and the actual value."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", metavar="DIR", type=Path, help="work in this new folder, and keep it")
    options = parser.parse_args()
    try:
        if options.keep is not None:
            options.keep.mkdir(parents=True)
            check_release(options.keep.resolve())
        else:
            with tempfile.TemporaryDirectory(prefix="mgc-release-") as folder:
                check_release(Path(folder).resolve())
    except CheckError as error:
        sys.exit(f"FAILED  {error}")
    print("every check passed")


def check_release(folder: Path) -> None:
    if ROOT in folder.parents:
        raise CheckError(f"{folder} is inside the tree, which the installed package must not see")
    wheel = build(folder)
    user = User(folder)
    user.install(str(wheel))
    check_base(user)
    user.install(f"{wheel}[extract,train]")
    check_further_extras(user)
    user.install(f"{wheel}[all]")
    check_all(user)


def build(folder: Path) -> Path:
    """Build wheel and sdist from the files in git; return the wheel, after the sdist has built the same one."""
    tree, out = folder / "tree" / "mgc", folder / "dist"
    names = run(["git", "ls-files", "--cached"], cwd=ROOT).splitlines()
    for name in (name for name in names if (ROOT / name).is_file()):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    builder = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir"]
    run([*builder, out, "--sdist", tree], cwd=folder)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run([*builder, folder / "rebuilt", unpacked], cwd=folder)
    (rebuilt,) = (folder / "rebuilt").glob("*.whl")
    expect("the sdist builds the same wheel as the tree", contents(rebuilt), contents(wheel))
    check_metadata(wheel)
    if importlib.util.find_spec("twine"):
        run([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist], cwd=folder)
        passed("twine check")
    else:
        print("not checked: twine check (twine is not installed)")
    return wheel


def contents(wheel: Path) -> dict[str, str]:
    """Return the sha256 of each file except RECORD, the list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if not name.endswith("/RECORD")
        }


def check_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (path,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(path))
    expect("the licence is in the wheel", any(name.endswith("/licenses/LICENSE") for name in names), True)
    expect("py.typed is in the wheel", "mgc/py.typed" in names, True)
    expect("name and version", (metadata["Name"], metadata["Version"]), (PROJECT["name"], mgc.__version__))
    expect("licence", metadata["License-Expression"], PROJECT["license"])
    expect("Python", metadata["Requires-Python"], PROJECT["requires-python"])
    expect("extras", sorted(metadata.get_all("Provides-Extra", [])), sorted(PROJECT["optional-dependencies"]))
    expect("the description is Markdown", metadata["Description-Content-Type"], "text/markdown")
    description = str(metadata.get_payload()).strip()
    expect("the description is the README", description[:60], (ROOT / "README.md").read_text().strip()[:60])


class User:
    """A user with a fresh environment, outside the tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "user"
        self.folder.mkdir()
        run([sys.executable, "-m", "venv", folder / "venv"], cwd=self.folder)
        self.bin = folder / "venv" / "bin"

    def install(self, package: str) -> None:
        pip = [self.bin / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
        run([*pip, package], cwd=self.folder)
        passed(f"pip install {Path(package).name}")

    def python(self, script: str, code: int = 0) -> str:
        return run([self.bin / "python", "-c", script], cwd=self.folder, code=code)

    def mgc(self, *args: str, code: int = 0) -> str:
        """Run `mgc ARGS`; return both of its streams."""
        return run([self.bin / "mgc", *args], cwd=self.folder, code=code)

    def lacks(self, extra: str, *args: str) -> None:
        """Check that `mgc ARGS` is refused with the name of the missing extra."""
        text = self.mgc(*args, code=2)
        if f"mgc-music[{extra}]" not in text or "Traceback" in text:
            raise CheckError(f"mgc {' '.join(args)} does not name the extra {extra!r}; it prints:\n{text}")
        passed(f"without [{extra}], `mgc {args[0]}` names it")


def check_base(user: User) -> None:
    """Check that reading a store needs no extra, and that other commands name the extra that they need."""
    installed = Path(user.python("import mgc; print(mgc.__file__)").strip())
    expect("mgc comes from the environment", user.bin.parent in installed.parents, True)
    user.python("import importlib.util; assert importlib.util.find_spec('torch') is None")
    passed("torch is not installed")
    expect("mgc --version", mgc.__version__ in user.mgc("--version"), True)
    expect("mgc --help", "extract" in user.mgc("--help"), True)
    shutil.copyfile(ROOT / "benchmarks" / "worlds" / "songs_store.py", user.folder / "songs_store.py")
    user.python("import songs_store, pathlib; songs_store.write_songs_store(pathlib.Path('songs.zarr'))")
    user.python("import mgc; assert mgc.open('songs.zarr')['mel'][0].shape[0] == 128")
    user.python("import mgc; assert mgc.open('songs.zarr').sel(genre='jazz').tracks.num_rows")
    passed("a store is opened and read")
    for arguments in (
        ("store", "info", "songs.zarr"),
        ("store", "failures", "songs.zarr"),
        ("store", "verify", "songs.zarr", "--full"),
        ("store", "convert", "songs.zarr", "songs.h5"),
        ("store", "info", "songs.h5"),
        ("store", "select", "songs.zarr", "--genre", "jazz", "-o", "jazz.zarr"),
    ):
        user.mgc(*arguments)
        passed(f"mgc {' '.join(arguments)}")
    (user.folder / "songs").mkdir()
    (user.folder / "song.wav").write_bytes(b"RIFF")
    (user.folder / "run").mkdir()
    (user.folder / "run" / "config.json").write_text("{}")  # looks like a model: paths are checked first
    user.lacks("train", "train", "songs.zarr", "-o", "run")
    user.lacks("train", "evaluate", "run", "songs.zarr")
    user.lacks("train", "predict", "run", "song.wav")
    user.lacks("train", "ablate", "songs.zarr", "-o", "ablation")
    for command in ("extract", "plan"):
        user.lacks("extract", command, "songs", "-o", "new.zarr")
    user.lacks("all", "demo", "-o", "demo")
    for extra, call in (
        ("xarray", "to_xarray(store)"),
        ("xarray", "to_dask(store['mel'])"),
        ("train", "to_torch(store, 'mel')"),
    ):
        text = user.python(f"import mgc; store = mgc.open('songs.zarr'); mgc.{call}", code=1)
        expect(f"without [{extra}], mgc.{call} names it", f"mgc-music[{extra}]" in text, True)


def check_further_extras(user: User) -> None:
    """Check that errors name a missing small extra when the two large ones are installed."""
    user.python("import numpy, soundfile; soundfile.write('songs/one.wav', numpy.sin(numpy.arange(66150) / 9), 22050)")
    (user.folder / "songs" / "one.txt").write_text("la la la")
    (user.folder / "genres.csv").write_text("id,genres\none.wav,jazz\n")
    user.lacks("minilm", "extract", "songs", "-o", "new.zarr", "--labels", "genres.csv", "--text-model", "minilm")
    user.lacks("tensorboard", "train", "songs.zarr", "-o", "run", "--tensorboard")
    text = user.mgc("train", "songs.zarr", "-o", "run", "--encoder", "tiny", "--epochs", "1", "--split", "manifest")
    expect("training without plots names the extra for them", "mgc-music[report]" in text, True)
    user.lacks("report", "report", "run")


def check_all(user: User) -> None:
    """Check a small demo with all extras."""
    text = user.mgc("demo", "-o", "demo", "--songs", "40", "--epochs", "1")
    expect("mgc demo, in miniature", "report: " in text, True)
    user.python("import mgc; assert mgc.load_model('demo/run').genres")
    passed("its model is loaded from Python")


def run(command: list[str | Path], *, cwd: Path, code: int = 0) -> str:
    """Run a command and return both of its streams; its exit status must be `code`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = list(map(str, command))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    finished = subprocess.run(words, cwd=cwd, env=environment, timeout=TIMEOUT_S, check=False, **streams)
    if finished.returncode != code:
        raise CheckError(f"{' '.join(words)}: exit status {finished.returncode}, not {code}\n{finished.stdout}")
    return finished.stdout


def expect(name: str, value: object, expected: object) -> None:
    """Fail the check `name` if `value` is not as expected."""
    if value != expected:
        raise CheckError(f"{name}: {value!r}, expected {expected!r}")
    passed(name)


def passed(name: str) -> None:
    print(f"ok  {name}", flush=True)


if __name__ == "__main__":
    main()
