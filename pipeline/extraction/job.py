"""What a worker needs to build one part."""

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
    culprits : array rows that end the process that works on them; they fail unseen.
    takes_over : whoever worked on the part is known to be dead.
    feature_set : one that joins the store; None for the store's own features.
    again : n of the part's record whose failed rows are tried again, the others kept; of features that joined only.
    """

    store: Path
    part: int
    root: Path
    text: TextSource | None
    inline_lyrics: Mapping[str, str] = field(default_factory=dict)
    starts_s: Mapping[str, float] = field(default_factory=dict)
    culprits: tuple[int, ...] = ()
    takes_over: bool = False
    feature_set: str | None = None
    again: int | None = None
