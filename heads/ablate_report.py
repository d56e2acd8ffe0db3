"""What an ablation has found so far, as one document and as files: ``tables.json``, ``tables.md``, ``tables.csv``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.durable import replace_file
from ..cache.errors import RunError
from ..cache.store import FeatureStore
from .ablate_rows import PUBLISHED_ON, TableSpec
from .ablate_runs import Failure, PlannedRun, finished, row_config, run_key
from .ablate_tables import METRICS, Measured, fill_table, measure_system, pooled
from .bootstrap import LEVEL, Resampling
from .predictions import ScoredTracks, load_predictions
from .task import newest_tracks

Json = Mapping[str, Any]


class Results:
    """The finished runs of a plan, measured once each however many rows they fill.

    Parameters
    ----------
    runs : the whole plan; those not finished are passed over.
    """

    def __init__(
        self,
        folder: Path,
        runs: Sequence[PlannedRun],
        *,
        n_replicates: int,
        seed: int,
        on_run: Callable[[int, int], None] | None = None,
    ) -> None:
        self.found = {run.key: result for run in runs if (result := finished(folder, run)) is not None}
        self.scored = {key: pooled([load_predictions(folder / "runs" / key)]) for key in self.found}
        _refuse_unequal(list(self.scored.values()))
        self.resampling = (
            Resampling.of(next(iter(self.scored.values())).groups, n_replicates, seed) if self.scored else None
        )
        self._systems: dict[tuple[str, ...], Measured] = {}

    @property
    def tracks(self) -> ScoredTracks | None:
        """The test tracks, which all runs share."""
        return next(iter(self.scored.values()), None)

    def system(self, keys: Mapping[int, str]) -> Measured | None:
        """The runs of one system by seed, those of `keys` that are finished."""
        here = {seed: key for seed, key in keys.items() if key in self.found}
        if not here or self.resampling is None:
            return None
        name = tuple(here.values())
        if name not in self._systems:
            self._systems[name] = measure_system(
                {seed: self.scored[key] for seed, key in here.items()}, self.resampling
            )
        return self._systems[name]


def _refuse_unequal(runs: Sequence[ScoredTracks]) -> None:
    for run in runs[1:]:
        first = runs[0]
        same = run.ids == first.ids and run.genres == first.genres and run.groups == first.groups
        if not (same and np.array_equal(run.labels, first.labels)):
            raise RunError(f"{run.run} and {first.run} were not tested on the same tracks and genres, so they cannot "
                           "stand in one table; give the ablation a folder of its own")  # fmt: skip


def tabulate(
    folder: Path,
    tables: Sequence[TableSpec],
    runs: Sequence[PlannedRun],
    store: FeatureStore,
    *,
    preset: str | None,
    options: Mapping[str, Any],
    seeds: Sequence[int],
    labels: Mapping[str, Sequence[str]] | None = None,
    failures: Sequence[Failure] = (),
    n_replicates: int = 1000,
    on_system: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Fill the tables with what is finished, and write them.

    Returns
    -------
    dict
        JSON values: ``caption``, ``tables`` (rows with metrics, published numbers and differences), ``failures``,
        ``files``.
    """
    results = Results(folder, runs, n_replicates=n_replicates, seed=0)
    reasons = {serves: failure.reason for failure in failures for serves in failure.serves}
    filled, done, total = [], 0, sum(len(spec.rows) for spec in tables)
    for spec in tables:
        measured: dict[str, Measured] = {}
        for row in spec.rows:
            keys = {seed: run_key(row_config(preset, options, row.options, seed)) for seed in seeds}
            if (system := results.system(keys)) is not None:
                measured[row.name] = system
            done += 1
            if on_system is not None:
                on_system(done, total)
        notes = {row.name: reasons[f"{spec.name}: {row.name}"] for row in spec.rows
                 if f"{spec.name}: {row.name}" in reasons}  # fmt: skip
        rows = fill_table(spec, measured, notes)
        filled.append({"name": spec.name, "title": spec.title, "reference": spec.reference, "x_label": spec.x_label,
                       "rows": [row.to_dict() for row in rows]})  # fmt: skip
    document = {
        "caption": _caption(results, runs, store, seeds, n_replicates, labels),
        "published_on": PUBLISHED_ON,
        "tables": filled,
        "failures": [failure.to_dict() for failure in failures],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(folder / "tables.json", text.encode())
    replace_file(folder / "tables.md", markdown(document).encode())
    replace_file(folder / "tables.csv", csv_text(document).encode())
    return {**document, "files": [str(folder / name) for name in ("tables.md", "tables.csv", "tables.json")]}


def _caption(
    results: Results,
    runs: Sequence[PlannedRun],
    store: FeatureStore,
    seeds: Sequence[int],
    n_replicates: int,
    labels: Mapping[str, Sequence[str]] | None,
) -> dict[str, Any]:
    base = runs[0].config
    about: dict[str, Any] = {
        "store": store.path.name,
        "seeds": list(seeds),
        "runs": len(runs),
        "runs_finished": len(results.found),
        "encoder": base.encoder,
        "epochs": base.epochs,
        "batch_size": base.batch_size,
        "lr": base.lr,
        "n_replicates": n_replicates,
    }
    if results.tracks is None:
        return about
    first = next(iter(results.found.values()))
    tested = set(results.tracks.ids)
    rows = [row for row in newest_tracks(store, labels).select(["id", "artists", "song"]).to_pylist()
            if row["id"] in tested]  # fmt: skip
    songs = {(tuple(row["artists"] or ()), row["song"] or row["id"]) for row in rows}
    return about | {
        "split": first["split"],
        "n_train": first["n_train"],
        "n_validation": first["n_validation"],
        "n_test": len(tested),
        "n_test_left_out": first["n_test_left_out"],
        "n_artists": len(set(results.tracks.groups)),
        "n_songs": len(songs),
        "n_genres": len(results.tracks.genres),
        "undefined_genres": [
            name
            for name, seen in zip(results.tracks.genres, np.any(results.tracks.labels, axis=0).tolist(), strict=True)
            if not seen
        ],
        "device": sorted({result["device"] for result in results.found.values()}),
        "precision": sorted({result["precision"] for result in results.found.values()}),
        "hours": round(sum(result["seconds"] for result in results.found.values()) / 3600, 3),
    }


def caption_text(about: Json) -> str:
    """The caption as sentences."""
    said = [f"Store {about['store']}, encoder `{about['encoder']}`, {about['epochs']} epochs, batches of "
            f"{about['batch_size']}, learning rate {about['lr']:g}, {_count(len(about['seeds']), 'seed')} "
            f"({about['runs_finished']} of {about['runs']} runs finished)."]  # fmt: skip
    if "n_test" not in about:
        return said[0]
    said.append(f"Split `{about['split']}`: {about['n_train']} training, {about['n_validation']} validation and "
                f"{about['n_test']} test tracks; the test tracks are {_count(about['n_songs'], 'song')} by "
                f"{_count(about['n_artists'], 'artist')}; {_count(about['n_genres'], 'genre')}.")  # fmt: skip
    if about["n_test_left_out"]:
        said.append(f"{about['n_test_left_out']} test tracks with none of these genres are left out.")
    if about["undefined_genres"]:
        said.append(f"Without a test track, so in no mAP: {', '.join(about['undefined_genres'])}.")
    said.append(f"Trained on {', '.join(about['device'])} in {', '.join(about['precision'])}, {about['hours']:.2f} "
                "hours of training in all.")  # fmt: skip
    return " ".join(said)


def reading_text(about: Json) -> str:
    """What the columns mean."""
    return (
        "Accuracy is the example-based Jaccard index and F the example-based F1, at threshold 0.5, or at the one tuned "
        "on validation tracks; empty is the share of tracks without a prediction at 0.5. ± is the standard deviation "
        f"over seeds; brackets hold {LEVEL:.0%} bootstrap intervals ({about['n_replicates']} draws). Those of a value "
        f"resample artists; those of a difference resample artists and seeds, the same ones for both systems. "
        f"A difference whose interval holds 0 is undecided. Published numbers are the paper's, on {PUBLISHED_ON}."
    )


SHOWN = ("accuracy", "f1", "accuracy_tuned", "f1_tuned", "map", "empty_share")


def markdown(document: Json) -> str:
    """All tables as one Markdown page."""
    about = document["caption"]
    parts = ["# Ablations\n", caption_text(about) + "\n", reading_text(about) + "\n"]
    for table in document["tables"]:
        parts += [f"## {table['title']}\n", _markdown_table(table)]
    if document["failures"]:
        parts.append("## Runs that failed\n")
        parts += [f"- {', '.join(failure['serves'])}: {failure['reason']}" for failure in document["failures"]]
        parts.append("")
    return "\n".join(parts)


def _markdown_table(table: Json) -> str:
    published = any(row["published"] for row in table["rows"])
    reference = table["reference"]
    heads = [table["x_label"] or "system", *(METRICS[name] for name in SHOWN)]
    heads += [f"accuracy − {reference}", f"mAP − {reference}"]
    if published:
        heads += [f"published accuracy, {PUBLISHED_ON}", f"published F, {PUBLISHED_ON}"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in table["rows"]:
        metrics = row["metrics"]
        cells = [row["name"] + (f" ({row['note']})" if row["note"] else "")]
        cells += [_value(metrics.get(name), brackets=name in ("accuracy", "f1", "map")) for name in SHOWN]
        cells += [_difference(metrics.get(name)) for name in ("accuracy", "map")]
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


CSV_COLUMNS = (
    "table", "row", "metric", "seeds", "value", "sd", "low", "high", "difference", "difference_low", "difference_high",
    "verdict", "published", "note",
)  # fmt: skip


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
                if cell is None and published is None:
                    continue
                values = (
                    {} if cell is None else {name: cell[name] for name in ("value", "sd", "low", "high", "verdict")}
                )
                difference = None if cell is None else cell["difference"]
                if difference is not None:
                    values |= {"difference": difference["value"], "difference_low": difference["low"],
                               "difference_high": difference["high"]}  # fmt: skip
                writer.writerow({**start, "metric": metric, "published": published, **values})
    return out.getvalue()


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
