"""The first sections of a run's report: what it came to in a few figures, and every metric with its interval."""

from __future__ import annotations

from .page import Json, count, interval, number, table, text
from .report_course import best_epoch
from .run_record import RunRecord

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


def summary_section(record: RunRecord) -> str:
    """What the run is and how good, in a sentence and four tiles; then what it warns of."""
    evaluation, best = record.evaluation, best_epoch(record.epochs)
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


def metrics_section(evaluation: Json) -> str:
    """Every metric by how genres were decided, and those of the systems that see no features."""
    if not evaluation:
        return ""
    metrics = evaluation["metrics"]
    rows = [_metric_row(COLUMN_NAMES.get(name, name), column) for name, column in metrics["columns"].items()] + [
        _metric_row(f"baseline: {BASELINE_NAMES.get(name, name)}", baseline["columns"]["fixed"])
        for name, baseline in evaluation.get("baselines", {}).items()
    ]
    undefined = metrics["undefined_genres"]
    named = f" Without a positive here, so in no macro mean: {', '.join(undefined)}." if undefined else ""
    heads = ("decided by", "threshold", *METRIC_NAMES.values(), "tracks with no genre predicted")
    return (
        f"<h2>Metrics on the {text(evaluation['split'])} split</h2>\n<p>{text(_interval_note(metrics) + named)}</p>\n"
        + table(heads, rows, about="metrics")
    )


def _metric_row(name: str, column: Json) -> list[str]:
    cells = [f"{number(column[key]['value'])}<small>{interval(column[key])}</small>" for key in METRIC_NAMES]
    cuts = column["thresholds"]
    cut = f"{cuts[0]:.3g}" if min(cuts) == max(cuts) else f"{min(cuts):.3g} to {max(cuts):.3g}"
    return [text(name), cut, *cells, number(column["empty_share"])]


def _interval_note(metrics: Json) -> str:
    note = "Values lie between 0 and 1; higher is better, but for the Hamming loss."
    if metrics["n_replicates"]:
        note += (f" Below each value its 95 % interval over {metrics['n_replicates']} bootstrap draws of "
                 f"{metrics['n_groups']} artists.")  # fmt: skip
    return note
