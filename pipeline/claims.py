"""Who is at work on which part, so that extractions of one store share the parts; the commit decides, not the claim."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from ..cache.claims import hold
from ..cache.format.records import commit_key
from ..cache.writing.publish import STAGING


def claim(
    store: Path, part: int, feature_set: str | None = None, *, over: bool = False
) -> AbstractContextManager[bool]:
    """Claim a part while it is built; see :func:`mgc.cache.claims.hold`."""
    label = commit_key(part, 0, feature_set).removesuffix(".json").replace("/", "+")
    return hold(store / STAGING / f"{label}~claim", over=over)
