"""The machine and the day of a benchmark, in one line for its heading."""

import datetime
import os
import platform
from pathlib import Path


def describe() -> str:
    """Processor, cores this process may use, system, Python and date."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        flags = cpuinfo.read_text()
        processor = (names[0] if names else processor) + (" (bf16)" if "avx512_bf16" in flags else "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{processor}, {cores} cores, {system}, {datetime.date.today()}"
