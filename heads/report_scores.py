"""Sections of a run's report about its scores: tracks by what they have, calibration, sound and lyrics that find each
other."""

from __future__ import annotations

from .charts import reliability_chart
from .page import Json, bar, figure, interval, number, table, text


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


def alignment_section(evaluation: Json) -> str:
    """How well sound finds its lyrics and lyrics their sound; or why that was not asked."""
    told = evaluation.get("alignment")
    if not evaluation:
        return ""
    head = "<h2>Lyrics found by sound, sound by lyrics</h2>\n"
    if told is None:
        return f"{head}<p>Not measured when this run was evaluated; run mgc evaluate again.</p>"
    if "reason" in told:
        return f"{head}<p>Not measured: {text(told['reason'])}.</p>"
    rows = []
    for k, chance in told["chance"].items():
        both = [by_rank[k] for by_rank in told["recall"].values()]
        cells = [f"{bar(recall['value'], tick=chance)}<small>{interval(recall)}</small>" for recall in both]
        rows.append([f"{k} nearest", *cells, number(chance)])
    drawn = f" ({told['n_left_out']} more were left out of the draw)" if told["n_left_out"] else ""
    note = f" {told['note'].capitalize()}." if "note" in told else ""
    said = (
        f"The sound of each of {told['n_tracks']} tracks that have both{drawn} looks for its lyrics among those of all "
        "of them, and each one's lyrics for their sound, by the projections that the audio-lyrics loss trains. Told is "
        "how often the right one is among the nearest; a bar that ends at its tick is no better than chance. Below "
        f"each value its 95 % interval over artists.{note}"
    )
    return f"{head}<p>{text(said)}</p>\n" + table(
        ("right one among the", "sound looks for lyrics (0 to 1)", "lyrics look for sound (0 to 1)", "chance"), rows,
        about="recall of sound and lyrics",
    )  # fmt: skip
