"""One self-contained HTML page about a training run: nothing is loaded from elsewhere and no script runs.

The summary comes first; then the course of training, the metrics with their intervals and baselines, every genre, and
the genre graph. What a run does not have yet (an evaluation, a graph) is said, not left out silently.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..cache.durable import replace_file
from ..cache.errors import RunError
from .charts import line_chart
from .page import Json, bar, count, figure, interval, number, page, text
from .report_graph import graph_section
from .report_scores import calibration_section, parts_section

COLUMN_NAMES = {
    "fixed": "threshold 0.5 (the paper's)",
    "tuned": "one threshold, tuned on validation",
    "tuned_per_genre": "a threshold a genre, tuned on validation",
    "top1_where_empty": "0.5, highest score where nothing passes",
}
METRIC_NAMES = {
    "jaccard": "Jaccard",
    "f1": "F1",
    "subset_accuracy": "subset accuracy",
    "hamming_loss": "Hamming loss",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
}
BASELINE_NAMES = {
    "majority": "majority label set",
    "label_prior": "label prior",
    "label_frequency": "genres drawn by their frequency",
}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run folder says; everything but the folder may be missing from a run that is young or was cut short.

    Attributes
    ----------
    config : ``config.yaml``. about : ``run.json``. epochs : lines of ``metrics.jsonl``.
    labels, graph : of ``best/``. evaluations : ``metrics.json`` of ``mgc evaluate``, by split.
    """

    run: Path
    config: Json
    about: Json
    epochs: Sequence[Json]
    labels: Json
    graph: Json
    evaluations: Json

    @property
    def evaluation(self) -> Json:
        """The evaluation to tell of: the test split's where there is one; empty before any."""
        done = [name for name in ("test", "all", "validation", "train") if name in self.evaluations]
        return dict(self.evaluations[done[0]]) if done else {}


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write a run's report.

    Parameters
    ----------
    run : run folder of ``mgc train``, evaluated or not.
    out : the page to write; default ``report.html`` in `run`.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    RunError
        `run` is no run folder, or one of its files cannot be read.
    MissingExtraError
        matplotlib is not installed (extra ``report``).
    """
    page = render_report(read_run(run))
    out = run / "report.html" if out is None else out
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, page.encode())
    return out


def read_run(run: Path) -> RunRecord:
    """Read what a report tells of.

    Raises
    ------
    RunError
        As :func:`write_report`.
    """
    if not (run / "config.yaml").is_file():
        raise RunError(f"{run}: no run of `mgc train` here (config.yaml is missing); give the run folder itself")
    return RunRecord(
        run=run,
        config=_mapping(run / "config.yaml"),
        about=_mapping(run / "run.json"),
        epochs=_epochs(run / "metrics.jsonl"),
        labels=_mapping(run / "best" / "labels.json"),
        graph=_mapping(run / "best" / "graph.json"),
        evaluations=_mapping(run / "metrics.json"),
    )


def _mapping(path: Path) -> Json:
    """A YAML or JSON file that holds a mapping; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path}: cannot be read ({error}); restore it, or train or evaluate again") from error
    if not isinstance(data, dict):
        raise RunError(f"{path}: want a mapping, found {type(data).__name__}; restore it, or train or evaluate again")
    return data


def _epochs(path: Path) -> list[Json]:
    """Whole lines of ``metrics.jsonl``; a last line that a kill cut short does not count."""
    epochs: list[Json] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            epochs.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            break
    return epochs


def render_report(record: RunRecord) -> str:
    """The page of a run."""
    sections = [
        _summary(record),
        _course(record.epochs, record.config),
        _metrics_section(record.evaluation),
        parts_section(record.evaluation),
        calibration_section(record.evaluation),
        _genres_section(record),
        graph_section(record.graph),
        _settings(record),
    ]
    return page(f"Run {record.run.resolve().name}", "\n".join(section for section in sections if section))


