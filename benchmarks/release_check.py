"""What a stranger gets: wheel and sdist, installed outside this tree, first without extras and then with all of them.

    python -m benchmarks.release_check [--keep DIR]

Prints a line a check and ends with exit status 1 at the first that fails. Takes minutes, most of it pip's. What the
wheel may hold is looked at by tests/test_packaging.py.
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
LAST_STEP_S = 1800


class CheckError(Exception):
    """A check that failed; the message says which, and what was there instead."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", metavar="DIR", type=Path, help="work in this new folder, and leave it there")
    asked = parser.parse_args()
    try:
        if asked.keep is not None:
            asked.keep.mkdir(parents=True)
            check_release(asked.keep.resolve())
        else:
            with tempfile.TemporaryDirectory(prefix="mgc-release-") as folder:
                check_release(Path(folder).resolve())
    except CheckError as error:
        sys.exit(f"FAILED  {error}")
    print("the release is as it should be")


def check_release(folder: Path) -> None:
    if ROOT in folder.parents:
        raise CheckError(f"{folder}: inside the tree, which is what must not be seen")
    wheel = build(folder)
    user = User(folder)
    user.install(str(wheel))
    check_base(user)
    user.install(f"{wheel}[extract,train]")
    check_further_extras(user)
    user.install(f"{wheel}[all]")
    check_all(user)


