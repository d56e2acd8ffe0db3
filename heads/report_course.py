"""Section of a run's report about the course of its training: losses and validation figures by epoch."""

from __future__ import annotations

from collections.abc import Sequence

from .charts import line_chart
from .page import Json, figure, number
from .validation import is_better


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
    """The epoch that is kept (:func:`mgc.heads.validation.is_better`); None where no validation mAP is known."""
    best = None
    for epoch in epochs:
        if epoch.get("val_map") is not None and is_better(_validated(epoch), best and _validated(best)):
            best = epoch
    return best


def _validated(epoch: Json) -> dict[str, float | None]:
    return {"map": epoch["val_map"], "bce": epoch.get("val_bce")}


def _times(weight: float, value: float | None) -> float | None:
    return None if value is None else weight * value
