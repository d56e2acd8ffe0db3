"""Progress of long work: one protocol, which long work calls and every display implements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Callback with the progress of a step of long work: `done` of `total` units, and a note such as the last loss."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None: ...


def silent(step: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""


def within(
    progress: Progress, *, step: str | None = None, before: int = 0, total: int | None = None, note: str | None = None
) -> Progress:
    """Return the progress of a share of larger work: counted from `before` of `total` on, under its step and note."""
    return _Share(progress, step, before, total, note)


@dataclass(frozen=True)
class _Share:
    progress: Progress
    step: str | None
    before: int
    total: int | None
    note: str | None

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        self.progress(
            self.step or step,
            self.before + done,
            total if self.total is None else self.total,
            note if self.note is None else self.note,
        )
