"""Sections of a run's report about its scores: tracks by what they have, calibration, sound and lyrics that find each
other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ..heads.evaluation.scored_tracks import ScoredTracks
from ..heads.metrics.confusions import Confusions, confusions
from ..heads.metrics.multilabel import BoolArray, FloatArray, decide, jaccard_per_track
from .charts import heat_map, reliability_chart
from .graph import clustered_order
from .html import Cell, Json, bar, figure, interval, number, table, text
from .run_record import RunRecord


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


def genres_section(record: RunRecord) -> str:
    """The table of genres, the most frequent first; it sorts and filters."""
    if not record.evaluation:
        return ""
    metrics = record.evaluation["metrics"]
    trained = dict(zip(record.labels.get("genres", []), record.labels.get("train_counts", []), strict=False))
    columns, overall = metrics["columns"], record.evaluation["threshold"]
    own = columns["tuned_per_genre"]["thresholds"]
    rows: list[list[Cell]] = []
    for row, cut in sorted(
        zip(metrics["genres"], own, strict=True), key=lambda pair: (-pair[0]["support"], pair[0]["genre"])
    ):
        share = row["support"] / metrics["n_tracks"] if metrics["n_tracks"] else 0.0
        rows.append([
            text(row["genre"]), str(row["support"]), text(trained.get(row["genre"], "–")),
            bar(row["average_precision"], tick=share), bar(row["f1"]["fixed"]), number(row["precision"]["fixed"]),
            number(row["recall"]["fixed"]), number(row["f1"]["tuned"]), f"{cut:.3g}",
            number(row["f1"]["tuned_per_genre"]),
        ])  # fmt: skip
    heads = ("genre", "tracks", "training tracks", "average precision (0 to 1)", "F1 at 0.5 (0 to 1)",
             "precision at 0.5", "recall at 0.5", f"F1 at {overall:.3g}", "own threshold", "F1 at its own")  # fmt: skip
    return (
        "<h2>Genres</h2>\n<p>A bar that ends at its tick ranks tracks no better than chance: the tick is the genre's "
        f"share of the tracks. {overall:.3g} is the threshold tuned for all genres on validation tracks, its own the "
        "one tuned for the genre. Genres with few tracks have wide, unstated intervals.</p>\n"
        + table(heads, rows, about="genres", sortable=True, find="Find a genre", tall=True)
    )


MAX_PAIRS = 60
MAX_DRAWN = 120
"""Genres in the picture; of more, those that most tracks have."""
MIN_MISSED = 3
"""Missed tracks below which a row's shares are left out of the picture: they could only be 0, a half or all."""


def confusions_section(scored: ScoredTracks | None) -> str:
    """The most frequent pairs and a picture of all, at the threshold tuned for all genres."""
    if scored is None:
        return ""
    cut = float(scored.thresholds["tuned"][0])
    found = confusions(scored.labels, decide(scored.scores, cut))
    pairs, n_missed = found.pairs(), int(found.missed.sum())
    said = (
        f"Among the test tracks that have a genre which was not predicted (at threshold {cut:.3g}, tuned on validation "
        "tracks): how often another was predicted that the track does not have. A track may count for several pairs. "
        f"Of {n_missed} misses (a track, a genre of it), {int(found.alone.sum())} are of tracks for which nothing "
        "wrong was predicted."
    )
    head = f"<h2>Which genre is taken for which</h2>\n<p>{text(said)}</p>\n"
    if not pairs:
        return f"{head}<p>No genre was taken for another.</p>"
    return head + _table(scored, found, pairs) + _picture(scored, found)


def _table(scored: ScoredTracks, found: Confusions, pairs: list[tuple[int, int]]) -> str:
    names, shares = scored.genres, found.shares
    rows: list[list[Cell]] = [
        [text(names[one]), text(names[other]), str(found.taken_for[one, other]),
         (f"{shares[one, other]:.0%}", shares[one, other]), str(found.missed[one]), str(found.support[one])]
        for one, other in pairs[:MAX_PAIRS]
    ]  # fmt: skip
    heads = ("missed genre", "predicted instead", "tracks", "of those missed", "missed", "tracks that have it")
    listed = table(heads, rows, about="confused genres", sortable=True, find="Find a genre", tall=True)
    more = f"<p>The {MAX_PAIRS} most frequent of {len(pairs)} pairs.</p>\n" if len(pairs) > MAX_PAIRS else ""
    return more + listed + "\n"


def _picture(scored: ScoredTracks, found: Confusions) -> str:
    """Shares as a heat map, of the genres that have any part in it."""
    shares = np.where(found.missed[:, None] >= MIN_MISSED, np.nan_to_num(found.shares), 0.0)
    taking_part = np.flatnonzero(shares.any(axis=0) | shares.any(axis=1))
    if len(taking_part) < 2:
        return f"<p>No genre was missed {MIN_MISSED} times and taken for another, so there is nothing to draw.</p>"
    drawn = taking_part[np.sort(np.argsort(-found.support[taking_part], kind="stable")[:MAX_DRAWN])]
    drawn = drawn[clustered_order(shares[np.ix_(drawn, drawn)].copy())]
    weights = shares[np.ix_(drawn, drawn)]
    title = "Confused genres"
    chart = heat_map([scored.genres[i] for i in drawn], weights, title=title, x_label="genre predicted wrongly",
                     y_label="genre missed", unit="share of the tracks missed (0 to 1)")  # fmt: skip
    said = (
        "Each row is a genre that was missed; the bluer a cell, the larger the share of its missed tracks for which "
        "the column's genre was predicted wrongly. Genres taken for each other stand together; a column that is blue "
        "throughout is a genre that the model predicts too readily."
    )
    few = int(((found.missed > 0) & (found.missed < MIN_MISSED)).sum())
    if few:
        said += f" Rows of genres missed less than {MIN_MISSED} times ({few}) are left blank."
    if len(drawn) < len(taking_part):
        said += f" Drawn are the {len(drawn)} most frequent of {len(taking_part)} genres."
    return figure(chart, title, said, wide=True)


