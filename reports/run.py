"""The report of a training run, finished or not. A section without data states what is missing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from ..cache.errors import ConfigError, RunError
from ..cache.messages import counted
from ..heads.data.labels import FilterCount, left_out
from ..heads.evaluation.scored_tracks import ScoredTracks, load_listed_predictions
from ..heads.metrics.names import BASELINES, COLUMNS, DECISION_METRICS, FIXED, METRICS, column_label, decision_columns
from ..heads.metrics.validation import is_better
from ..heads.model.config import upgrade_options
from ..heads.runs.history import read_history
from .charts import Chart, line_chart
from .html import Json, write_page
from .run_sections import Player, confused_genres, genre_graph, genre_rows, reliability, worst_predictions

ABOUT = ("device", "precision", "n_parameters", "n_validation", "n_train_without_lyrics", "labels_sha256")
"""Keys of ``run.json`` that the section Settings lists as well."""

MODALITIES = {"both": "audio and lyrics", "audio": "audio only", "lyrics": "lyrics only"}
PARTS = {"sound and lyrics": "audio and lyrics", "sound only": "audio only"}
"""Keys of ``metrics.json`` that the page shows under another name."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The files of a run folder; all but ``config.yaml`` can be missing while a run is in progress or interrupted.

    Attributes
    ----------
    config : ``config.yaml``. about : ``run.json``. epochs : lines of ``metrics.jsonl``.
    labels, graph, preprocessor : files of ``best/``. evaluations : ``metrics.json`` of ``mgc evaluate``, by split.
    scored, listing : scores of the test tracks, and their artists, songs and paths; None and empty before an
        evaluation.
    """

    run: Path
    config: Json
    about: Json
    epochs: Sequence[Json]
    labels: Json
    graph: Json
    preprocessor: Json
    evaluations: Json
    scored: ScoredTracks | None
    listing: Sequence[Json]

    @property
    def preset(self) -> str:
        """Return the preset of ``mgc train --preset``; a dash if the run has none."""
        return str(self.config.get("preset") or "–")

    @property
    def modalities(self) -> str:
        """Return the modalities of the model, a key of :data:`MODALITIES`."""
        return str(self.config.get("modalities", "both"))

    @property
    def evaluation(self) -> Json:
        """Return the evaluation to show: the test split if it exists; empty before any evaluation."""
        splits = [name for name in ("test", "all", "validation", "train") if name in self.evaluations]
        return dict(self.evaluations[splits[0]]) if splits else {}


def read_run(run: Path) -> RunRecord:
    """Read a run folder.

    Raises
    ------
    RunError
        `run` is not a run folder, or one of its files is unreadable or inconsistent with the others.
    """
    if not (run / "config.yaml").is_file():
        raise RunError(
            f"{run}: neither a run folder of mgc train (config.yaml is missing) nor a feature store. "
            "Pass the folder that contains config.yaml, or a store."
        )
    evaluations = _mapping(run / "metrics.json")
    scored, listing = load_listed_predictions(run) if "test" in evaluations else (None, [])
    return RunRecord(
        run=run,
        config=upgrade_options(_mapping(run / "config.yaml")),
        about=_mapping(run / "run.json"),
        epochs=[asdict(record) for record in read_history(run / "metrics.jsonl")],
        labels=_mapping(run / "best" / "labels.json"),
        graph=_mapping(run / "best" / "graph.json"),
        preprocessor=_mapping(run / "best" / "preprocessor.json"),
        evaluations=evaluations,
        scored=scored,
        listing=listing,
    )


def _mapping(path: Path) -> Json:
    """Read a YAML or JSON mapping; empty if the file does not exist."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path}: cannot be read ({error}). Restore the file, or train or evaluate again.") from error
    if not isinstance(data, dict):
        found = type(data).__name__
        raise RunError(f"{path}: expected a mapping, got {found}. Restore the file, or train or evaluate again.")
    return data


