"""Disk space of the environments that `make demo` and `make test` install, and of smaller ones.

    python -m benchmarks.speed.install > benchmarks/speed/install.md

The packages are those of pyproject.toml and what they require, as installed in the environment that runs this script.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.machine import ROOT, print_heading

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEMO_EXTRAS = re.findall(r"^DEMO_EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[0]
ENVIRONMENTS = {"base": "", "make demo": DEMO_EXTRAS, "[all]": "all", "make test": "dev"}


def wanted(requirements: Iterable[str], extras: Iterable[str]) -> list[Requirement]:
    """Return the requirements that apply on this machine with some extras."""
    parsed = [Requirement(text) for text in requirements]
    names = ["", *extras]
    return [item for item in parsed if item.marker is None or any(item.marker.evaluate({"extra": e}) for e in names)]


def packages(extras: str) -> set[str]:
    """Return the names of all packages of an environment, without mgc itself."""
    queue = [Requirement(f"{PROJECT['name']}[{extras}]")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        item = queue.pop()
        name, own_extras = canonicalize_name(item.name), frozenset(item.extras)
        if (name, own_extras) in seen:
            continue
        seen.add((name, own_extras))
        if name == canonicalize_name(PROJECT["name"]):
            optional = PROJECT["optional-dependencies"]
            queue += map(Requirement, [*PROJECT["dependencies"], *(line for e in own_extras for line in optional[e])])
        else:
            queue += wanted(metadata.requires(name) or (), own_extras)
    return {name for name, _ in seen} - {canonicalize_name(PROJECT["name"])}


def n_bytes(package: str) -> int:
    """Return the disk space of the files of an installed package."""
    paths = (Path(file.locate()) for file in metadata.files(package) or ())
    return sum(path.stat().st_blocks * 512 for path in paths if path.is_file())


def main() -> None:
    print_heading("Disk space of an installation", __file__, f"; torch {metadata.version('torch')}.")
    print("| environment | extras | packages | GB | largest |\n| --- | --- | --- | --- | --- |")
    for label, extras in ENVIRONMENTS.items():
        sizes = {name: n_bytes(name) for name in packages(extras)}
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        top = ", ".join(f"{name} {sizes[name] / 1e9:.2f}" for name in largest)
        print(f"| {label} | {extras.replace(',', ', ')} | {len(sizes)} | {sum(sizes.values()) / 1e9:.2f} | {top} |")


if __name__ == "__main__":
    main()
