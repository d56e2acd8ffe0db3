"""The furniture of a report: a page with its style, figures, bars, and numbers as people read them.

Whatever comes from a user or a file passes through :func:`text`. The page is readable on a phone and in the dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2430; --faint: #c3cad4; --soft: #f2f5f9;
  --first: #1f6fd6; --second: #c2410c; --third: #0f8a5f; }
@media (prefers-color-scheme: dark) { :root { --page: #14181f; --ink: #e3e8ef; --faint: #4b5563; --soft: #1e2530;
  --first: #6aa9ff; --second: #ff9d5c; --third: #4cd2a0; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 80rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
.lead { font-size: 1.1rem; max-width: 60rem; overflow-wrap: anywhere; }
.tiles { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
.tile { background: var(--soft); border-radius: .5rem; padding: .75rem 1rem; display: flex; flex-direction: column; }
.tile b { font-size: 1.8rem; line-height: 1.2; }
small { display: block; font-size: .8rem; opacity: .8; white-space: nowrap; }
.figures { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
figure { margin: 0; min-width: 0; } figcaption { font-size: .9rem; max-width: 60rem; }
svg { max-width: 100%; height: auto; stroke-linejoin: round; } svg text { font-family: system-ui, sans-serif; }
.wide svg { max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--faint); }
th { font-weight: 600; } tbody th { min-width: 7rem; max-width: 18rem; overflow-wrap: anywhere; }
.bar { position: relative; width: 9rem; height: .7rem; margin-top: .4rem; background: var(--soft); }
.bar span { position: absolute; inset: 0 auto 0 0; background: var(--first); }
.bar i { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; background: var(--second); }
"""


def page(title: str, body: str) -> str:
    """A whole HTML page; `title` is plain text, `body` is HTML."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>mgc: {text(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{text(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def figure(chart: str, title: str, said: str, *, wide: bool = False) -> str:
    """A chart with its title above and a sentence below that says what to see."""
    kind = " class=wide" if wide else ""
    return (
        f"<figure{kind}><h3>{text(title)}</h3><div class=scroll>{chart}</div>"
        f"<figcaption>{text(said)}</figcaption></figure>"
    )


def bar(value: float | None, *, tick: float | None = None) -> str:
    if value is None:
        return "–"
    mark = "" if tick is None else f'<i style="left:{100 * tick:.1f}%"></i>'
    return f'<div class=bar><span style="width:{100 * value:.1f}%"></span>{mark}</div><small>{value:.3f}</small>'


def number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def interval(estimate: Json) -> str:
    low, high = estimate.get("low"), estimate.get("high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def text(value: object) -> str:
    return html.escape(str(value))
