"""The genre graph on a run's page: a map with related genres together, and each genre's neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from ..heads.model.graph import FloatArray
from .charts import Chart, heat_map
from .html import Json

MAX_DRAWN = 120
"""Genres in a map; of more, the most frequent."""
N_NEIGHBOURS = 4


def genre_graph(graph: Json) -> dict[str, Any] | None:
    """Return summary, map and neighbours of a ``graph.json``; None where the model uses no graph."""
    if not graph.get("used"):
        return None
    names, counts, weights = graph["genres"], np.asarray(graph["counts"]), np.asarray(graph["adjacency"])
    labels = {"x_label": "genre it draws on", "y_label": "genre", "unit": "weight (A_hat, no unit)"}
    nearest = [[(names[j], weight) for j, weight in row] for row in neighbours(weights, N_NEIGHBOURS)]
    by_count = np.argsort(-counts, kind="stable")
    return {
        "summary": graph["summary"],
        "chart": genre_map(names, weights, counts, title="Genre graph", **labels),
        "n_drawn": min(len(names), MAX_DRAWN),
        "rows": [(names[i], counts[i], graph["self_weight"][i], nearest[i]) for i in by_count],
    }


def genre_map(
    names: Sequence[str], weights: FloatArray, counts: npt.NDArray[np.int64], *, title: str, **labels: str
) -> Chart:
    """Draw weights between genres (C, C), related ones next to each other; `MAX_DRAWN` with the largest counts (C,)."""
    frequent = np.sort(np.argsort(-counts, kind="stable")[:MAX_DRAWN])
    drawn = frequent[clustered_order(weights[np.ix_(frequent, frequent)])]
    return heat_map([names[i] for i in drawn], weights[np.ix_(drawn, drawn)], title=title, **labels)


def clustered_order(adjacency: FloatArray) -> npt.NDArray[np.int64]:
    """(C,) order that puts genres which draw on each other next to each other.

    Notes
    -----
    Average linkage over ``1 - w_ij / max w`` of the symmetrised weights; leaves in optimal order (Bar-Joseph et al.
    2001).
    """
    weights = (adjacency + adjacency.T) / 2
    np.fill_diagonal(weights, 0.0)
    top = float(weights.max(initial=0.0))
    if len(weights) < 3 or top <= 0:
        return np.arange(len(weights), dtype=np.int64)
    distance = 1 - weights / top
    np.fill_diagonal(distance, 0.0)
    order = leaves_list(linkage(squareform(distance, checks=False), method="average", optimal_ordering=True))
    return np.asarray(order, dtype=np.int64)


def neighbours(adjacency: FloatArray, n: int) -> list[list[tuple[int, float]]]:
    """For each genre the `n` others that it draws on most, with their weights; those of no weight are left out."""
    others = np.where(np.eye(len(adjacency), dtype=bool), 0.0, adjacency)
    order = np.argsort(-others, axis=1, kind="stable")[:, :n]
    return [[(int(j), float(row[j])) for j in best if row[j] > 0] for row, best in zip(others, order, strict=True)]
