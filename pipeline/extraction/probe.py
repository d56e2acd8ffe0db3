"""Which track of a part ends its worker? Each is built in a child process that may die.

The child prints each row before it starts on it, so that its death names the row, without a search by halves. A row is
blamed when it has ended two children; what the child computes is thrown away.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ...cache.errors import WorkerError
from ...cache.format.plan import read_plan
from ..text.encoder import TextSource
from .builder import PartJob
from .part import build_row_by_row

_DEATHS = 2


def probe(job: PartJob) -> PartJob:
    """Return the job with the rows of its part that end the process that works on them."""
    rows = read_plan(job.store).part_range(job.part)
    deaths: Counter[int] = Counter()
    start = rows.start
    while start < rows.stop:
        row = _run_child(job, start)
        if row is None:
            break
        deaths[row] += 1
        start = row if deaths[row] < _DEATHS else row + 1
    crashing = tuple(row for row, n in deaths.items() if n >= _DEATHS)
    return dataclasses.replace(job, crashing_rows=crashing, after_crash=True)


def _run_child(job: PartJob, start: int) -> int | None:
    """Build a part from a row on; return the row at which the child died, None if it did not."""
    entries = [entry or str(Path.cwd()) for entry in sys.path]
    search_path = os.pathsep.join([*entries, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mgc.pipeline.extraction.probe"],
        input=json.dumps({"start": start, "job": _as_json(job)}, default=os.fspath).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": search_path},
        check=False,
    )
    if done.returncode == 1:  # an exception, which is no death: no track is to blame for it
        raise WorkerError(f"part {job.part}: {done.stderr.decode(errors='replace').strip().rpartition(chr(10))[2]}")
    reached = [int(line) for line in done.stdout.split()]
    return None if done.returncode == 0 else (reached[-1] if reached else start)


def _as_json(job: PartJob) -> dict[str, Any]:
    """Return what rebuilds the job; a path that is not Unicode has surrogates, which JSON escapes."""
    names = ("store", "root", "part", "inline_lyrics", "starts_s", "feature_set", "retry_of")
    data = {name: getattr(job, name) for name in names}
    return data | {"text": None if job.text is None else dataclasses.asdict(job.text)}


def _from_json(data: dict[str, Any]) -> PartJob:
    text = None if data["text"] is None else TextSource(**data["text"])
    return PartJob(**data | {"store": Path(data["store"]), "root": Path(data["root"]), "text": text})


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not look like a row
    request = json.loads(sys.stdin.buffer.read())
    build_row_by_row(_from_json(request["job"]), request["start"], lambda row: print(row, file=answers, flush=True))


if __name__ == "__main__":
    _serve()
