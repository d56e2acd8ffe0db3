"""Locate the repository, and describe machine and date for the heading of a page."""

import datetime
import os
import platform
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""Root of the repository, the working folder of every script: ``python -m benchmarks.FOLDER.SCRIPT``."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Environment of a process that computes with one thread."""


def describe() -> str:
    """Return processor, cores of this process, system, Python and date."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        flags = cpuinfo.read_text()
        processor = (names[0] if names else processor) + (" (bf16)" if "avx512_bf16" in flags else "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{processor}, {cores} cores, {system}, {datetime.date.today()}"


def print_heading(title: str, script: str, note: str = ".", *, torch_version: str = "") -> None:
    """Print the title of a page, then the machine, the date and the script that prints it.

    Parameters
    ----------
    script : ``__file__`` of the script.
    note : text after the path of the script, with its punctuation.
    torch_version : for figures that depend on it.
    """
    torch = f"; torch {torch_version}" if torch_version else ""
    path = Path(script).resolve().relative_to(ROOT).as_posix()
    print(f"# {title}\n\n{describe()}{torch}. Printed by {path}{note}\n")