def build(folder: Path) -> Path:
    """Wheel and sdist of what git knows; returns the wheel, once the sdist has been seen to make the same."""
    tree, out = folder / "tree" / "mgc", folder / "dist"
    listed = run(["git", "ls-files", "--cached"], cwd=ROOT).splitlines()
    for name in (name for name in listed if (ROOT / name).is_file()):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    run([sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", out, tree], cwd=folder)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder / "again", unpacked], cwd=folder
    )
    (again,) = (folder / "again").glob("*.whl")
    expect("the sdist makes the wheel that the tree makes", contents(again), contents(wheel))
    check_metadata(wheel)
    if importlib.util.find_spec("twine"):
        run([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist], cwd=folder)
        done("twine check")
    else:
        print("not checked: twine check (twine is not installed)")
    return wheel


def contents(wheel: Path) -> dict[str, str]:
    """sha256 of each file, but of the list of them."""
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
        said = email.message_from_bytes(archive.read(path))
    expect("the licence and py.typed are in the wheel", [
        any(name.endswith("/licenses/LICENSE") for name in names), "mgc/py.typed" in names], [True, True])  # fmt: skip
    expect("name and version", (said["Name"], said["Version"]), (PROJECT["name"], mgc.__version__))
    expect("licence", said["License-Expression"], PROJECT["license"])
    expect("Python", said["Requires-Python"], PROJECT["requires-python"])
    expect("extras", sorted(said.get_all("Provides-Extra", [])), sorted(PROJECT["optional-dependencies"]))
    body = said.get_payload()
    expect("README is the description", (said["Description-Content-Type"], str(body).strip()[:60]),
           ("text/markdown", (ROOT / "README.md").read_text().strip()[:60]))  # fmt: skip


class User:
    """Somebody with a fresh environment, outside the tree."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        run([sys.executable, "-m", "venv", folder / "venv"], cwd=self.home)
        self.bin = folder / "venv" / "bin"

    def install(self, what: str) -> None:
        pip = [self.bin / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
        run([*pip, what], cwd=self.home)
        done(f"pip install {Path(what).name}")

    def python(self, script: str, code: int = 0) -> str:
        return run([self.bin / "python", "-c", script], cwd=self.home, code=code)

    def mgc(self, *args: str, code: int = 0) -> str:
        """What `mgc ARGS` says on both streams."""
        return run([self.bin / "mgc", *args], cwd=self.home, code=code)

    def lacks(self, extra: str, *args: str) -> None:
        """`mgc ARGS` is refused, and the error names the extra."""
        said = self.mgc(*args, code=2)
        if f"mgc[{extra}]" not in said or "Traceback" in said:
            raise CheckError(f"mgc {' '.join(args)} does not name the extra {extra!r}; it says:\n{said}")
        done(f"without [{extra}], `mgc {args[0]}` says so")


def check_base(user: User) -> None:
    """Reading a store needs no extra; whatever else is asked for names the one that it needs."""
    where = Path(user.python("import mgc; print(mgc.__file__)").strip())
    expect("mgc comes from the environment", user.bin.parent in where.parents, True)
    expect("torch is not here", user.python("import importlib.util as u; print(u.find_spec('torch'))").strip(), "None")
    expect("mgc --version", mgc.__version__ in user.mgc("--version"), True)
    expect("mgc --help", "extract" in user.mgc("--help"), True)
    shutil.copyfile(ROOT / "benchmarks" / "worlds" / "songs_store.py", user.home / "songs_store.py")
    user.python("import songs_store, pathlib; songs_store.write_songs_store(pathlib.Path('songs.zarr'))")
    user.python("import mgc; store = mgc.open('songs.zarr'); assert store['mel'][0].shape[0] == 128; "
                "assert store.sel(genre='jazz').tracks.num_rows")  # fmt: skip
    done("a store is opened and read")
    for words in (
        ("store", "info", "songs.zarr"),
        ("store", "failures", "songs.zarr"),
        ("store", "verify", "songs.zarr", "--full"),
        ("store", "convert", "songs.zarr", "songs.h5"),
        ("store", "info", "songs.h5"),
        ("store", "select", "songs.zarr", "--genre", "jazz", "-o", "jazz.zarr"),
    ):
        user.mgc(*words)
        done(f"mgc {' '.join(words)}")
    (user.home / "songs").mkdir()
    (user.home / "song.wav").write_bytes(b"RIFF")
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
        said = user.python(f"import mgc; store = mgc.open('songs.zarr'); mgc.{call}", code=1)
        expect(f"without [{extra}], mgc.{call} says so", f"mgc[{extra}]" in said, True)


def check_further_extras(user: User) -> None:
    """With the two large extras, the small ones are still missed by name."""
    user.python("import numpy, soundfile; soundfile.write('songs/one.wav', numpy.sin(numpy.arange(66150) / 9), 22050)")
    (user.home / "songs" / "one.txt").write_text("la la la")
    (user.home / "genres.csv").write_text("id,genres\none.wav,jazz\n")
    user.lacks("minilm", "extract", "songs", "-o", "new.zarr", "--labels", "genres.csv", "--text-model", "minilm")
    user.lacks("tensorboard", "train", "songs.zarr", "-o", "run", "--tensorboard")
    said = user.mgc("train", "songs.zarr", "-o", "run", "--encoder", "tiny", "--epochs", "1", "--split", "manifest")
    expect("a model is trained without plots, and it says what they need", "mgc[report]" in said, True)
    user.lacks("report", "report", "run")


def check_all(user: User) -> None:
    said = user.mgc("demo", "-o", "demo", "--songs", "40", "--epochs", "1")
    expect("mgc demo, in miniature", "report: " in said, True)
    user.python("import mgc; assert mgc.load_model('demo/run').genres")
    done("its model is loaded from Python")


def run(command: list[str | Path], *, cwd: Path, code: int = 0) -> str:
    """What a command says, on both streams; a check fails where it ends otherwise than with `code`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=LAST_STEP_S, check=False,
    )  # fmt: skip
    if finished.returncode != code:
        shown = " ".join(map(str, command))
        raise CheckError(f"{shown}: exit status {finished.returncode}, not {code}\n{finished.stdout}")
    return finished.stdout


def expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise CheckError(f"{what}: found {found!r}, wanted {wanted!r}")
    done(what)


def done(what: str) -> None:
    print(f"ok  {what}", flush=True)


if __name__ == "__main__":
    main()
