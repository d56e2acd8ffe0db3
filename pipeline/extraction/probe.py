"""Identify the tracks of a part that crash the worker: build each in a child process that may crash.

The child prints each row before it builds it, so the last printed row is the one that crashed it. A row is at fault
when it has crashed two children. The features that the child computes are discarded.
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
from ...cache.places import place
from ...cache.writing.remote import writable_folder
from ..extractors.pretrained import AudioSource
from ..text.encoder import TextSource
from .builder import PartJob
from .part import build_row_by_row

_CRASHES = 2
"""Crashes after which a row is at fault."""


def probe(job: PartJob) -> PartJob:
    """Return the job with the crashing rows of its part."""
    rows = read_plan(writable_folder(job.store)).part_range(job.part)
    crashes: Counter[int] = Counter()
    start = rows.start
    while start < rows.stop:
        row = _run_child(job, start)
        if row is None:
            break
        crashes[row] += 1
        start = row if crashes[row] < _CRASHES else row + 1
    crashing = tuple(row for row, n in crashes.items() if n >= _CRASHES)
    return dataclasses.replace(job, crashing_rows=crashing, after_crash=True)


def _run_child(job: PartJob, start: int) -> int | None:
    """Build a part from row `start` in a child process; return the row that crashed it, None if none did."""
    entries = [entry or str(Path.cwd()) for entry in sys.path]
    search_path = os.pathsep.join([*entries, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    child = subprocess.run(
        [sys.executable, "-P", "-m", "mgc.pipeline.extraction.probe"],
        input=json.dumps({"start": start, "job": _as_json(job)}, default=os.fspath).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": search_path},
        check=False,
    )
    if child.returncode == 1:  # an exception, for which no track is at fault
        raise WorkerError(f"part {job.part}: {child.stderr.decode(errors='replace').strip().rpartition(chr(10))[2]}")
    printed_rows = [int(line) for line in child.stdout.split()]
    return None if child.returncode == 0 else (printed_rows[-1] if printed_rows else start)


def _as_json(job: PartJob) -> dict[str, Any]:
    """Return the job as JSON values; JSON escapes the surrogates of a path that is not Unicode."""
    names = ("store", "root", "part", "inline_lyrics", "starts_s", "feature_set", "retry_of")
    data = {name: getattr(job, name) for name in names}
    encoders = {"text": job.text, "audio": job.audio}
    return data | {name: None if each is None else dataclasses.asdict(each) for name, each in encoders.items()}


def _from_json(data: dict[str, Any]) -> PartJob:
    text = None if data["text"] is None else TextSource(**data["text"])
    audio = None if data["audio"] is None else AudioSource(**data["audio"])
    return PartJob(**data | {"store": place(data["store"]), "root": Path(data["root"]), "text": text, "audio": audio})


def _serve() -> None:
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that output of a library is not read as a row
    request = json.loads(sys.stdin.buffer.read())
    build_row_by_row(_from_json(request["job"]), request["start"], lambda row: print(row, file=output, flush=True))


if __name__ == "__main__":
    _serve()
