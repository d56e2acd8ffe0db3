"""Count outcomes of tracks, and combine those of an added feature set with those of the store itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..format.schema import ABSENT, FAILED, OK, Flag
from ..format.tables import with_column


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Outcomes of the tracks of a store: ``planned = ok + failed + pending``; failures by reason, flags by name."""

    planned: int
    ok: int
    failed: int
    pending: int
    reasons: dict[str, int]
    flags: dict[str, int]


def with_outcomes(tracks: pa.Table, added: pa.Table) -> pa.Table:
    """Return tracks with their outcomes in an added feature set; tracks without one become absent."""
    index = pc.index_in(tracks.column("row"), value_set=added.column("row"))
    has_own = pc.equal(tracks.column("status"), OK)
    for name in ("status", "reason", "detail"):
        values = added.column(name).combine_chunks().take(index)
        if name == "status":
            values = pc.fill_null(values, ABSENT)
        tracks = with_column(tracks, name, pc.if_else(has_own, values, tracks.column(name)))
    return tracks


def count_outcomes(tracks: pa.Table, *, with_flags: bool = True) -> Counts:
    """Count the outcomes in a table with the columns status, reason and flags."""
    reasons = Counter(reason for reason in tracks.column("reason").drop_null().to_pylist() if reason)
    bits, status = np.asarray(tracks.column("flags")), np.asarray(tracks.column("status"))
    flags = {str(flag.name): int(((bits & flag.value) != 0).sum()) for flag in Flag if with_flags}
    ok, failed = int((status == OK).sum()), int((status == FAILED).sum())
    return Counts(
        planned=len(status),
        ok=ok,
        failed=failed,
        pending=len(status) - ok - failed,
        reasons=dict(reasons.most_common()),
        flags={name: count for name, count in flags.items() if count},
    )
