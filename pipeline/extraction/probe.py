"""Which track of a part ends its worker? Each is gone through in a child process that may die.

The child says which row it is at before it starts on it, so that its death names the row, without a search by halves. A
row is blamed when it has ended two children; what the child computes is thrown away.
"""

from __future__ import annotations

import base64
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
from .job import PartJob
from .part import go_through

_DEATHS = 2


def probe(job: PartJob) -> dict[str, Any]:
    """Find the tracks of a part that end the process that works on them.

    Returns
    -------
    dict
        ``part``, and ``culprits``: array rows.
    """
    rows = read_plan(job.store).part_range(job.part)
    deaths: Counter[int] = Counter()
    start = rows.start
    while start < rows.stop:
        at = _run_child(job, start)
        if at is None:
            break
        deaths[at] += 1
        start = at if deaths[at] < _DEATHS else at + 1
    return {"part": job.part, "culprits": tuple(row for row, n in deaths.items() if n >= _DEATHS)}


def _run_child(job: PartJob, start: int) -> int | None:
    """Go through a part from a row on; the row at which the child died, None if it did not."""
    entries = [entry or str(Path.cwd()) for entry in sys.path]
    search_path = os.pathsep.join([*entries, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mgc.pipeline.extraction.probe"],
        input=json.dumps({"start": start, "job": _as_json(job)}).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": search_path},
        check=False,
    )
    if done.returncode == 1:  # an exception, which is no death: no track is to blame for it
        raise WorkerError(f"part {job.part}: {done.stderr.decode(errors='replace').strip().rpartition(chr(10))[2]}")
    reached = [int(line) for line in done.stdout.split()]
    return None if done.returncode == 0 else (reached[-1] if reached else start)


def _as_json(job: PartJob) -> dict[str, Any]:
    text = None if job.text is None else dataclasses.asdict(job.text)
    paths = {name: base64.b64encode(os.fsencode(getattr(job, name))).decode() for name in ("store", "root")}
    return {**paths, "part": job.part, "text": text, "inline_lyrics": dict(job.inline_lyrics),
            "starts_s": dict(job.starts_s), "feature_set": job.feature_set}  # fmt: skip


def _from_json(data: dict[str, Any]) -> PartJob:
    store, root = (Path(os.fsdecode(base64.b64decode(data[name]))) for name in ("store", "root"))
    text = None if data["text"] is None else TextSource(**data["text"])
    return PartJob(store=store, root=root, part=data["part"], text=text, inline_lyrics=data["inline_lyrics"],
                   starts_s=data["starts_s"], feature_set=data["feature_set"])  # fmt: skip


def _serve() -> None:
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not look like a row
    asked = json.loads(sys.stdin.buffer.read())

    def tell(row: int) -> None:
        said.write(f"{row}\n")
        said.flush()

    go_through(_from_json(asked["job"]), asked["start"], tell)


if __name__ == "__main__":
    _serve()