def write_report(run: Path, out: Path | None = None, *, audio_root: Path | None = None) -> Path:
    """Write the report of a run and return its path.

    Parameters
    ----------
    run : run folder of ``mgc train``, evaluated or not.
    out : output file; default ``report.html`` in `run`.
    audio_root : root folder of the store's audio paths; adds audio players to the worst predictions.

    Raises
    ------
    RunError
        `run` is not a run folder, or one of its files is unreadable or inconsistent with the others.
    ConfigError
        The folder `audio_root` does not exist.
    MissingExtraError
        jinja2 or matplotlib is not installed (extra ``report``).
    """
    if audio_root is not None and not audio_root.is_dir():
        raise ConfigError(f"{audio_root}: no such folder. Pass the root folder of the store's audio paths.")
    out = run / "report.html" if out is None else out
    record = read_run(run)
    evaluation, scored = record.evaluation, record.scored
    clip_s = record.preprocessor.get("recipe", {}).get("mel", {}).get("clip_s")
    player = Player(page=out.parent, root=audio_root, clip_s=clip_s)
    genres = record.labels.get("genres", record.about.get("genres", []))
    return write_page(
        out,
        "run.html",
        title=f"Run {record.run.resolve().name}: genre classification from {MODALITIES[record.modalities]}",
        heading=f"Genre classification from {MODALITIES[record.modalities]}",
        record=record,
        key_facts=_key_facts(record),
        genres=genres,
        evaluation=evaluation,
        best=best_epoch(record.epochs),
        tiles=_tiles(evaluation) if evaluation else [],
        course=_course(record.epochs, record.config, len(genres)),
        metric_names={key: metric.name for key, metric in DECISION_METRICS.items()},
        metric_rows=_metric_rows(evaluation) if evaluation else [],
        parts={PARTS.get(key, key): part for key, part in evaluation.get("parts", {}).items() if part["n_tracks"]},
        slices=evaluation.get("slices", {}),
        reliability=reliability(evaluation),
        genre_rows=genre_rows(evaluation, record.labels),
        confused=scored and confused_genres(scored),
        mistakes=scored and worst_predictions(scored, record.listing, player),
        graph=genre_graph(record.graph),
        no_graph=_explain_missing_graph(record.config),
        seconds=sum(float(epoch.get("seconds") or 0.0) for epoch in record.epochs),
        filters=left_out(FilterCount(**count) for count in record.about.get("kept", [])),
        recipe_rows=_recipe_rows(record.preprocessor) if record.preprocessor else [],
        settings={**record.config, **{key: record.about[key] for key in ABOUT if key in record.about}},
    )


def _explain_missing_graph(config: Json) -> str:
    """Return why a run has no genre graph to show."""
    system, head = config.get("model", "ru2023"), config.get("head", "graph")
    if system != "ru2023":
        return f"The system {system} has no genre graph."
    if head != "graph":
        return f"The head of this model is {head}: it has no genre graph."
    return "The run has not written its genre graph yet."


def _key_facts(record: RunRecord) -> list[tuple[str, object]]:
    """Return names and values that identify the run: folder, preset, system, encoder, size and device."""
    config, about = record.config, record.about
    n_parameters = about.get("n_parameters")
    facts = [
        ("run", record.run.resolve().name),
        ("preset", record.preset),
        ("system", config.get("model")),
        ("audio input", None if record.modalities == "lyrics" else ", ".join(config.get("audio", ["mel"]))),
        ("audio encoder", None if record.modalities == "lyrics" else config.get("encoder")),
        ("parameters", None if n_parameters is None else f"{n_parameters:,}"),
        ("device", about.get("device")),
    ]
    return [(name, value) for name, value in facts if value is not None]


def best_epoch(epochs: Sequence[Json]) -> Json | None:
    """Return the best epoch (:func:`mgc.heads.metrics.validation.is_better`); None without a validation mAP."""
    best = None
    for epoch in epochs:
        if epoch.get("val_map") is not None and is_better(_validation(epoch), best and _validation(best)):
            best = epoch
    return best


def _validation(epoch: Json) -> dict[str, float | None]:
    return {"map": epoch["val_map"], "bce": epoch.get("val_bce")}


