"""Words that messages of every layer are made of."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """``1 track``, ``2 tracks``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
