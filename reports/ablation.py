"""The tables of an ablation as Markdown, CSV, JSON and SVG plots."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache.durable import replace_file
from ..cache.errors import MissingExtraError
from ..cache.messages import counted, csv_row, has_intervals, interval, number
from ..heads.ablation.paper_tables import PUBLISHED_ON
from ..heads.metrics.bootstrap import LEVEL
from ..heads.metrics.names import ABLATION_METRICS
from ..heads.metrics.phrases import by_artists, resampled
from .charts import FAINT, LINES, drawing, name_above, svg_text
from .html import Json, static

COLUMNS = ("accuracy", "f1", "accuracy_tuned", "f1_tuned", "map", "empty_share")
WITH_INTERVAL = frozenset({"accuracy", "f1", "map"})
COMPARED = ("accuracy", "accuracy_tuned", "map")
"""Metrics with a column for the difference to the reference."""
CURVES = ("accuracy", "f1", "map")
"""Metrics in the plot of a sweep."""
CURVE_SHIFT = 0.008
"""Horizontal distance between the CIs of several curves, so that they do not overlap."""

SIGNIFICANCE = {
    "better": "significantly better",
    "worse": "significantly worse",
    "higher": "significantly higher",
    "lower": "significantly lower",
}
"""Verdicts of ``tables.json`` -> text in Markdown and CSV."""

CSV_VALUES = ("value", "sd", "low", "high")
CSV_DIFFERENCE = {"difference": "value", "difference_low": "low", "difference_high": "high"}
CSV_COLUMNS = ("table", "row", "metric", "seeds", *CSV_VALUES, *CSV_DIFFERENCE, "verdict", "published", "note")


def write_ablation(folder: Path, document: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Write ``tables.md``, ``.csv``, ``.json`` and plots; return the paths, and remarks if plots are missing."""
    plots, remarks = draw_tables(folder, document)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(folder / "tables.json", text.encode())
    replace_file(folder / "tables.md", markdown(document, plots).encode())
    replace_file(folder / "tables.csv", csv_text(document).encode())
    names = ["tables.md", "tables.csv", "tables.json", *plots.values()]
    return [str(folder / name) for name in names], remarks


def markdown(document: Json, plots: Mapping[str, str] | None = None) -> str:
    """Return all tables as Markdown; `plots` maps table names to file names."""
    about = document["caption"]
    reading = reading_text(about, with_intervals=has_intervals(document["tables"]))
    parts = ["# Ablation results\n", caption_text(about) + "\n", reading + "\n"]
    for table in document["tables"]:
        parts += [f"## {table['title']}\n", _markdown_table(table)]
        if plots and table["name"] in plots:
            parts.append(f"![{table['title']}]({plots[table['name']]})\n")
    if about.get("warnings"):
        parts += ["## Warnings\n", *(f"- {warning}" for warning in about["warnings"]), ""]
    if document["failures"]:
        parts.append("## Failed runs\n")
        parts += [f"- {', '.join(failure['serves'])}: {failure['reason']}" for failure in document["failures"]]
        parts.append("")
    return "\n".join(parts)


def caption_text(about: Json) -> str:
    """Return the caption: store, settings, split and training time."""
    epochs = "epochs set by the number of tracks" if about["epochs"] is None else counted(about["epochs"], "epoch")
    rate = "learning rate set by the number of steps" if about["lr"] is None else f"learning rate {about['lr']:g}"
    sentences = [
        f"Store `{about['store']}`, preset `{about['preset']}`, encoder `{about['encoder']}`, {epochs}, batches of "
        f"{about['batch_size']}, {rate}, {counted(len(about['seeds']), 'seed')} "
        f"({about['runs_finished']} of {about['runs']} runs finished)."
    ]
    if about["labels_sha256"] is not None:
        sentences.append(f"Labels from a table instead of the store (sha256 {about['labels_sha256'][:12]}).")
    if (audio := about.get("audio") or ["mel"]) != ["mel"]:
        sentences.append(f"Audio inputs: {', '.join(audio)}.")
    if "n_test" not in about:
        return " ".join(sentences)
    songs = counted(about["n_songs"], "song")
    artists = by_artists(about["n_test"], about["n_artists"], about.get("n_with_artist", about["n_test"]))
    tested = f"{songs} {artists}; {counted(about['n_genres'], 'genre')}"
    if about["folds"]:
        sentences.append(
            f"Cross-validation, {about['split']}: the {about['n_test']} test tracks of all folds are pooled; each is "
            f"scored by the model that was tested on its fold. They are {tested}."
        )
    else:
        sentences.append(
            f"Split `{about['split']}`: {about['n_train']} training, {about['n_validation']} validation and "
            f"{about['n_test']} test tracks; the test tracks are {tested}."
        )
    if about["n_test_left_out"]:
        sentences.append(f"Excluded: {counted(about['n_test_left_out'], 'test track')} without any of these genres.")
    if about["genres_left_out"]:
        sentences.append(f"Excluded genres, not learned in every fold: {', '.join(about['genres_left_out'])}.")
    if about["undefined_genres"]:
        sentences.append(f"Excluded from mAP, as they have no test track: {', '.join(about['undefined_genres'])}.")
    sentences.append(
        f"Device {', '.join(about['device'])}, precision {', '.join(about['precision'])}, total training time "
        f"{about['hours']:.2f} h."
    )
    if len(about["mgc"]) > 1:
        sentences.append(f"**The runs are from several versions of mgc: {', '.join(about['mgc'])}.**")
    if about["few"]:
        sentences.append(
            f"**{songs} {artists} are too few to compare systems; the tables only show that every system trains.**"
        )
    return " ".join(sentences)


