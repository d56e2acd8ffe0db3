"""Progress protocol, which long work calls and every display implements."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Callback with the progress of a step of long work: `done` of `total` units, and a note such as the last loss."""

    def __call__(self, step: str, done: int, total: int, note: str = "", /) -> None: ...


def silent(step: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""


def within(
    progress: Progress, *, step: str | None = None, before: int = 0, total: int | None = None, note: str | None = None
) -> Progress:
    """Return a callback for a part of larger work, counted from `before` of `total`, under its step and note."""

    def show(own_step: str, done: int, own_total: int, own_note: str = "") -> None:
        progress(
            step or own_step,
            before + done,
            own_total if total is None else total,
            own_note if note is None else note,
        )

    return show
