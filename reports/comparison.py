"""The comparison page of two or more runs.

The first run is the reference. Differences have confidence intervals if both runs have test tracks in common
(:mod:`mgc.heads.evaluation.compare`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache.errors import ConfigError, RunError
from ..cache.messages import interval, number
from ..cache.steps import Progress, silent
from ..heads.evaluation.compare import compare_runs
from ..heads.metrics.bootstrap import FEW_GROUPS
from ..heads.metrics.names import COLUMNS, DECISION_METRICS, METRICS, RANKING_METRICS, column_label
from ..heads.metrics.phrases import resampled
from .charts import MAX_LINES, Chart, line_chart
from .html import Json, write_page
from .run import RunRecord, best_epoch, read_run

RETRIEVAL_NAMES = {"audio_to_lyrics": "audio-to-lyrics", "lyrics_to_audio": "lyrics-to-audio"}
SIGNIFICANCE: dict[str | None, str] = {
    "first": "significantly worse",
    "second": "significantly better",
    None: "not significant",
}
"""Result of a paired difference for the second run, by the run that is better."""
CURVES = {
    "val_map": ("Validation mAP", "mAP (0 to 1)"),
    "val_bce": ("Validation cross-entropy", "cross-entropy (nats)"),
}
"""Metrics drawn per epoch: title and axis label."""
LEARNED_FROM = ("store", "fingerprints", "split", "kept", "n_train", "n_validation", "n_train_without_lyrics")
COMPUTED_BY = ("device", "precision", "n_parameters", "mgc", "torch", "n_threads")
ABOUT = (*LEARNED_FROM, "labels_sha256", *COMPUTED_BY)
"""Keys of ``run.json`` that the page compares."""


def write_comparison(runs: Sequence[Path], out: Path | None = None, *, on_progress: Progress = silent) -> Path:
    """Write the comparison page of several runs and return its path.

    Parameters
    ----------
    runs : folders of ``mgc train``, evaluated or not.
    out : output file; default ``compare.html`` next to the first run.
    on_progress : receives the number of runs compared and the total.

    Raises
    ------
    ConfigError
        A run is given twice, or fewer than two runs are given.
    RunError
        A folder is not a run folder, or one of its files is unreadable or inconsistent with the others.
    MissingExtraError
        jinja2 or matplotlib is not installed (extra ``report``).
    """
    if len({run.resolve() for run in runs}) < max(2, len(runs)):
        raise ConfigError("a comparison needs two or more different runs. Give each run once.")
    records, names = [read_run(run) for run in runs], run_names(runs)
    evaluations = [record.evaluation for record in records]
    differing, n_same = _settings(records)
    return write_page(
        runs[0].resolve().parent / "compare.html" if out is None else out,
        "comparison.html",
        title=f"Comparison of {len(records)} training runs",
        names=names,
        runs=[(name, record, best_epoch(record.epochs)) for name, record in zip(names, records, strict=True)],
        best=_best(names, evaluations),
        splits=sorted({evaluation["split"] for evaluation in evaluations if evaluation}),
        metrics=_metrics(evaluations),
        few_groups=FEW_GROUPS,
        units=_resampled([evaluation for evaluation in evaluations if evaluation]),
        pairs=_pairs(records, names, on_progress),
        genres=_genres(evaluations),
        curves=_curves(records, names),
        max_lines=MAX_LINES,
        differing=differing,
        n_same=n_same,
    )


def _resampled(evaluations: Sequence[Json]) -> str:
    """Return what the bootstraps of these evaluations resample."""
    n_tracks = sum(evaluation["n_tracks"] for evaluation in evaluations)
    is_counted = all("n_with_artist" in evaluation for evaluation in evaluations)
    return resampled(n_tracks, sum(evaluation["n_with_artist"] for evaluation in evaluations) if is_counted else None)


def run_names(runs: Sequence[Path]) -> list[str]:
    """Return the shortest path endings that distinguish the runs."""
    parts = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(run) for run in runs]


def _best(names: Sequence[str], evaluations: Sequence[Json]) -> Json | None:
    """Return name and mAP of the run with the highest mAP; None if fewer than two runs have one."""
    values = [_at(evaluation, "metrics", "mean_average_precision").get("value") for evaluation in evaluations]
    scored = [(value, name) for name, value in zip(names, values, strict=True) if value is not None]
    if len(scored) < 2:
        return None
    value, name = max(scored)
    return {"name": name, "value": value}


def _at(document: Json, *path: str) -> Json:
    """Return the mapping at a path of keys; empty if it does not exist."""
    for key in path:
        document = document.get(key) or {}
    return document


def _metrics(evaluations: Sequence[Json]) -> list[Json]:
    """Return one row per metric, with one estimate per run."""
    by_ranking = COLUMNS[None].name
    paths: list[tuple[str, str, tuple[str, ...]]] = []
    for column, label in COLUMNS.items():
        keys, path = (RANKING_METRICS, ()) if column is None else (DECISION_METRICS, ("columns", column))
        paths += [(METRICS[key].name, label.name, ("metrics", *path, key)) for key in keys]
    for direction, name in RETRIEVAL_NAMES.items():
        recall = ("alignment", "recall", direction)
        paths += [(f"{name} recall at {k}", by_ranking, (*recall, k)) for k in ("1", "10")]
    return [
        {
            "name": name,
            "decided_by": decided_by,
            "estimates": [{"value": None, **_at(evaluation, *path)} for evaluation in evaluations],
        }
        for name, decided_by, path in paths
    ]


def _pairs(records: Sequence[RunRecord], names: Sequence[str], on_progress: Progress) -> list[Json]:
    """Compare each run with the first on their common test tracks."""
    pairs: list[Json] = []
    for i, (name, record) in enumerate(zip(names[1:], records[1:], strict=True), 1):
        on_progress("compare", i, len(records) - 1)
        try:
            result = compare_runs(records[0].run, record.run, common=True).to_dict()
        except RunError as error:
            pairs.append({"name": name, "problem": str(error)})
            continue
        rows = [_difference(row) for row in result["differences"]]
        left_out = result["n_only_first"] + result["n_only_second"]
        pairs.append({"name": name, "problem": None, "n_left_out": left_out, "rows": rows, **result})
    return pairs


def _difference(row: Json) -> list[str]:
    difference = row["difference"]
    return [
        METRICS[row["metric"]].name,
        column_label(row["column"]).name,
        number(difference["value"], sign=True),
        interval(difference, sign=True, missing="–"),
        "not tested" if difference["low"] is None else SIGNIFICANCE[row["better"]],
    ]


def _genres(evaluations: Sequence[Json]) -> list[dict[str, Any]]:
    """Return the average precision per genre and run, the most frequent genre first."""
    runs = [{row["genre"]: row for row in _at(evaluation, "metrics").get("genres", ())} for evaluation in evaluations]
    support = {genre: max(run[genre]["support"] for run in runs if genre in run) for run in runs for genre in run}
    rows = []
    for genre in sorted(support, key=lambda genre: (-support[genre], genre)):
        values = [run[genre]["average_precision"] if genre in run else None for run in runs]
        numbers = [value for value in values if value is not None]
        spread = max(numbers) - min(numbers) if len(numbers) > 1 else None
        rows.append({"name": genre, "support": support[genre], "precisions": values, "spread": spread})
    return rows


def _curves(records: Sequence[RunRecord], names: Sequence[str]) -> dict[str, Chart]:
    """Draw validation metrics per epoch of the first runs; empty before the first epoch is finished."""
    runs = {name: record.epochs for name, record in zip(names, records, strict=True) if record.epochs}
    runs = dict(list(runs.items())[:MAX_LINES])
    n_epochs = max(map(len, runs.values()), default=0)
    x = [float(epoch) for epoch in range(1, 1 + n_epochs)]
    return {
        key: line_chart(
            x,
            {name: [e.get(key) for e in epochs] + [None] * (n_epochs - len(epochs)) for name, epochs in runs.items()},
            title=title,
            y_label=y_label,
            unit_range=key == "val_map",
        )
        for key, (title, y_label) in CURVES.items()
        if runs
    }


def _settings(records: Sequence[RunRecord]) -> tuple[list[list[object]], int]:
    """Return one row per setting that differs between runs, and the number of equal settings."""
    settings = [
        _flat({**record.config, **{key: record.about[key] for key in ABOUT if key in record.about}})
        for record in records
    ]
    keys = list(dict.fromkeys(key for run in settings for key in run))
    differing = [key for key in keys if any(run.get(key) != settings[0].get(key) for run in settings)]
    return [[key, *(run.get(key, "–") for run in settings)] for key in differing], len(keys) - len(differing)


def _flat(settings: Json) -> dict[str, object]:
    """Flatten nested settings to "outer, inner" names, so that only differing values are listed."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        inner = value if isinstance(value, Mapping) else None
        flat |= {name: value} if inner is None else {f"{name}, {key}": v for key, v in _flat(inner).items()}
    return flat
