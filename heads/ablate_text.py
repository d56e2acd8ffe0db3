"""The tables of an ablation as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ..cache.messages import counted
from .ablate_rows import PUBLISHED_ON
from .ablate_tables import METRICS
from .bootstrap import LEVEL

Json = Mapping[str, Any]

SHOWN = ("accuracy", "f1", "accuracy_tuned", "f1_tuned", "map", "empty_share")
WITH_INTERVAL = frozenset({"accuracy", "f1", "map"})
COMPARED = ("accuracy", "accuracy_tuned", "map")
"""Metrics whose difference to the reference row has a column."""

CSV_COLUMNS = (
    "table", "row", "metric", "seeds", "value", "sd", "low", "high", "difference", "difference_low", "difference_high",
    "verdict", "published", "note",
)  # fmt: skip


def markdown(document: Json, plots: Mapping[str, str] | None = None) -> str:
    """All tables as one page; `plots` are file names by table."""
    about = document["caption"]
    parts = ["# Ablations\n", caption_text(about) + "\n", reading_text(about) + "\n"]
    for table in document["tables"]:
        parts += [f"## {table['title']}\n", _markdown_table(table)]
        if plots and table["name"] in plots:
            parts.append(f"![{table['title']}]({plots[table['name']]})\n")
    if document["failures"]:
        parts.append("## Runs that failed\n")
        parts += [f"- {', '.join(failure['serves'])}: {failure['reason']}" for failure in document["failures"]]
        parts.append("")
    return "\n".join(parts)


def caption_text(about: Json) -> str:
    """The caption as sentences."""
    said = [f"Store {about['store']}, encoder `{about['encoder']}`, {counted(about['epochs'], 'epoch')}, batches of "
            f"{about['batch_size']}, learning rate {about['lr']:g}, {counted(len(about['seeds']), 'seed')} "
            f"({about['runs_finished']} of {about['runs']} runs finished)."]  # fmt: skip
    if about["labels_sha256"] is not None:
        said.append(f"Labels of a table in place of the store's (sha256 {about['labels_sha256'][:12]}).")
    if "n_test" not in about:
        return " ".join(said)
    of_what = (f"{counted(about['n_songs'], 'song')} by {counted(about['n_artists'], 'artist')}; "
               f"{counted(about['n_genres'], 'genre')}")  # fmt: skip
    if about["folds"]:
        said.append(f"Cross-validation, {about['split']}: the {about['n_test']} tested tracks of all folds are pooled, "
                    f"each scored by a model that has not seen its fold: {of_what}.")  # fmt: skip
    else:
        said.append(f"Split `{about['split']}`: {about['n_train']} training, {about['n_validation']} validation and "
                    f"{about['n_test']} test tracks; the test tracks are {of_what}.")  # fmt: skip
    if about["n_test_left_out"]:
        said.append(f"{counted(about['n_test_left_out'], 'test track')} with none of these genres left out.")
    if about["genres_left_out"]:
        said.append(f"Not learned in every fold, so left out: {', '.join(about['genres_left_out'])}.")
    if about["undefined_genres"]:
        said.append(f"Without a test track, so in no mAP: {', '.join(about['undefined_genres'])}.")
    said.append(f"Trained on {', '.join(about['device'])} in {', '.join(about['precision'])}, {about['hours']:.2f} "
                "hours of training in all.")  # fmt: skip
    if len(about["mgc"]) > 1:
        said.append(f"**Runs of several versions of mgc stand in one table: {', '.join(about['mgc'])}.**")
    if about["few"]:
        said.append(f"**{counted(about['n_artists'], 'artist')} and {counted(about['n_songs'], 'song')} are too few to "
                    "claim anything from; the table shows that every system trains.**")  # fmt: skip
    return " ".join(said)


def reading_text(about: Json) -> str:
    """What the columns mean."""
    seeds = "artists and seeds, the same ones for both systems"
    if len(about["seeds"]) == 1:
        seeds = "artists, the same ones for both systems; with one seed, what another would do is not in them"
    return (
        "Accuracy is the example-based Jaccard index and F the example-based F1, at threshold 0.5, or at the one tuned "
        "on validation tracks; empty is the share of tracks without a prediction at 0.5. ± is the standard deviation "
        f"over seeds; brackets hold {LEVEL:.0%} bootstrap intervals ({about['n_replicates']} draws). Those of a value "
        f"resample artists; those of a difference resample {seeds}. A difference whose interval holds 0 is undecided. "
        f"Published numbers are the paper's, on {PUBLISHED_ON}."
    )


def _markdown_table(table: Json) -> str:
    published = any(row["published"] for row in table["rows"])
    heads = [table["x_label"] or "system", *(METRICS[name] for name in SHOWN)]
    heads += [f"{METRICS[name]} − {table['reference']}" for name in COMPARED]
    if published:
        heads += [f"published accuracy, {PUBLISHED_ON}", f"published F, {PUBLISHED_ON}"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in table["rows"]:
        metrics = row["metrics"]
        cells = [row["name"] + (f" ({row['note']})" if row["note"] else "")]
        cells += [_value(metrics.get(name), brackets=name in WITH_INTERVAL) for name in SHOWN]
        cells += [_difference(metrics.get(name)) for name in COMPARED]
        if published:
            cells += [f"{row['published'][name]:.3f}" if row["published"] else "" for name in ("accuracy", "f1")]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _value(cell: Json | None, *, brackets: bool) -> str:
    if cell is None:
        return "–"
    if cell["value"] is None:
        return "undefined"
    spread = "" if cell["sd"] is None else f" ± {cell['sd']:.3f}"
    return f"{cell['value']:.3f}{spread}" + (_interval(cell) if brackets else "")


def _difference(cell: Json | None) -> str:
    if cell is None or cell["difference"] is None:
        return ""
    difference = cell["difference"]
    if difference["value"] is None:
        return "undefined"
    return f"{difference['value']:+.3f}{_interval(difference, signed=True)} {cell['verdict']}"


def _interval(cell: Json, *, signed: bool = False) -> str:
    if cell["low"] is None or cell["high"] is None:
        return ""
    form = "+.3f" if signed else ".3f"
    return f" [{cell['low']:{form}}, {cell['high']:{form}}]"


def csv_text(document: Json) -> str:
    """One line a table, row and metric; empty where undefined."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in document["tables"]:
        for row in table["rows"]:
            start = {"table": table["name"], "row": row["name"], "seeds": row["n_seeds"], "note": row["note"]}
            for metric in METRICS:
                cell = row["metrics"].get(metric)
                published = (row["published"] or {}).get(metric)
                if cell is not None or published is not None:
                    writer.writerow({**start, "metric": metric, "published": published, **_csv_cells(cell)})
    return out.getvalue()


def _csv_cells(cell: Json | None) -> dict[str, Any]:
    if cell is None:
        return {}
    values = {name: cell[name] for name in ("value", "sd", "low", "high", "verdict")}
    if cell["difference"] is not None:
        names = {"difference": "value", "difference_low": "low", "difference_high": "high"}
        values |= {column: cell["difference"][name] for column, name in names.items()}
    return values
