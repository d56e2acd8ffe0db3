"""Time `mgc --help` as a whole process, compared with the interpreter only and with Typer only.

python -m benchmarks.speed.startup > benchmarks/speed/startup.md
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import print_heading

RUNS = 11
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import typer'": [sys.executable, "-c", "import typer"],
    "python -c 'import mgc'": [sys.executable, "-c", "import mgc"],
    "mgc --help": [str(Path(sys.executable).parent / "mgc"), "--help"],
}


def seconds(command: list[str]) -> float:
    """Return the duration of a whole process in s."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    for command in COMMANDS.values():
        seconds(command)
    # In turn, so that changes of the machine's speed affect all commands equally.
    times = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    print_heading("Start-up", __file__, f": {RUNS} runs each, in turn, after one warm-up.")
    print("| whole process | median s | min s | max s |\n|---|---|---|---|")
    for name, values in times.items():
        print(f"| `{name}` | {statistics.median(values):.3f} | {min(values):.3f} | {max(values):.3f} |")


if __name__ == "__main__":
    main()