def _summary(record: RunRecord) -> str:
    evaluation, best = record.evaluation, _best_epoch(record.epochs)
    genres = record.labels.get("genres", record.about.get("genres", []))
    told = [f"A model of {len(genres)} genres, trained on {record.about.get('n_train', 'unknown')} tracks "
            f"for {count(len(record.epochs), 'epoch')}."]  # fmt: skip
    if best is not None:
        told.append(f"Best validation mAP {best['val_map']:.3f}, in epoch {best['epoch']}.")
    if not evaluation:
        told.append("It has not been evaluated yet: run mgc evaluate, then mgc report again.")
        return f"<p class=lead>{text(' '.join(told))}</p>"
    metrics = evaluation["metrics"]
    jaccard, baselines = metrics["columns"]["fixed"]["jaccard"], evaluation.get("baselines", {})
    told.append(f"Scored on {evaluation['n_tracks']} {evaluation['split']} tracks of {metrics['n_groups']} artists"
                + (f" (split by policy {evaluation['policy']})." if evaluation.get("policy") else "."))  # fmt: skip
    majority, prior = baselines.get("majority"), baselines.get("label_prior")
    base = {} if majority is None else {k: majority["columns"]["fixed"][k]["value"] for k in ("jaccard", "f1")}
    told.append(_against(jaccard["value"], base.get("jaccard")))
    tiles = [
        _tile("Jaccard at threshold 0.5", jaccard, base.get("jaccard")),
        _tile("F1 at threshold 0.5", metrics["columns"]["fixed"]["f1"], base.get("f1")),
        _tile("mAP", metrics["mean_average_precision"], prior and prior["mean_average_precision"]["value"]),
        _tile("ROC-AUC", metrics["roc_auc"], prior and prior["roc_auc"]["value"]),
    ]
    warned = "".join(f"<li>{text(line)}</li>" for line in (*record.about.get("warnings", []),
                                                             *evaluation.get("warnings", [])))  # fmt: skip
    return (f"<p class=lead>{text(' '.join(told))}</p>\n<div class=tiles>{''.join(tiles)}</div>"
            + (f"\n<h2>Warnings</h2>\n<ul>{warned}</ul>" if warned else ""))  # fmt: skip


def _tile(name: str, estimate: Json, baseline: float | None) -> str:
    chance = "" if baseline is None else f"<small>without features {number(baseline)}</small>"
    return (f"<div class=tile><b>{number(estimate['value'])}</b><span>{name}</span><small>{interval(estimate)}</small>"
            f"{chance}</div>")  # fmt: skip


def _against(value: float | None, base: float | None) -> str:
    if value is None or not base:
        return ""
    return f"Its Jaccard index is {value / base:.1f} times that of the majority baseline ({base:.3f})."


def _course(epochs: Sequence[Json], config: Json) -> str:
    """Losses and validation figures by epoch."""
    if not epochs:
        return "<h2>Training</h2>\n<p>No epoch has ended yet.</p>"
    x, best = [float(e["epoch"]) for e in epochs], _best_epoch(epochs)
    names = ("loss", "contrastive", "classification", "val_bce", "val_map", "val_jaccard", "val_empty_share")
    series = {name: [e.get(name) for e in epochs] for name in names}
    mark = None if best is None else (float(best["epoch"]), "best")
    lambda_ = float(config.get("lambda_", 0.3))
    trained_on = "cross-entropy" if config.get("loss", "bce") == "bce" else "asymmetric loss"
    if config.get("bce_reduction", "mean") == "sum":
        trained_on += ", summed over genres"
    weighted = {
        "total": series["loss"],
        f"{1 - lambda_:g} × classification": [_times(1 - lambda_, v) for v in series["classification"]],
        f"{lambda_:g} × audio-lyrics": [_times(lambda_, v) for v in series["contrastive"]],
    }
    parts = [
        (line_chart(x, weighted, title="Training loss and its two parts", x_label="epoch", y_label="loss (nats)"),
         "Training loss and its two parts",
         f"The total is the sum of the other two lines; it went from {number(series['loss'][0])} to "
         f"{number(series['loss'][-1])}. All should fall, fastest at first."),
        (line_chart(x, {f"training ({trained_on})": series["classification"],
                        "validation (cross-entropy)": series["val_bce"]},
                    title="Classification loss", x_label="epoch", y_label="nats", mark=mark),
         "Classification loss",
         "Where the validation line turns up while training still falls, the model has begun to learn its training "
         "tracks by heart."),
        (line_chart(x, {"mAP": series["val_map"], "Jaccard at 0.5": series["val_jaccard"],
                        "tracks with no genre predicted": series["val_empty_share"]},
                    title="Validation", x_label="epoch", y_label="share (0 to 1)", mark=mark, unit_range=True),
         "Validation",
         "mAP chooses the epoch that is kept (marked). Jaccard stays low while many tracks get no genre at threshold "
         "0.5 (dotted)."),
    ]  # fmt: skip
    figures = "\n".join(figure(*part) for part in parts)
    return f"<h2>Training</h2>\n<div class=figures>{figures}</div>"


