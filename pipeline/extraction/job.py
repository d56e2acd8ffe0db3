"""What a worker gets to build one part, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..text.encoder import TextSource


@dataclass(frozen=True, kw_only=True)
class PartJob:
    """Everything a worker needs for one part; small enough to travel through a scheduler.

    Attributes
    ----------
    inline_lyrics : by track id, where the source's table holds them.
    starts_s : by track id, where a clip begins, if not where the recipe says.
    crashing_rows : array rows that end the process that works on them; they fail unseen.
    after_crash : the worker that had the part is dead, so its claim does not count.
    feature_set : one that was added to the store; None for the store's own features.
    retry_of : number of the part's record whose failed rows are retried, the others kept; of added feature sets only.
    """

    store: Path
    part: int
    root: Path
    text: TextSource | None
    inline_lyrics: Mapping[str, str] = field(default_factory=dict)
    starts_s: Mapping[str, float] = field(default_factory=dict)
    crashing_rows: tuple[int, ...] = ()
    after_crash: bool = False
    feature_set: str | None = None
    retry_of: int | None = None


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a worker did with a part; under 1 kB.

    Attributes
    ----------
    ok, failed : tracks of the part; with `feature_set` only those that failed on it. 0 while the part is busy.
    built : False if another extraction had committed the part meanwhile.
    busy : another extraction is building the part.
    """

    part: int
    ok: int = 0
    failed: int = 0
    seconds: float = 0.0
    built: bool = False
    busy: bool = False
