"""Progress of the extractions of a store, from its commits alone, whichever processes and machines build the parts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..format.plan import read_plan
from ..format.records import committed, read_commit
from ..writing.publish import staged


@dataclass(frozen=True, kw_only=True)
class StoreProgress:
    """Parts and tracks by outcome; `tracks_per_s` and `left_s` since the start of the watch, None at first.

    A track that is retried counts once, by its newest attempt; `reasons` are those of all attempts. `working` counts
    the parts that are claimed.
    """

    parts: int
    parts_done: int
    planned: int
    ok: int
    failed: int
    reasons: dict[str, int]
    working: int
    tracks_per_s: float | None
    left_s: float | None

    @property
    def complete(self) -> bool:
        return self.parts_done == self.parts

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def watch(store: Path, *, every_s: float = 5.0) -> Iterator[StoreProgress]:
    """Yield the progress every `every_s` seconds until every part is committed; each record is read once.

    Raises
    ------
    StoreNotFoundError
    """
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    seen: set[int] = set()
    started, first = time.monotonic(), 0
    while True:
        plan = read_plan(store)
        for part in committed(store).keys() & set(range(plan.n_parts)) - seen:
            record = read_commit(store, part)
            if record is not None:
                seen.add(part)
                counts.update(record["counts"])
                reasons.update(record["reasons"])
        retried = sum(len(gen.rows) for gen in plan.generations if gen.kind == "retry")  # each failed before
        planned, failed = sum(len(gen.rows) for gen in plan.generations) - retried, counts["failed"] - retried
        done = counts["ok"] + failed
        elapsed = time.monotonic() - started
        rate = (done - first) / elapsed if seen and elapsed > 1 and done > first else None
        first = first or done
        now = StoreProgress(
            parts=plan.n_parts,
            parts_done=len(seen),
            planned=planned,
            ok=counts["ok"],
            failed=failed,
            reasons=dict(reasons.most_common()),
            working=len(staged(store, "*~claim")),
            tracks_per_s=None if rate is None else round(rate, 2),
            left_s=None if rate is None else round((planned - done) / rate, 1),
        )
        yield now
        if now.complete:
            return
        time.sleep(every_s)
