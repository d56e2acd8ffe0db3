"""Section of a run's report about its genre graph: a map with related genres together, and each genre's neighbours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from ..heads.model.graph import FloatArray
from .charts import heat_map
from .html import Json, figure, number, table, text

MAX_DRAWN = 120
"""Genres in the map; of more, the most frequent."""
N_NEIGHBOURS = 4


def graph_section(graph: Json) -> str:
    """The genre graph of a published model, from its ``graph.json``."""
    if not graph.get("used"):
        return "<h2>Genre graph</h2>\n<p>This model has no genre graph, or none has been published yet.</p>"
    summary = graph["summary"]
    weights = np.asarray(graph["adjacency"], dtype=np.float64)
    frequent = np.sort(np.argsort(-np.asarray(graph["counts"]), kind="stable")[:MAX_DRAWN])
    drawn = frequent[clustered_order(weights[np.ix_(frequent, frequent)])]
    names = [graph["genres"][i] for i in drawn]
    chart = heat_map(names, weights[np.ix_(drawn, drawn)], title="Genre graph", x_label="genre it draws on",
                     y_label="genre", unit="weight (A_hat, no unit)")  # fmt: skip
    own = summary["self_weight"]
    said = (
        "Each row shows which other genres a genre's classifier draws on, the more the bluer: those it shares tracks "
        "with in training and those whose names mean something alike. Genres that draw on each other stand together. "
        f"A genre's weight on itself ({own['min']:.2f} to {own['max']:.2f} of its row, mean {own['mean']:.2f}) is left "
        "out."
    )
    if len(drawn) < len(weights):
        said += f" Drawn are the {len(drawn)} most frequent of {len(weights)} genres."
    return (
        f"<h2>Genre graph</h2>\n<p>{text(_facts(summary))}</p>\n{figure(chart, 'Genre graph', said, wide=True)}\n"
        f"{_neighbour_table(graph, weights)}"
    )


def _facts(summary: Json) -> str:
    told = [
        f"Built from the training labels of {summary['n_genres']} genres and the vectors of their names. Mean cosine "
        f"between names {number(summary['mean_cosine'])} as used, {number(summary['mean_cosine_raw'])} as the text "
        "encoder gives them."
    ]
    for key, what in (("zero_count", "without a training track"), ("isolated", "that share no track with another")):
        if summary[key]:
            told.append(f"{len(summary[key])} {what}: {', '.join(summary[key])}.")
    return " ".join(told)


def _neighbour_table(graph: Json, weights: np.ndarray) -> str:
    counts, near = graph["counts"], neighbours(weights, N_NEIGHBOURS)
    rows = []
    for i in np.argsort(-np.asarray(counts), kind="stable").tolist():
        listed = ", ".join(f"{text(graph['genres'][j])} {weight:.3f}" for j, weight in near[i]) or "none"
        rows.append([text(graph["genres"][i]), str(counts[i]), number(graph["self_weight"][i]), listed])
    heads = ("genre", "training tracks", "own share of its row", "draws most on (weight)")
    return (
        "<details><summary>Each genre's nearest</summary>"
        + table(heads, rows, about="each genre's nearest", sortable=True, find="Find a genre", tall=True)
        + "</details>"
    )


def clustered_order(adjacency: FloatArray) -> npt.NDArray[np.int64]:
    """(C,) order that puts genres which draw on each other next to each other.

    Notes
    -----
    Average linkage over ``1 - w_ij / max w`` of the symmetrised weights; leaves in optimal order (Bar-Joseph et al.
    2001).
    """
    n = len(adjacency)
    if n < 3:
        return np.arange(n, dtype=np.int64)
    weights = (adjacency + adjacency.T) / 2
    np.fill_diagonal(weights, 0.0)
    top = float(weights.max())
    if top <= 0:
        return np.arange(n, dtype=np.int64)
    distance = 1 - weights / top
    np.fill_diagonal(distance, 0.0)
    order = leaves_list(linkage(squareform(distance, checks=False), method="average", optimal_ordering=True))
    return np.asarray(order, dtype=np.int64)


def neighbours(adjacency: FloatArray, n: int) -> list[list[tuple[int, float]]]:
    """For each genre the `n` others that it draws on most, with their weights; those of no weight are left out."""
    others = np.where(np.eye(len(adjacency), dtype=bool), 0.0, adjacency)
    order = np.argsort(-others, axis=1, kind="stable")[:, :n]
    return [[(int(j), float(row[j])) for j in best if row[j] > 0] for row, best in zip(others, order, strict=True)]