def reading_text(about: Json, *, with_intervals: bool) -> str:
    """Return the definitions of the columns; those of brackets and significance only if the tables have intervals."""
    n_test = about.get("n_test", 0)
    units = resampled(n_test, about.get("n_with_artist", n_test))
    seeds = f"{units} and seeds, the same for both systems."
    if len(about["seeds"]) == 1:
        seeds = f"{units}, the same for both systems; with one seed they do not include the variance between seeds."
    level = f"{100 * LEVEL:g} %"
    brackets = (
        f"Brackets are {level} confidence intervals (CI) from {about['n_replicates']} bootstrap draws. CIs of values "
        f"resample {units}; CIs of differences resample {seeds} A difference is significant if its {level} CI "
        "excludes 0. "
    )
    return (
        "Accuracy is the example-based Jaccard index and F the example-based F1. Both use threshold 0.5, or the "
        "threshold tuned on validation tracks (tuned). Empty is the share of tracks without a prediction at 0.5. ± is "
        f"the standard deviation over seeds. {brackets if with_intervals else ''}Published values are from the paper, "
        f"on {PUBLISHED_ON}."
    )


def _markdown_table(table: Json) -> str:
    published = any(row["published"] for row in table["rows"])
    heads = [table["x_label"] or "system", *(ABLATION_METRICS[name].name for name in COLUMNS)]
    heads += [f"{ABLATION_METRICS[name].name} − {table['reference']}" for name in COMPARED]
    if published:
        heads += [f"published accuracy, {PUBLISHED_ON}", f"published F, {PUBLISHED_ON}"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in table["rows"]:
        metrics = row["metrics"]
        cells = [row["name"] + (f" ({row['note']})" if row["note"] else "")]
        cells += [_value(metrics.get(name), brackets=name in WITH_INTERVAL) for name in COLUMNS]
        cells += [_difference(metrics.get(name)) for name in COMPARED]
        if published:
            cells += [number(row["published"][name]) if row["published"] else "" for name in ("accuracy", "f1")]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _value(cell: Json | None, *, brackets: bool) -> str:
    if cell is None:
        return "–"
    if cell["value"] is None:
        return "undefined"
    spread = "" if cell["sd"] is None else f" ± {number(cell['sd'])}"
    return number(cell["value"]) + spread + (interval(cell, " [{}, {}]") if brackets else "")


def _difference(cell: Json | None) -> str:
    if cell is None or cell["difference"] is None:
        return ""
    difference = cell["difference"]
    if difference["value"] is None:
        return "undefined"
    limits = interval(difference, " [{}, {}]", sign=True)
    return f"{number(difference['value'], sign=True)}{limits} {_significance(cell)}"


def _significance(cell: Json) -> str | None:
    """Return the verdict of a difference as text; None for the reference row."""
    return cell["verdict"] and SIGNIFICANCE.get(cell["verdict"], cell["verdict"])


def csv_text(document: Json) -> str:
    """Return one CSV line per table, row and metric; undefined values are empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in document["tables"]:
        for row in table["rows"]:
            start = {"table": table["name"], "row": row["name"], "seeds": row["n_seeds"], "note": row["note"]}
            for metric in ABLATION_METRICS:
                cell = row["metrics"].get(metric)
                published = (row["published"] or {}).get(metric)
                if cell is not None or published is not None:
                    writer.writerow(csv_row({**start, "metric": metric, "published": published, **_csv_cells(cell)}))
    return out.getvalue()


def _csv_cells(cell: Json | None) -> dict[str, Any]:
    if cell is None:
        return {}
    values = {name: cell[name] for name in CSV_VALUES} | {"verdict": _significance(cell)}
    if cell["difference"] is not None:
        values |= {column: cell["difference"][name] for column, name in CSV_DIFFERENCE.items()}
    return values


def draw_tables(folder: Path, document: Json) -> tuple[dict[str, str], list[str]]:
    """Write one plot per table with a finished row.

    Returns
    -------
    plots : table name -> file name.
    remarks : the reason if there are no plots because an extra is missing.
    """
    plots: dict[str, str] = {}
    try:
        for table in document["tables"]:
            rows = [row for row in table["rows"] if row["metrics"]]
            if rows:
                svg = _sweep(table, rows) if table["x_label"] else _rows(table, rows)
                plots[table["name"]] = f"{table['name']}.svg"
                replace_file(folder / plots[table["name"]], standalone(svg).encode())
    except MissingExtraError as error:
        return {}, [f"no plots: {error}"]
    return plots, []


def standalone(svg: str) -> str:
    """Turn the chart of a page into an SVG file: add namespaces and the light and dark colours of the page."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    style = f"<style>{static('colours.css')}svg {{ background: var(--page); font-family: sans-serif; }}</style>"
    return re.sub(r"<svg([^>]*)>", lambda match: f"<svg {names}{match[1]}>{style}", svg, count=1) + "\n"


def _rows(table: Json, rows: Sequence[Json]) -> str:
    """Draw the accuracy of each row with its 95 % CI, and the published accuracy."""
    places = list(range(len(rows)))[::-1]
    with drawing(table["title"], 5.6, 0.34 * len(rows) + 1.0) as (figure, axes):
        for place, row in zip(places, rows, strict=True):
            cell = row["metrics"]["accuracy"]
            if cell["low"] is not None:
                axes.plot([cell["low"], cell["high"]], [place, place], color=LINES[0], linewidth=1.8)
        values = [row["metrics"]["accuracy"]["value"] for row in rows]
        label = (
            "this ablation, 95 % CI" if has_intervals([row["metrics"]["accuracy"] for row in rows]) else "this ablation"
        )
        axes.plot(values, places, "o", color=LINES[0], label=label, markersize=5)
        published = [(row["published"]["accuracy"], y) for y, row in zip(places, rows, strict=True) if row["published"]]
        if published:
            name = f"published, {PUBLISHED_ON}"
            x, y = zip(*published, strict=True)
            axes.plot(x, y, "D", color=LINES[1], label=name, markerfacecolor="none", markersize=5)
        axes.set_yticks(places, [row["name"] for row in rows])
        axes.set_xlabel("accuracy (Jaccard index at threshold 0.5)")
        axes.grid(axis="x")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return svg_text(figure, table["title"])


def _sweep(table: Json, rows: Sequence[Json]) -> str:
    """Draw metrics over the values of the sweep, with 95 % CIs."""
    x = [float(row["name"]) for row in rows]
    reference = float(table["reference"])
    with drawing(table["title"], 5.0, 3.4) as (figure, axes):
        for metric, colour, shift in zip(CURVES, LINES, (-CURVE_SHIFT, 0.0, CURVE_SHIFT), strict=True):
            cells = [row["metrics"][metric] for row in rows]
            values = [float("nan") if cell["value"] is None else cell["value"] for cell in cells]
            axes.plot(x, values, color=colour, label=ABLATION_METRICS[metric].name, marker="o", markersize=3)
            for at, cell in zip(x, cells, strict=True):
                if cell["low"] is not None:
                    axes.plot([at + shift] * 2, [cell["low"], cell["high"]], color=colour, linewidth=0.8)
        axes.axvline(reference, color=FAINT, linewidth=1)
        name_above(axes, reference, "best in the paper")
        axes.set(xlabel=table["x_label"], ylabel="metric (0 to 1)", ylim=(0, None))
        axes.grid()
        axes.legend(ncols=3, loc="upper left", bbox_to_anchor=(0, -0.2), borderaxespad=0)
        return svg_text(figure, table["title"])
