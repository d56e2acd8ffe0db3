"""How long `mgc --help` takes as a whole process, beside the interpreter alone and Typer alone.

Run: python benchmarks/startup.py        The last figures stand in benchmarks/startup.md.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe

RUNS = 11
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import typer'": [sys.executable, "-c", "import typer"],
    "python -c 'import mgc'": [sys.executable, "-c", "import mgc"],
    "mgc --help": [str(Path(sys.executable).parent / "mgc"), "--help"],
}


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    for command in COMMANDS.values():
        seconds(command)
    # In turn, so that a machine whose speed drifts treats all of them alike.
    times = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    print("# Start-up\n")
    print(f"{describe()}; {RUNS} runs each, in turn, after one warm-up. Printed by benchmarks/startup.py.\n")
    print("| whole process | median s | min s | max s |\n|---|---|---|---|")
    for name, taken in times.items():
        print(f"| `{name}` | {statistics.median(taken):.3f} | {min(taken):.3f} | {max(taken):.3f} |")


if __name__ == "__main__":
    main()
