"""One self-contained HTML page about a training run: nothing is loaded from elsewhere.

The summary comes first; then the course of training, the metrics with their intervals and baselines, every genre, and
the genre graph. What a run does not have yet (an evaluation, a graph) is said, not left out silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..cache.durable import replace_file
from ..cache.errors import ConfigError
from ..heads.metrics.validation import is_better
from .charts import line_chart
from .graph import graph_section
from .html import Json, count, figure, interval, number, page, table, text
from .run_record import RunRecord, read_run
from .scores import (
    Player,
    alignment_section,
    calibration_section,
    confusions_section,
    genres_section,
    mistakes_section,
    parts_section,
)


def write_report(run: Path, out: Path | None = None, *, audio_root: Path | None = None) -> Path:
    """Write a run's report.

    Parameters
    ----------
    run : run folder of ``mgc train``, evaluated or not.
    out : the page to write; default ``report.html`` in `run`.
    audio_root : the folder that the store's paths start from, so that tracks can be listened to.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    RunError
        `run` is no run folder, or one of its files cannot be read or does not belong to the others.
    ConfigError
        There is no folder `audio_root`.
    MissingExtraError
        matplotlib is not installed (extra ``report``).
    """
    if audio_root is not None and not audio_root.is_dir():
        raise ConfigError(f"{audio_root}: no such folder; give the one that the paths of the store's tracks start from")
    record = read_run(run)
    out = run / "report.html" if out is None else out
    clip_s = record.preprocessor.get("recipe", {}).get("mel", {}).get("clip_s")
    page = render_report(record, Player(page=out.parent, root=audio_root, clip_s=clip_s))
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, page.encode())
    return out


def render_report(record: RunRecord, player: Player) -> str:
    """The page of a run, whose tracks `player` plays."""
    sections = [
        summary_section(record),
        course_section(record.epochs, record.config),
        metrics_section(record.evaluation),
        parts_section(record.evaluation),
        calibration_section(record.evaluation),
        genres_section(record),
        _no_scores(record),
        confusions_section(record.scored),
        mistakes_section(record.scored, record.listing, player),
        alignment_section(record.evaluation),
        graph_section(record.graph),
        provenance_section(record),
        settings_section(record),
    ]
    return page(f"Run {record.run.resolve().name}", "\n".join(section for section in sections if section))


def _no_scores(record: RunRecord) -> str:
    if not record.evaluation or record.scored is not None:
        return ""
    return ("<h2>Mistakes</h2>\n<p>What it confuses and got most wrong is told of test tracks, and those have not been "
            "scored: run mgc evaluate RUN STORE.</p>")  # fmt: skip


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


def course_section(epochs: Sequence[Json], config: Json) -> str:
    """Losses and validation figures by epoch."""
    if not epochs:
        return "<h2>Training</h2>\n<p>No epoch has ended yet.</p>"
    x, best = [float(e["epoch"]) for e in epochs], best_epoch(epochs)
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


def best_epoch(epochs: Sequence[Json]) -> Json | None:
    """The best epoch (:func:`mgc.heads.metrics.validation.is_better`); None where no validation mAP is known."""
    best = None
    for epoch in epochs:
        if epoch.get("val_map") is not None and is_better(_validated(epoch), best and _validated(best)):
            best = epoch
    return best


def _validated(epoch: Json) -> dict[str, float | None]:
    return {"map": epoch["val_map"], "bce": epoch.get("val_bce")}


def _times(weight: float, value: float | None) -> float | None:
    return None if value is None else weight * value


def provenance_section(record: RunRecord) -> str:
    """When and how it was trained, and by what recipe its features were made."""
    about, preprocessor = record.about, record.preprocessor
    told = [f"Trained from the store {about.get('store', '(unknown)')}"]
    seconds = sum(float(epoch.get("seconds") or 0.0) for epoch in record.epochs)
    if seconds:
        told.append(f" in {seconds:.0f} s of epochs")
    sessions = [
        [
            text(session["started_utc"].replace("+00:00", "").replace("T", " ")), str(session["after_epoch"]),
            f"<code>{text(session['command'])}</code>", text(_listed(session["versions"])),
            text(f"{session['device']}, {session['precision']}, {count(session['n_threads'], 'thread')}, "
                 f"{session['platform']}"),
        ]
        for session in about.get("sessions", [])
    ]  # fmt: skip
    heads = ("started (UTC)", "epochs before", "command", "versions", "on")
    when = table(heads, sessions, about="when it was trained") if sessions else "<p>When is not known.</p>"
    recipe = _recipe(record) if preprocessor else ""
    return f"<h2>Where it comes from</h2>\n<p>{text(''.join(told))}.</p>\n{when}\n{recipe}"


def _recipe(record: RunRecord) -> str:
    """Every parameter of the features, which ``predict`` follows too."""
    recipe, prints = record.preprocessor["recipe"], record.preprocessor["fingerprints"]
    rows = [[text(feature), "fingerprint", f"<code>{text(value)}</code>"] for feature, value in prints.items()]
    for feature, parameters in recipe.items():
        if isinstance(parameters, Mapping):
            rows += [[text(feature), text(name), text(value)] for name, value in parameters.items()]
        else:
            rows.append([text(feature), "", text(parameters)])
    mean, std = (number(record.preprocessor.get(name)) for name in ("mel_mean_db", "mel_std_db"))
    made = record.about.get("store_versions", {})
    by = f" Made by {_listed(made)}." if made else ""
    return (
        f"<h3>Features</h3>\n<p>Spectrograms are scaled by the mean {mean} dB and the standard deviation {std} dB of "
        f"the training tracks.{text(by)}</p>\n<details><summary>The recipe: {count(len(rows), 'line')}</summary>"
        + table(("feature", "parameter", "value"), rows, about="recipe of the features", sortable=True, find="Find")
        + "</details>"
    )


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def settings_section(record: RunRecord) -> str:
    """What each filter kept, and every setting of the run."""
    told = {**record.config, **{k: record.about[k] for k in ("device", "precision", "n_parameters", "n_validation",
            "n_train_without_lyrics", "labels_sha256") if k in record.about}}  # fmt: skip
    rows = [[text(name), text(value)] for name, value in told.items()]
    kept = "".join(
        f"<li>{text(k.get('filter'))}: {text(k.get('kept'))} of {text(k.get('of'))} {text(k.get('unit'))} kept</li>"
        for k in record.about.get("kept", [])
    )
    return (
        (f"<h2>What each filter kept</h2>\n<ul>{kept}</ul>\n" if kept else "")
        + f"<h2>Settings</h2>\n<details><summary>{count(len(told), 'setting')}</summary>"
        f"{table(['setting', 'value'], rows, about='settings', sortable=True, find='Find a setting')}</details>"
    )
