"""Disturb jobs on a SLURM cluster of two nodes on this machine, and print what was lost.

    python -m benchmarks.cluster.run [NAME...] > benchmarks/cluster/cluster.md

NAME is a scenario of benchmarks/cluster/scenarios.py or dask.py; default: all. `make cluster-check` runs this.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from typing import Any

from benchmarks.cluster.scenarios import SCENARIOS, in_folder
from benchmarks.cluster.slurm import missing, running_cluster
from benchmarks.machine import print_heading

NOTES = """
Both nodes are `slurmd` processes of one machine with one kernel and one local file system. Not tested: nodes with
kernels and clocks of their own, GPUs as resources of SLURM, accounting, other versions of SLURM.

The two minutes that SLURM waits before it starts a requeued job are cut to twenty seconds here."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *SCENARIOS])
    names = parser.parse_args().names or list(SCENARIOS)
    if reason := missing():
        print(f"no cluster: {reason}", file=sys.stderr)
        return 2
    found: dict[str, dict[str, Any] | None] = {}
    with running_cluster() as cluster:
        version = cluster.call("sinfo", "--version").split()[-1]
        for name in names:
            try:
                found[name] = in_folder(SCENARIOS[name], cluster)
            except Exception:
                traceback.print_exc()
                found[name] = None
            print(f"{name}: {found[name] or 'FAILED'}", file=sys.stderr, flush=True)
    print_heading("Clusters", __file__, f" (`make cluster-check`). SLURM {version}, two nodes on this machine.")
    print("| scenario | what happens | result | seconds |\n|---|---|---|---|")
    for name, figures in found.items():
        claim = " ".join((SCENARIOS[name].__doc__ or "").split())
        print(f"| {name} | {claim} | {_result(figures)} | {'' if figures is None else figures['seconds']} |")
    print(NOTES)
    return 0 if None not in found.values() else 1


def _result(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "**failed**"
    cells = []
    for name, value in figures.items():
        if isinstance(value, dict):
            states = (f"{n} {state.lower().replace('_', ' ')}" for state, n in value.items())
            cells.append(f"{name}: {', '.join(states)}")
        elif name != "seconds":
            cells.append(f"{value} {name}")
    return "identical; " + "; ".join(cells)


if __name__ == "__main__":
    raise SystemExit(main())
