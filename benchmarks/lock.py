"""Write requirements.lock: every dependency of `mgc-music[all]` except torch, with version and sha256.

    python -m benchmarks.lock > requirements.lock

The hashes are those of the files for this Python and this kind of machine. torch is left out, with the packages that
only torch needs: its builds (CPU, CUDA, ROCm) differ in hash and come from different indexes.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import ROOT

EXCLUDED = ("mgc-music", "setuptools", "torch", "triton")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        options = ["--report", report, "--constraint", ROOT / "constraints.txt"]
        subprocess.run([*pip, *options, f"{ROOT}[all]"], check=True, stderr=subprocess.DEVNULL)
        packages = json.loads(report.read_text())["install"]
    python, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    print(f"# Python {python}, {system}; written by benchmarks/lock.py.")
    print("# pip install torch==<constraints.txt>; pip install --no-deps --require-hashes -r requirements.lock;")
    print("# pip install --no-deps --no-build-isolation .")
    for item in sorted(packages, key=lambda item: item["metadata"]["name"].lower()):
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if name.lower() not in EXCLUDED and not name.lower().startswith("nvidia"):
            print(f"{name}=={version} --hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}")


if __name__ == "__main__":
    main()