def _tiles(evaluation: Json) -> list[tuple[str, Json, float | None]]:
    """Return name, estimate and baseline value of the four metrics in the summary."""
    metrics, baselines = evaluation["metrics"], evaluation.get("baselines", {})
    majority, prior = baselines.get("majority"), baselines.get("label_prior")
    fixed, without = metrics["columns"][FIXED], majority and majority["columns"][FIXED]
    tiles = [(f"{METRICS[key].name} at 0.5", fixed, without, key) for key in ("jaccard", "f1")]
    tiles += [(METRICS[key].name, metrics, prior, key) for key in ("mean_average_precision", "roc_auc")]
    return [(name, values[key], baseline and baseline[key]["value"]) for name, values, baseline, key in tiles]


def _metric_rows(evaluation: Json) -> list[tuple[str, Json]]:
    """Return name and metrics of each decision rule, then of each baseline without features."""
    shown = decision_columns(evaluation.get("threshold_tuned_on"))
    columns = evaluation["metrics"]["columns"]
    rows = [(column_label(key).name, column) for key, column in columns.items() if key in shown or key not in COLUMNS]
    for key, baseline in evaluation.get("baselines", {}).items():
        name = BASELINES[key].name if key in BASELINES else key
        rows.append((f"baseline: {name}", baseline["columns"][FIXED]))
    return rows


def _course(epochs: Sequence[Json], config: Json, n_genres: int) -> dict[str, Chart] | None:
    """Draw losses and validation metrics per epoch; None before the first epoch is finished."""
    if not epochs:
        return None
    x, best = [float(epoch["epoch"]) for epoch in epochs], best_epoch(epochs)
    mark = None if best is None else (float(best["epoch"]), "best")
    both = config.get("contrastive", True) is not False
    lambda_ = float(config.get("lambda_", 0.3)) if both else 0.0
    trained_on = "cross-entropy" if config.get("loss", "bce") == "bce" else "asymmetric loss"
    divisor = n_genres if config.get("bce_reduction", "mean") == "sum" and n_genres else 1
    rise = int(config.get("lambda_warmup_epochs", 0)) + 1
    weights = [lambda_ * min(1.0, epoch / rise) for epoch in x]

    def series(key: str, weights: Sequence[float] = ()) -> list[float | None]:
        return [
            None if epoch.get(key) is None else weight * epoch[key]
            for epoch, weight in zip(epochs, itertools.chain(weights, itertools.repeat(1.0)), strict=False)
        ]

    curves = {
        "total": series("loss"),
        f"{1 - lambda_:g} × classification": series("classification", [1 - weight for weight in weights]),
        f"{lambda_:g} × audio-lyrics": series("contrastive", weights),
    }
    title = "Training loss" + ("" if rise == 1 else f" (lambda warm-up: {counted(rise - 1, 'epoch')})")
    loss = line_chart(x, curves, title=title, y_label="loss (nats)")
    curves = {
        f"training ({trained_on})": series("classification", [1 / divisor] * len(x)),
        "validation (cross-entropy)": series("val_bce"),
    }
    classification = line_chart(x, curves, title="Classification loss", y_label="loss per genre (nats)", mark=mark)
    curves = {
        "mAP": series("val_map"),
        "Jaccard at 0.5": series("val_jaccard"),
        "share of tracks without a predicted genre": series("val_empty_share"),
    }
    title = "Validation metrics"
    validation = line_chart(x, curves, title=title, y_label="metric (0 to 1)", mark=mark, unit_range=True)
    charts = {"loss": loss, "classification": classification, "validation": validation}
    norms = {"audio-lyrics": series("gradient_contrastive"), "classification": series("gradient_classification")}
    if any(value for line in norms.values() for value in line):
        title = "Gradient of each loss at the audio encoder"
        charts["gradients"] = line_chart(x, norms, title=title, y_label="weighted gradient norm", logarithmic=True)
    return charts


def _recipe_rows(preprocessor: Json) -> list[tuple[str, str, object]]:
    """Return feature, name and value of each parameter of the recipe, fingerprints first."""
    rows: list[tuple[str, str, object]] = [
        (feature, "fingerprint", value) for feature, value in preprocessor["fingerprints"].items()
    ]
    for feature, parameters in {**preprocessor["recipe"], **preprocessor.get("added", {})}.items():
        named = parameters if isinstance(parameters, Mapping) else {"": parameters}
        rows += [(feature, name, value) for name, value in named.items()]
    return rows