MAX_SHOWN = 20
_SURE = 1e-7
"""A score of exactly 0 or 1 counts as this far from it; its logarithm would be infinite."""


@dataclass(frozen=True, kw_only=True)
class Player:
    """Where songs are, for a page in the folder `page`.

    Attributes
    ----------
    root : the folder that the tracks' paths start from; None where it is not known.
    clip_s : seconds that the model heard of each song.
    """

    page: Path
    root: Path | None = None
    clip_s: float | None = None

    def of(self, path: str | None, offset_s: float | None) -> str:
        """HTML that plays the clip, or says why it does not."""
        if self.root is None:
            return ""
        if path is None:
            return "<p>Its file is not known; run mgc evaluate again.</p>"
        parts = PurePosixPath(path)
        file = self.root / parts
        if parts.is_absolute() or ".." in parts.parts:
            return f"<p>{text(path)} is not below the audio root.</p>"
        if not file.is_file():
            return f"<p>No file {text(path)} below the audio root.</p>"
        start = "" if not offset_s else f"{offset_s:g}"
        heard = "" if self.clip_s is None or not start else f",{(offset_s or 0.0) + self.clip_s:g}"
        source = f"{self._url(file)}{f'#t={start}{heard}' if start else ''}"
        return f'<audio controls preload=none src="{text(source)}"></audio>'

    def _url(self, file: Path) -> str:
        """Relative, so that page and songs may move together and no folder of this machine is told."""
        try:
            return quote(os.fsencode(Path(os.path.relpath(file, self.page)).as_posix()))
        except ValueError:  # another drive
            return file.resolve().as_uri()


def mistakes_section(scored: ScoredTracks | None, listing: Sequence[Mapping[str, Any]], player: Player) -> str:
    """The worst tracks with what they are and what was said of them."""
    if scored is None:
        return ""
    cut = float(scored.thresholds["tuned"][0])
    predicted = decide(scored.scores, cut)
    overlap, loss = jaccard_per_track(scored.labels, predicted), cross_entropy(scored.labels, scored.scores)
    worst = worst_tracks(overlap, loss)[:MAX_SHOWN]
    worst = worst[overlap[worst] < 1]
    if not len(worst):
        return (
            f"<h2>Tracks it got most wrong</h2>\n<p>None: every track got just its genres at threshold {cut:.3g}.</p>"
        )
    said = (
        f"Those whose predicted genres (at threshold {cut:.3g}, tuned on validation tracks) overlap least with their "
        "own by the Jaccard index; among equals, those with the largest cross-entropy. Behind each genre stands its "
        "score; genres both had and predicted are underlined. A label may be wrong, not only a model."
    )
    if player.root is None:
        said += " To listen to them here: mgc report RUN --audio-root FOLDER, the folder that the store was made from."
    elif player.clip_s is not None:
        said += f" Players stand at the {player.clip_s:g} s that the model heard."
    cards = []
    for i in worst.tolist():
        figures = f"Jaccard {overlap[i]:.3f}, cross-entropy {loss[i]:.3f} nats a genre"
        cards.append(_card(listing[i], scored, i, predicted[i], figures, player))
    return f"<h2>Tracks it got most wrong</h2>\n<p>{text(said)}</p>\n<ol class=tracks>\n{''.join(cards)}</ol>"


def worst_tracks(overlap: FloatArray, loss: FloatArray) -> npt.NDArray[np.int64]:
    """(N,) tracks by least `overlap`, then largest `loss`, then order."""
    return np.lexsort((-loss, overlap))


def cross_entropy(labels: BoolArray, scores: npt.NDArray[np.float32]) -> FloatArray:
    """(N,) binary cross-entropy of each track, the mean over genres, in nats."""
    s = np.clip(scores.astype(np.float64), _SURE, 1 - _SURE)
    mean: FloatArray = -np.where(labels, np.log(s), np.log(1 - s)).mean(axis=1)
    return mean


def _card(
    track: Mapping[str, Any], scored: ScoredTracks, i: int, predicted: BoolArray, figures: str, player: Player
) -> str:
    labels = scored.labels[i]

    def genres(chosen: BoolArray) -> str:
        order = np.flatnonzero(chosen)[np.argsort(-scored.scores[i][chosen], kind="stable")].tolist()
        both = labels & predicted
        named = [(f"<u>{text(scored.genres[j])}</u>" if both[j] else text(scored.genres[j]), j) for j in order]
        return ", ".join(f"{name}&nbsp;{scored.scores[i, j]:.2f}" for name, j in named) or "nothing"

    artists = ", ".join(track["artists"] or ())
    title = " – ".join(part for part in (artists, track["song"] or "") if part) or track["id"]
    return (
        f"<li><h3>{text(title)}</h3><dl><dt>has</dt><dd>{genres(labels)}</dd><dt>predicted</dt><dd>{genres(predicted)}"
        f"</dd></dl>{player.of(track['path'], track['offset_s'])}"
        f"<p class=note>{text(track['id'])}: {figures}</p></li>\n"
    )
