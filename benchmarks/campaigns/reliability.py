"""Fault campaigns on the store, the extraction and the training; figures add up over runs.

    python -m benchmarks.campaigns.reliability run [NAME...] [--minutes 30] [--more N] [--again] [--folder FOLDER]
    python -m benchmarks.campaigns.reliability report [--folder FOLDER] > benchmarks/campaigns/reliability.md

FOLDER is benchmarks/campaigns/results where none is given.

Trial i of a campaign depends on the number i only. Each trial asserts that its fault fired. A trial that fails is kept
as such in FOLDER/<name>.jsonl, and makes the report say so; the next run goes on after it, or with --again makes it
again. Of a trial that was made more than once the last pass counts.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.campaigns import inputs, kills, large, store, training
from benchmarks.machine import ROOT, print_heading


@dataclass(frozen=True)
class Campaign:
    """What one row of the report stands for: a trial, the figure that counts, how much of it is wanted."""

    trial: Callable[[int, Path], dict[str, Any]]
    unit: str
    wanted: int
    holds: str
    exhaustive: int | None = None
    """Trials that make it whole, where each has a part of its own; those that failed are tried again."""


CAMPAIGNS = {
    "kill": Campaign(kills.kill, "kills", 450, "SIGKILL of one or two extractions (--workers 0) at random "
                     "moments: the store in the end is byte-identical to a clean one"),
    "kill-dask": Campaign(kills.kill_dask, "kills", 50, "the same, of the whole process tree of a Dask run"),
    "faults": Campaign(store.fault, "operations", 1, "death, EIO or ENOSPC at every operation of a store's "
                       "life: old or new state only, then identical", exhaustive=store.FAULT_TRIALS),
    "worker": Campaign(kills.worker, "workers killed", 100, "a Dask worker ends in mid-part (exit, segfault): "
                       "identical"),
    "blame": Campaign(inputs.blame, "files blamed", 60, "a crash, a hang or an allocation of 8 GiB among 512 "
                      "clips: exactly that file fails, with its reason"),
    "mutants": Campaign(inputs.mutants, "files", 20_000, "bit flips, truncations and splices of six formats: "
                        "no crash of the run, every file ok or failed with a reason"),
    "disk-full": Campaign(kills.disk_full, "times full", 100, "a small tmpfs fills up at a random point: a "
                          "clear error, and after room is made identical"),
    "flip": Campaign(store.flip, "bits flipped", 1000, "one bit of a file, every file of a store with "
                     "generations, joined features, takedowns: found, named, repaired; every byte of a sealed store's "
                     "seal and bytes all over it: found"),
    "reader": Campaign(store.reader, "reads", 100_000, "a reader beside a writer: no fill, no torn row"),
    "sequences": Campaign(store.sequences, "sequences", 2000, "append, retry, repair, drop, compact, verify "
                          "in any order agree with a model"),
    "train-kill": Campaign(training.kill, "kills", 100, "SIGKILL of `mgc train` at random moments, half the "
                           "runs saving after each step: checkpoints, model and history in the end are those of an "
                           "undisturbed run, byte for byte"),
    "train-faults": Campaign(training.fault, "operations", 1, "death, EIO or ENOSPC at every operation of a "
                             "training of two epochs: a whole checkpoint or none, then identical",
                             exhaustive=training.FAULT_TRIALS),
    "train-disk-full": Campaign(training.disk_full, "times full", 20, "a small tmpfs fills up at a random "
                                "point of a training: a clear error, and after room is made identical"),
    "train-damage": Campaign(training.damage, "files", 200, "a file of a run flipped, cut or lost: refused, "
                             "what is whole is used instead, identical"),
    "large": Campaign(large.large, "plans", 1, "a manifest of 10 million rows, its plan and "
                      "its commits, without tensors: no step takes more than twice the time a row that it takes with "
                      "a million"),
}  # fmt: skip


def wanted(name: str) -> int:
    every_operation = {"faults": store.n_faults, "train-faults": training.n_faults}
    return every_operation[name]() if name in every_operation else CAMPAIGNS[name].wanted


def done(folder: Path, name: str) -> list[dict[str, Any]]:
    file = folder / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def counted(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the figures are made of: the last pass of each trial."""
    return list({line["trial"]: line for line in lines if line["passed"]}.values())


def failed_until_now(lines: list[dict[str, Any]]) -> list[int]:
    """Trials that failed and have not passed since."""
    return sorted({line["trial"] for line in lines} - {line["trial"] for line in lines if line["passed"]})


def next_trial(campaign: Campaign, lines: list[dict[str, Any]]) -> int:
    """The number of the trial to make after those of `lines`."""
    if campaign.exhaustive is None:
        return max((line["trial"] for line in lines), default=-1) + 1
    passed = {line["trial"] for line in lines if line["passed"]}
    left = [number for number in range(campaign.exhaustive) if number not in passed] or range(campaign.exhaustive)
    return min(left, key=lambda number: sum(line["trial"] == number for line in lines))


