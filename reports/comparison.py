"""One self-contained HTML page about two or more runs, side by side.

The first run is what the others are compared with. Values stand side by side wherever they are known; a difference is
told with an interval only where two runs were tested on the same tracks (:mod:`mgc.heads.evaluation.compare`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..cache.durable import replace_file
from ..cache.errors import ConfigError, RunError
from ..cache.steps import Progress, silent
from ..heads.evaluation.compare import compare_runs
from ..heads.metrics.bootstrap import FEW_GROUPS
from .charts import MAX_LINES, line_chart
from .html import Cell, Json, count, figure, interval, number, page, table, text
from .run import COLUMN_NAMES, METRIC_NAMES, best_epoch
from .run_record import RunRecord, read_run

BY_RANKING = "the ranking"
RANKING_NAMES = {"mean_average_precision": "mAP", "roc_auc": "ROC-AUC"}
ABOUT = ("store", "fingerprints", "split", "kept", "n_train", "n_validation", "n_train_without_lyrics", "labels_sha256",
         "device", "precision", "n_parameters", "mgc", "torch", "n_threads")  # fmt: skip
"""Of ``run.json``, what may set two runs apart."""


def write_comparison(runs: Sequence[Path], out: Path | None = None, *, on_progress: Progress = silent) -> Path:
    """Write the page about several runs.

    Parameters
    ----------
    runs : folders of ``mgc train``, evaluated or not.
    out : the page to write; default ``compare.html`` beside the first run.
    on_progress : receives runs compared and runs to compare with the first.

    Raises
    ------
    ConfigError
        One run is named twice, or fewer than two are given.
    RunError
        One is no run folder, or one of its files cannot be read or does not belong to the others.
    """
    if len({run.resolve() for run in runs}) < max(2, len(runs)):
        raise ConfigError("want two or more different runs to put side by side")
    records = [read_run(run) for run in runs]
    out = runs[0].resolve().parent / "compare.html" if out is None else out
    document = render_comparison(records, on_progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, document.encode())
    return out


def render_comparison(records: Sequence[RunRecord], on_progress: Progress = silent) -> str:
    """The page of several runs."""
    names = run_names([record.run for record in records])
    sections = [
        _summary(records, names),
        _metrics(records, names),
        _differences(records, names, on_progress),
        _genres(records, names),
        _course(records, names),
        _settings(records, names),
    ]
    return page(f"{len(records)} runs side by side", "\n".join(section for section in sections if section))


def run_names(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the runs' paths that tell all of them apart."""
    parts = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(run) for run in runs]


