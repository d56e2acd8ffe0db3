"""Time several implementations in turn within one run, compare their results each time, print medians and ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class DisagreementError(SystemExit):
    """Raised if two implementations give different results; their speeds are not printed."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Time in s of each run of each implementation, in the order of the rounds."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> str:
        """Return the speed-up of `fast` over `slow`: median over the rounds, lowest and highest in brackets."""
        ratios = [a / b for a, b in zip(self.seconds[slow], self.seconds[fast], strict=True)]
        return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def in_turn(
    functions: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    agree: Callable[[Any, Any], str | None] | None = None,
    before_each: Callable[[], None] = lambda: None,
    warm_up: bool = True,
) -> Times:
    """Run every implementation once per round, after a warm-up round; each round starts with the next implementation.

    Parameters
    ----------
    functions : name -> function to time; the first is the reference of `agree`.
    agree : function of the reference result and another result; returns the difference as text, or None. Without it,
        results are not compared.
    before_each : called before each run, untimed.
    warm_up : False for whole processes.

    Raises
    ------
    DisagreementError
        If results differ.
    """
    names, seconds = list(functions), {name: [] for name in functions}
    for turn in range(-1 if warm_up else 0, rounds):
        results, start = {}, max(turn, 0) % len(names)
        for name in [*names[start:], *names[:start]]:
            before_each()
            started = time.perf_counter()
            results[name] = functions[name]()
            elapsed = time.perf_counter() - started
            if turn >= 0:
                seconds[name].append(elapsed)
        for name in names[1:] if agree is not None else ():
            assert agree is not None
            wrong = agree(results[names[0]], results[name])
            if wrong:
                raise DisagreementError(f"{name}: result differs from that of {names[0]}: {wrong}")
    return Times(seconds=seconds)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table under a heading."""
    lines: list[Sequence[object]] = [header, ["---"] * len(header), *rows]
    return f"\n## {title}\n\n" + "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(values: list[float], scale: float = 1.0, digits: int = 3) -> str:
    """Return ``median [lowest, highest]``."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle * scale:.{digits}f} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"
