"""Words and numbers that messages of every layer are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping


def counted(n: int, noun: str, *, separator: str = "") -> str:
    """``1 track``, ``2 tracks``; `separator` stands between thousands."""
    return f"{n:{separator}} {noun}" + ("" if n == 1 else "s")


def number(value: float | None, *, sign: bool = False, missing: str = "–") -> str:
    """Return a value with three decimals; `missing` where it is None, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return missing
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def interval(
    estimate: Mapping[str, float | None],
    form: str = "{} to {}",
    *,
    digits: int = 3,
    sign: bool = False,
    missing: str = "",
) -> str:
    """Return the ends of an estimate's interval in `form`; `missing` where it has none."""
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return missing
    return form.format(*(f"{end:{'+' if sign else ''}.{digits}f}" for end in (low, high)))