def _summary(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    rows = []
    for name, record in zip(names, records, strict=True):
        best, evaluation = best_epoch(record.epochs), record.evaluation
        tested = f"{evaluation['n_tracks']} {evaluation['split']}" if evaluation else "not evaluated"
        parameters = record.about.get("n_parameters")
        rows.append([
            text(name), count(len(record.epochs), "epoch"), "–" if best is None else f"{best['epoch']}",
            "–" if best is None else number(best["val_map"]), text(tested),
            "–" if parameters is None else f"{parameters:,}",
        ])  # fmt: skip
    heads = ("run", "trained for", "best epoch", "its validation mAP", "tracks tested", "parameters")
    told = [f"<b>{text(names[0])}</b> is what the others are compared with."]
    scored = [(record.evaluation["metrics"]["mean_average_precision"]["value"], name)
              for name, record in zip(names, records, strict=True) if record.evaluation]  # fmt: skip
    known = [(value, name) for value, name in scored if value is not None]
    if len(known) > 1:
        value, name = max(known)
        told.append(
            f"<b>{text(name)}</b> has the highest mAP, {value:.3f}; whether that is more than chance is told below."
        )
    return f"<p class=lead>{' '.join(told)}</p>\n{table(heads, rows, about='runs')}"


def _metrics(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """A row a metric, a column a run."""
    evaluations = [record.evaluation for record in records]
    if not any(evaluations):
        return ""

    def row(name: str, decided: str, *path: str) -> list[Cell]:
        return [text(name), text(decided), *(_estimate_at(evaluation, *path) for evaluation in evaluations)]

    rows = [row(name, BY_RANKING, "metrics", key) for key, name in RANKING_NAMES.items()]
    for column, decided in COLUMN_NAMES.items():
        rows += [row(name, decided, "metrics", "columns", column, key) for key, name in METRIC_NAMES.items()]
    for direction, name in (("audio_to_lyrics", "lyrics found by sound"), ("lyrics_to_audio", "sound found by lyrics")):
        rows += [row(f"{name}, recall at {k}", BY_RANKING, "alignment", "recall", direction, k) for k in ("1", "10")]
    splits = sorted({evaluation["split"] for evaluation in evaluations if evaluation})
    said = (
        f"On the {text(' and '.join(splits))} tracks of each run. Values lie between 0 and 1; higher is better, but "
        "for the Hamming loss. Below each value its 95 % interval over artists; whether two of them differ is not seen "
        "by whether these overlap, but from paired differences."
    )
    heads = ("metric", "decided by", *names)
    return f"<h2>Metrics</h2>\n<p>{said}</p>\n" + table(
        heads, rows, about="metrics of the runs", sortable=True, find="Find a metric", tall=True
    )


def _estimate_at(evaluation: Json, *path: str) -> Cell:
    found = evaluation
    for key in path:
        found = found.get(key) or {}
    return "–" if found.get("value") is None else f"{number(found['value'])}<small>{interval(found)}</small>"


def _differences(records: Sequence[RunRecord], names: Sequence[str], on_progress: Progress) -> str:
    """Each run less the first on the test tracks that both have, where that can be told."""
    parts = [
        "<h2>Paired differences</h2>\n<p>Both runs of a difference are scored on the same draws of artists, so that "
        f"what is hard for both falls out. Where its 95 % interval holds 0, or there are fewer than {FEW_GROUPS} "
        "artists, it is undecided; where nothing differs, about one metric in twenty is decided by chance.</p>"
    ]
    for done, (name, record) in enumerate(zip(names[1:], records[1:], strict=True), 1):
        parts.append(f"<h3>{text(name)} less {text(names[0])}</h3>")
        on_progress("compare", done, len(records) - 1)
        try:
            found = compare_runs(records[0].run, record.run, common=True)
        except RunError as error:
            parts.append(f"<p>Not told: {text(error)}</p>")
            continue
        left_out = found["n_only_first"] + found["n_only_second"]
        alone = f" {count(left_out, 'more test track')} of one run alone left out." if left_out else ""
        parts.append(f"<p>{count(found['n_tracks'], 'test track')} of {count(found['n_groups'], 'artist')}.{alone}</p>")
        parts.append(_difference_table(found["differences"], f"{name} less {names[0]}"))
    return "\n".join(parts)


def _difference_table(differences: Sequence[Json], about: str) -> str:
    rows: list[list[Cell]] = []
    for row in differences:
        value, low, high = (row["difference"][part] for part in ("value", "low", "high"))
        rows.append([
            {**RANKING_NAMES, **METRIC_NAMES}[row["metric"]],
            BY_RANKING if row["column"] is None else text(COLUMN_NAMES.get(row["column"], row["column"])),
            "–" if value is None else f"{value:+.3f}",
            "–" if low is None or high is None else f"{low:+.3f} to {high:+.3f}",
            {"first": "worse", "second": "better", None: "undecided"}[row["better"]],
        ])  # fmt: skip
    heads = ("metric", "decided by", "difference", "95 % interval", "verdict")
    return table(heads, rows, about=about, sortable=True, tall=True)


def _genres(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """Average precision of each genre by each run."""
    found = [{row["genre"]: row for row in record.evaluation["metrics"]["genres"]} if record.evaluation else {}
             for record in records]  # fmt: skip
    support = {genre: max(run[genre]["support"] for run in found if genre in run) for run in found for genre in run}
    if not support:
        return ""
    rows: list[list[Cell]] = []
    for genre in sorted(support, key=lambda genre: (-support[genre], genre)):
        values = [run[genre]["average_precision"] if genre in run else None for run in found]
        known = [value for value in values if value is not None]
        spread: Cell = (f"{max(known) - min(known):.3f}", max(known) - min(known)) if len(known) > 1 else "–"
        rows.append([text(genre), str(support[genre]), *map(number, values), spread])
    heads = ["genre", "tracks", *names, "largest difference"]
    return (
        "<h2>Genres</h2>\n<p>Average precision (0 to 1) of each genre by each run. Of genres with few tracks a large "
        "difference means little; “tracks” is the most that a run was tested on.</p>\n"
        + table(heads, rows, about="average precision by genre", sortable=True, find="Find a genre", tall=True)
    )


def _course(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    shown = [(name, record.epochs) for name, record in zip(names, records, strict=True) if record.epochs][:MAX_LINES]
    if not shown:
        return ""
    x = [float(epoch) for epoch in range(1, 1 + max(len(epochs) for _, epochs in shown))]
    left_out = f" Drawn are the first {MAX_LINES} runs." if len(records) > MAX_LINES else ""
    figures = []
    for key, title, y_label, said, unit in (
        ("val_map", "Validation mAP", "mAP (0 to 1)", "Higher is better; the highest point of a line is the epoch that "
         "was kept of that run.", True),
        ("val_bce", "Validation cross-entropy", "cross-entropy (nats)", "Lower is better; a line that turns up is a "
         "run that has begun to learn its training tracks by heart.", False),
    ):  # fmt: skip
        lines = {name: [epoch.get(key) for epoch in epochs] + [None] * (len(x) - len(epochs)) for name, epochs in shown}
        chart = line_chart(x, lines, title=title, x_label="epoch", y_label=y_label, unit_range=unit)
        figures.append(figure(chart, title, said + left_out))
    return f"<h2>Training</h2>\n<div class=figures>{''.join(figures)}</div>"


def _settings(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """The settings in which the runs differ, and how many they share."""
    told = [_flat({**record.config, **{key: record.about[key] for key in ABOUT if key in record.about}})
            for record in records]  # fmt: skip
    keys = list(dict.fromkeys(key for one in told for key in one))
    differing = [key for key in keys if any(one.get(key) != told[0].get(key) for one in told)]
    same = len(keys) - len(differing)
    if not differing:
        return f"<h2>Settings that differ</h2>\n<p>None: all {count(same, 'setting')} are the same.</p>"
    rows = [[text(key), *(text(one.get(key, "–")) for one in told)] for key in differing]
    listed = table(["setting", *names], rows, about="settings that differ", sortable=True)
    return f"<h2>Settings that differ</h2>\n<p>{count(same, 'more setting')} are the same in all runs.</p>\n{listed}"


def _flat(settings: Json) -> dict[str, object]:
    """Settings within settings by both names, so that only what differs is told."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        inner = value if isinstance(value, Mapping) else None
        flat |= {name: value} if inner is None else {f"{name}, {key}": v for key, v in _flat(inner).items()}
    return flat
