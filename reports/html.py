"""The furniture of a report: a page, its style, tables that sort and filter, figures, numbers as people read them.

Whatever comes from a user or a file passes through :func:`text`. The page is readable on a phone, in the dark, on paper
and without scripts; the one script there is, is named by its hash, so that no other can run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
Cell = str | tuple[str, float | str | None]
"""HTML of a table's cell, and what it sorts by where that is not the number or text it begins with."""

COLOURS = {
    "page": ("#ffffff", "#14181f"),
    "ink": ("#1c2430", "#e3e8ef"),
    "muted": ("#4a5565", "#aab4c2"),
    "faint": ("#c3cad4", "#4b5563"),
    "soft": ("#f2f5f9", "#1e2530"),
    "first": ("#1b63c0", "#6aa9ff"),
    "second": ("#b93b0a", "#ff9d5c"),
    "third": ("#0b7550", "#4cd2a0"),
}
"""By name: in the light, in the dark."""

STYLE = """
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 80rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; } .scroll + h3 { margin-top: 1.5rem; }
p, ul, figcaption { max-width: 60rem; overflow-wrap: anywhere; }
a { color: var(--first); }
:focus-visible { outline: 2px solid var(--first); outline-offset: 2px; }
nav { font-size: .9rem; } nav a { display: inline-block; padding: .25rem 1rem .25rem 0; }
.lead { font-size: 1.1rem; }
.tiles { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
.tile { background: var(--soft); border-radius: .5rem; padding: .75rem 1rem; display: flex; flex-direction: column; }
.tile b { font-size: 1.8rem; line-height: 1.2; }
small { display: block; font-size: .8rem; color: var(--muted); white-space: nowrap; }
.figures { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
figure { margin: 1.5rem 0 0; min-width: 0; } .figures figure { margin: 0; } figcaption { font-size: .9rem; }
svg { max-width: 100%; height: auto; stroke-linejoin: round; } svg text { font-family: system-ui, sans-serif; }
.wide svg { max-width: none; }
.scroll { overflow: auto; }
.tall { max-height: min(40rem, 75vh); }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--faint); }
th { font-weight: 600; background: var(--page); }
.tall thead th { position: sticky; top: 0; z-index: 1; }
@media (max-width: 40rem) { tbody th { max-width: 8rem; } }
tbody th { min-width: 6rem; max-width: 18rem; overflow-wrap: break-word; position: sticky; left: 0; }
th button { font: inherit; color: inherit; text-align: left; background: none; border: 0; padding: 0; cursor: pointer; }
th button::after { content: " \\2195"; color: var(--muted); }
[aria-sort=ascending] button::after { content: " \\2191"; } [aria-sort=descending] button::after { content: " \\2193"; }
.find { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: center; margin: .5rem 0; }
.find input { font: inherit; color: inherit; background: var(--soft); border: 1px solid var(--muted);
  border-radius: .3rem; padding: .25rem .5rem; max-width: 100%; box-sizing: border-box; }
.bar { position: relative; width: 9rem; height: .7rem; margin-top: .4rem; background: var(--soft); }
.bar span { position: absolute; inset: 0 auto 0 0; background: var(--first); }
.bar i { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; background: var(--second); }
audio { width: 18rem; max-width: 100%; height: 2.5rem; }
.tracks { display: grid; gap: 1.25rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  padding-left: 1.5rem; }
.tracks p { margin: .25rem 0; } .note { font-size: .8rem; color: var(--muted); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .75rem; margin: .25rem 0; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
.beside { min-width: 0; } .said { min-width: 14rem; max-width: 34rem; overflow-wrap: anywhere; }
details { margin-top: .75rem; } summary { cursor: pointer; }
@media print { .tall { max-height: none; } .find, nav { display: none; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  const shown = (row, i) => row.cells[i].dataset.sort ?? row.cells[i].textContent.trim();
  const missing = (value) => value === "" || value === "–";
  const number = (value) => parseFloat(value.replace(/,(?=\\d{3})/g, "").replace("−", "-"));
  const numeric = heads.map((_, i) => rows.every((row) => missing(shown(row, i)) || /^[-+−]?\\d/.test(shown(row, i))));
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !numeric[i];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (a, b) => (numeric[i] ? number(a) - number(b) : a.localeCompare(b, undefined, {numeric: true}));
      body.append(...[...body.rows].sort((one, other) => {
        const a = shown(one, i), b = shown(other, i);
        return missing(a) || missing(b) ? missing(a) - missing(b) : order(a, b) * (up ? 1 : -1);
      }));
    };
  });
  if (!table.dataset.find) continue;
  const label = document.createElement("label"), input = document.createElement("input");
  const count = document.createElement("output");
  label.className = "find";
  input.type = "search";
  label.append(table.dataset.find, input, count);
  table.parentElement.before(label);
  const words = rows.map((row) => heads.map((_, i) => (numeric[i] ? "" : row.cells[i].textContent)).join(" "));
  const find = () => {
    const wanted = input.value.trim().toLowerCase();
    rows.forEach((row, i) => { row.hidden = !words[i].toLowerCase().includes(wanted); });
    const left = rows.filter((row) => !row.hidden).length;
    count.value = wanted ? `${left} of ${rows.length} rows` : "";
  };
  input.oninput = find;
  find();
}
const reach = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    scrolls ? box.setAttribute("tabindex", "0") : box.removeAttribute("tabindex");
  }
};
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true);
reach();
"""