def code() -> str:
    """The commit that the trials are made with; their own figures do not count as a change of it."""
    git = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
    commit = git(["git", "rev-parse", "--short", "HEAD"]).stdout.strip()
    changed = git(["git", "status", "--porcelain", "--", ":/", ":!/benchmarks/campaigns/results"]).stdout.strip()
    return f"{commit}, changed" if changed else commit or "unknown"


def run(folder: Path, names: list[str], minutes: float, *, more: int = 0, again: bool = False) -> bool:
    """Go on with campaigns until each has what it wants, or time is up; returns whether every trial passed.

    Parameters
    ----------
    more : go on for so many units more than there are, whatever is wanted.
    again : first make the trials again that failed and have not passed since.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline, passed = time.monotonic() + 60 * minutes, True
    for name in names:
        campaign, lines = CAMPAIGNS[name], done(folder, name)
        repeat, made, target = failed_until_now(lines) if again else [], 0, wanted(name)
        while time.monotonic() < deadline and (repeat or (made < more if more else figure(campaign, lines) < target)):
            line = _made(campaign, repeat.pop(0) if repeat else next_trial(campaign, lines))
            passed = passed and line["passed"]
            lines.append(line)
            made += line["result"].get(campaign.unit, 0)
            with (folder / f"{name}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        print(f"{name}: {figure(campaign, lines)} of {target} {campaign.unit}, "
              f"{sum(not one['passed'] for one in lines)} trials failed", file=sys.stderr, flush=True)  # fmt: skip
    return passed


def figure(campaign: Campaign, lines: list[dict[str, Any]]) -> int:
    return sum(line["result"].get(campaign.unit, 0) for line in counted(lines))


def _made(campaign: Campaign, number: int) -> dict[str, Any]:
    """One trial and how it went."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mgc-campaign-") as scratch:
        try:
            line = {"trial": number, "passed": True, "result": campaign.trial(number, Path(scratch))}
        except Exception as error:
            line = {"trial": number, "passed": False, "result": {}, "error": type(error).__name__}
            traceback.print_exc()
    return {**line, "seconds": round(time.monotonic() - started, 2), "date": time.strftime("%Y-%m-%d"), "code": code()}


def report(folder: Path) -> None:
    dates = sorted({line["date"] for name in CAMPAIGNS for line in done(folder, name)})
    print_heading(
        "Reliability",
        __file__,
        ". Trials are made by `make campaign`, their figures kept in benchmarks/campaigns/results/ and added up; of a "
        f"trial that was made more than once the last pass counts. These are from {', '.join(dates) or 'nobody yet'}.",
    )
    print("| campaign | what must hold | figure | of | trials | failed trials | further figures | last made with |")
    print("|---|---|---|---|---|---|---|---|")
    for name, campaign in CAMPAIGNS.items():
        lines = done(folder, name)
        sums: Counter[str] = Counter()
        for line in counted(lines):
            sums.update({key: value for key, value in line["result"].items() if isinstance(value, int)})
        count = sums.pop(campaign.unit, 0)
        further = ", ".join(f"{value} {key}" for key, value in sums.items())
        texts = [
            f"{key}: {value}"
            for line in counted(lines)[-1:]
            for key, value in line["result"].items()
            if isinstance(value, str)
        ]
        cells = (name, campaign.holds, f"{count} {campaign.unit}", wanted(name), len(lines), _failures(lines),
                 "; ".join([further, *texts]).strip("; "), _last_code(campaign, lines))  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |")
    print(
        "\nA SIGKILL proves nothing about a power failure: `benchmarks/campaigns/fsync_order.py` checks the order of "
        "fsync, publish and commit in the system calls (benchmarks/campaigns/fsync_order.md)."
    )
    print("\nTrials that failed stay counted. Those of `faults` found that a takedown killed before its record was "
          "linked left its draft: mended. Those of `sequences` all had one cause, seen by making them again with the "
          "code of then: verify called the record of a part that no longer counts foreign; mended and tested. That of "
          "`disk-full` ran out of its two minutes on a machine with five other jobs. All were made again with later "
          "code and passed. Figures without a commit were made before the last changes to the store.")  # fmt: skip
    print("\nNot tested: NFS, Lustre, object stores, SLURM, several machines.")


def _failures(lines: list[dict[str, Any]]) -> str:
    n_failed, left = sum(not line["passed"] for line in lines), failed_until_now(lines)
    if not n_failed:
        return "none"
    return f"{n_failed}, {f'{len(left)} not passed since' if left else 'all passed since'}"


def _last_code(campaign: Campaign, lines: list[dict[str, Any]]) -> str:
    """How much of the figure was made with the last code that the campaign ran with."""
    last = next((line["code"] for line in reversed(lines) if "code" in line), None)
    if last is None:
        return "not noted"
    return f"{last}: {figure(campaign, [line for line in lines if line.get('code') == last])} {campaign.unit}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("names", nargs="*", choices=[[], *CAMPAIGNS], default=[])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--more", type=int, default=0, help="go on for so many units more than there are")
    parser.add_argument("--again", action="store_true", help="first make again what failed and has not passed since")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    if options.what == "report":
        report(options.folder)
        return 0
    return 0 if run(options.folder, options.names or list(CAMPAIGNS), options.minutes, more=options.more,
                    again=options.again) else 1  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