def _metrics_section(evaluation: Json) -> str:
    if not evaluation:
        return ""
    metrics = evaluation["metrics"]
    head = "".join(f"<th scope=col>{name}</th>" for name in METRIC_NAMES.values())
    rows = [_metric_row(COLUMN_NAMES.get(name, name), column) for name, column in metrics["columns"].items()] + [
        _metric_row(f"baseline: {BASELINE_NAMES.get(name, name)}", baseline["columns"]["fixed"])
        for name, baseline in evaluation.get("baselines", {}).items()
    ]
    undefined = metrics["undefined_genres"]
    named = f" Without a positive here, so in no macro mean: {', '.join(undefined)}." if undefined else ""
    return (
        f"<h2>Metrics on the {text(evaluation['split'])} split</h2>\n"
        f"<p>{text(_interval_note(metrics) + named)}</p>\n<div class=scroll><table><thead><tr><th scope=col>decided by"
        f"</th>{head}</tr></thead><tbody>{''.join(rows)}"
        "</tbody></table></div>"
    )


def _metric_row(name: str, column: Json) -> str:
    cells = "".join(f"<td>{number(column[key]['value'])}<small>{interval(column[key])}</small></td>"
                    for key in METRIC_NAMES)  # fmt: skip
    return f"<tr><th scope=row>{text(name)}</th>{cells}</tr>"


def _interval_note(metrics: Json) -> str:
    note = "Values lie between 0 and 1; higher is better, but for the Hamming loss."
    if metrics["n_replicates"]:
        note += (f" Below each value its 95 % interval over {metrics['n_replicates']} bootstrap draws of "
                 f"{metrics['n_groups']} artists.")  # fmt: skip
    return note


def _genres_section(record: RunRecord) -> str:
    """Average precision and F1 of each genre as bars, the most frequent genre first."""
    if not record.evaluation:
        return ""
    counts = dict(zip(record.labels.get("genres", []), record.labels.get("train_counts", []), strict=False))
    n_tracks = record.evaluation["metrics"]["n_tracks"]
    rows = []
    for row in sorted(record.evaluation["metrics"]["genres"], key=lambda row: (-row["support"], row["genre"])):
        share = row["support"] / n_tracks if n_tracks else 0.0
        rows.append(
            f"<tr><th scope=row>{text(row['genre'])}</th><td>{row['support']}</td>"
            f"<td>{counts.get(row['genre'], '–')}</td><td>{bar(row['average_precision'], tick=share)}</td>"
            f"<td>{bar(row['f1']['fixed'])}</td><td>{number(row['precision']['fixed'])}</td>"
            f"<td>{number(row['recall']['fixed'])}</td></tr>"
        )
    head = "".join(f"<th scope=col>{name}</th>" for name in ("genre", "tracks", "training tracks",
                   "average precision (0 to 1)", "F1 at 0.5 (0 to 1)", "precision", "recall"))  # fmt: skip
    return (
        "<h2>Genres</h2>\n<p>A bar that ends at its tick ranks tracks no better than chance: the tick is the genre's "
        "share of the tracks. Genres with few tracks have wide, unstated intervals.</p>\n"
        f"<div class=scroll><table class=genres><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}"
        "</tbody></table></div>"
    )


def _settings(record: RunRecord) -> str:
    told = {**record.config, **{k: record.about[k] for k in ("device", "precision", "n_parameters", "n_validation",
            "n_train_without_lyrics", "torch", "store") if k in record.about}}  # fmt: skip
    rows = "".join(f"<tr><th scope=row>{text(k)}</th><td>{text(v)}</td></tr>" for k, v in told.items())
    kept = "".join(
        f"<li>{text(k.get('filter'))}: {text(k.get('kept'))} of {text(k.get('of'))} {text(k.get('unit'))} kept</li>"
        for k in record.about.get("kept", [])
    )
    return (
        (f"<h2>What each filter kept</h2>\n<ul>{kept}</ul>\n" if kept else "")
        + f"<h2>Settings</h2>\n<details><summary>{count(len(told), 'setting')}</summary>"
        f"<div class=scroll><table class=settings><tbody>{rows}</tbody></table></div></details>"
    )


def _best_epoch(epochs: Sequence[Json]) -> Json | None:
    known = [e for e in epochs if e.get("val_map") is not None]
    return max(known, key=lambda e: float(e["val_map"])) if known else None


def _times(weight: float, value: float | None) -> float | None:
    return None if value is None else weight * value
