"""Plots of an ablation's tables as SVG files: rows with their intervals, sweeps as curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache.durable import replace_file
from ..cache.errors import MissingExtraError
from .ablate_rows import PUBLISHED_ON
from .charts import FAINT, INK, LINES, drawing, svg_text
from .page import root_colours

Json = Mapping[str, Any]

ASIDE = 0.008
"""What keeps the intervals of several curves from lying on each other."""

CURVES = {"accuracy": "accuracy", "f1": "F", "map": "mAP"}


def draw_tables(folder: Path, document: Json) -> tuple[dict[str, str], list[str]]:
    """Write a plot of each table that has a finished row.

    Returns
    -------
    plots : file names by table.
    remarks : why there is none, where the extra for plots is missing.
    """
    plots: dict[str, str] = {}
    try:
        for table in document["tables"]:
            rows = [row for row in table["rows"] if row["metrics"]]
            if rows:
                chart = _sweep(table, rows) if table["x_label"] else _rows(table, rows)
                plots[table["name"]] = f"{table['name']}.svg"
                replace_file(folder / plots[table["name"]], standalone(chart).encode())
    except MissingExtraError as error:
        return {}, [f"no plots: {error}"]
    return plots, []


def standalone(svg: str) -> str:
    """A chart of a page as a file of its own: with namespaces, and with the page's colours, light and dark."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    style = f"<style>{root_colours()} svg {{ background: var(--page); font-family: sans-serif; }}</style>"
    return re.sub(r"<svg([^>]*)>", rf"<svg {names}\1>{style}", svg, count=1) + "\n"


def _rows(table: Json, rows: Sequence[Json]) -> str:
    """Accuracy of each row with its interval, and what was published."""
    places = list(range(len(rows)))[::-1]
    with drawing(table["title"], 5.6, 0.34 * len(rows) + 1.0) as (figure, axes):
        for place, row in zip(places, rows, strict=True):
            cell = row["metrics"]["accuracy"]
            if cell["low"] is not None:
                axes.plot([cell["low"], cell["high"]], [place, place], color=LINES[0], linewidth=1.8)
        values = [row["metrics"]["accuracy"]["value"] for row in rows]
        axes.plot(values, places, "o", color=LINES[0], label="here, with 95 % interval", markersize=5)
        known = [(row["published"]["accuracy"], place) for row, place in zip(rows, places, strict=True)
                 if row["published"]]  # fmt: skip
        if known:
            axes.plot(*zip(*known, strict=True), "D", color=LINES[1], markerfacecolor="none", markersize=5,
                      label=f"published, {PUBLISHED_ON}")  # fmt: skip
        axes.set_yticks(places, [row["name"] for row in rows])
        axes.set_xlabel("accuracy (Jaccard index at threshold 0.5)")
        axes.grid(axis="x", color=FAINT, linewidth=0.4)
        axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return svg_text(figure, table["title"])


def _sweep(table: Json, rows: Sequence[Json]) -> str:
    """Metrics over the values of the sweep, with intervals."""
    x = [float(row["name"]) for row in rows]
    with drawing(table["title"], 5.0, 3.4) as (figure, axes):
        for (metric, name), colour, aside in zip(CURVES.items(), LINES, (-ASIDE, 0.0, ASIDE), strict=True):
            cells = [row["metrics"][metric] for row in rows]
            values = [float("nan") if cell["value"] is None else cell["value"] for cell in cells]
            axes.plot(x, values, color=colour, label=name, marker="o", markersize=3)
            for at, cell in zip(x, cells, strict=True):
                if cell["low"] is not None:
                    axes.plot([at + aside] * 2, [cell["low"], cell["high"]], color=colour, linewidth=0.8)
        axes.axvline(float(table["reference"]), color=FAINT, linewidth=1)
        axes.annotate("best in the paper", (float(table["reference"]), 1), xycoords=("data", "axes fraction"),
                      xytext=(0, 2), ha="center", textcoords="offset points", fontsize=8, color=INK)  # fmt: skip
        axes.set_xlabel(table["x_label"])
        axes.set_ylabel("share (0 to 1)")
        axes.set_ylim(bottom=0)
        axes.grid(color=FAINT, linewidth=0.4)
        axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.2), borderaxespad=0)
        return svg_text(figure, table["title"])
