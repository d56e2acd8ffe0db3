"""Section of a run's report about confusions: which genre is taken for which."""

from __future__ import annotations

import numpy as np

from .charts import heat_map
from .confusions import Confusions, confusions
from .graph_report import clustered_order
from .metrics import decide
from .page import Cell, figure, table, text
from .predictions import ScoredTracks

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
