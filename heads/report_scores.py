"""Sections of a run's report about its scores: tracks by what they have, and how well scores are calibrated."""

from __future__ import annotations

from .charts import reliability_chart
from .page import Json, figure, interval, number, table, text


def parts_section(evaluation: Json) -> str:
    """Figures of the tracks with sound and lyrics, sound only, lyrics only; nothing where all have the same."""
    parts = {name: part for name, part in evaluation.get("parts", {}).items() if part["n_tracks"]}
    if len(parts) < 2:
        return ""
    rows = []
    for name, part in parts.items():
        estimates = (part["mean_average_precision"], part["columns"]["fixed"]["jaccard"],
                     part["columns"]["tuned"]["jaccard"], part["columns"]["tuned"]["f1"])  # fmt: skip
        cells = [f"{number(one['value'])}<small>{interval(one)}</small>" for one in estimates]
        rows.append([text(name), str(part["n_tracks"]), str(len(part["undefined_genres"])), *cells])
    heads = ("tracks with", "tracks", "genres without one", "mAP", "Jaccard at 0.5", "Jaccard, tuned threshold",
             "F1, tuned threshold")  # fmt: skip
    return (
        "<h2>By what tracks have</h2>\n<p>Not the same tracks, so not a measure of what lyrics are worth: genres "
        "differ in how often they have words. mAP is over the genres that have a track in the row.</p>\n"
        + table(heads, rows, about="metrics by what tracks have")
    )


def calibration_section(evaluation: Json) -> str:
    """The reliability plot with its figures."""
    told = evaluation.get("calibration")
    if not told or told["expected_calibration_error"] is None:
        return ""
    chart = reliability_chart(told["bins"], title="Reliability of the scores", x_label="score", y_label="share true")
    said = (
        f"Where the line lies below the diagonal, scores promise too much. {told['n_pairs']} scores (a track, a genre) "
        f"in {len(told['bins'])} bins; most are near 0, as the lower bars show. Expected calibration error "
        f"{number(told['expected_calibration_error'])}: the mean distance from the diagonal over all scores (Guo et "
        f"al. 2017); genre by genre, so that genres cannot make up for each other, "
        f"{number(told['classwise_calibration_error'])} (Kull et al. 2019). Brier score {number(told['brier'])}; each "
        f"genre's share of these tracks as its score would have {number(told['brier_of_genre_shares'])}."
    )
    chart = figure(chart, "Reliability of the scores", said)
    return f"<h2>Calibration</h2>\n<div class=figures>{chart}</div>"