def page(title: str, body: str) -> str:
    """A whole HTML page; `title` is plain text, `body` is HTML, whose ``<h2>`` become a list of links at its top."""
    body, links = _numbered(body)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n<title>mgc: {text(title)}</title>\n'
        f"<style>{root_colours()}{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{text(title)}</h1>\n{links}{body}\n</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def root_colours() -> str:
    """CSS variables of :data:`COLOURS`, light and dark."""
    light, dark = ("; ".join(f"--{name}: {both[i]}" for name, both in COLOURS.items()) for i in (0, 1))
    return (
        f"\n:root {{ color-scheme: light dark; {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    )


def _policy() -> str:
    """What a browser may do with the page: show it, run its own script, and play songs that it names."""
    script = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'unsafe-inline'; img-src data:; "
        "media-src 'self' file:"
    )


def _numbered(body: str) -> tuple[str, str]:
    """The body with an id in each ``<h2>``, and links to them."""
    titles = re.findall(r"<h2>(.*?)</h2>", body)
    ids = iter(range(1, len(titles) + 1))
    body = re.sub(r"<h2>", lambda _: f'<h2 id="section-{next(ids)}">', body)
    links = "".join(f'<a href="#section-{i}">{title}</a>' for i, title in enumerate(titles, 1))
    return body, f'<nav aria-label="Sections">{links}</nav>\n' if len(titles) > 1 else ""


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    about: str,
    sortable: bool = False,
    find: str | None = None,
    tall: bool = False,
) -> str:
    """A table in a box that scrolls by itself; the first cell of each row is its head.

    Parameters
    ----------
    heads : of the columns, plain text.
    about : what it is a table of, for who does not see it.
    sortable : a click (or the Enter key) on a column's head sorts by it: numbers from the largest, missing ones ("–")
        last. Without scripts the table stands in the order of `rows`.
    find : label of a box that leaves only the rows with a text in them; needs `sortable`.
    tall : many rows: the box is no higher than a screen, and the heads stay in sight.
    """
    head = "".join(f"<th scope=col>{text(name)}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(_cell(cell, 'td' if i else 'th') for i, cell in enumerate(row))}</tr>\n" for row in rows
    )
    kind = " class=sortable" if sortable else ""
    search = "" if find is None else f' data-find="{text(find)}"'
    return (
        f'<div class="scroll{" tall" if tall else ""}" role=region aria-label="{text(about)}"><table{kind}{search}>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def _cell(cell: Cell, tag: str) -> str:
    shown, key = (cell, None) if isinstance(cell, str) else cell
    scope = " scope=row" if tag == "th" else ""
    sort = "" if key is None else f' data-sort="{text(key)}"'
    return f"<{tag}{scope}{sort}>{shown}</{tag}>"


def figure(chart: str, title: str, said: str, *, wide: bool = False) -> str:
    """A chart with its title above and a sentence below that says what to see."""
    kind = " class=wide" if wide else ""
    return (
        f'<figure{kind}><h3>{text(title)}</h3><div class=scroll role=region aria-label="{text(title)}">{chart}</div>'
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
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def text(value: object) -> str:
    return html.escape(str(value))
