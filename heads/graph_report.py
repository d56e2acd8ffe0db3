"""What a genre graph says, for people: ``graph.json``, warnings, each genre's neighbours, an order to draw it in.

Shapes: C genres.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from ..cache.durable import finite_or_none
from .graph import FloatArray, Graph, GraphOptions

NAMED = 10
"""Genres that a warning names."""


def graph_summary(graph: Graph, names: Sequence[str]) -> dict[str, Any]:
    """Plain values for ``run.json`` and the log.

    Returns
    -------
    dict
        ``zero_count``: genres without a training track. ``isolated``: genres that have some, but share none with
        another. ``mean_cosine``, ``mean_cosine_raw``: off the diagonal, of the name vectors as used and as stored.
        ``self_weight``: smallest, mean and largest share of a genre's own weight in its row.
    """
    together = np.where(np.eye(len(names), dtype=bool), 0.0, graph.a1)
    alone = ~(together.any(axis=0) | together.any(axis=1))
    zero = graph.counts == 0
    return {
        "n_genres": len(names),
        "zero_count": [names[i] for i in np.flatnonzero(zero).tolist()],
        "isolated": [names[i] for i in np.flatnonzero(alone & ~zero).tolist()],
        "mean_cosine": finite_or_none(graph.mean_cosine),
        "mean_cosine_raw": finite_or_none(graph.mean_cosine_raw),
        "self_weight": {
            "min": float(graph.self_weight.min()),
            "mean": float(graph.self_weight.mean()),
            "max": float(graph.self_weight.max()),
        },
    }


def graph_sentence(summary: dict[str, Any]) -> str:
    """The summary as a line for the log."""
    cosine = "undefined" if summary["mean_cosine"] is None else f"{summary['mean_cosine']:.3f}"
    raw = "undefined" if summary["mean_cosine_raw"] is None else f"{summary['mean_cosine_raw']:.3f}"
    own = summary["self_weight"]
    return (
        f"genre graph of {summary['n_genres']} genres: {len(summary['zero_count'])} without a training track, "
        f"{len(summary['isolated'])} that share none; mean cosine of names {cosine} as used, {raw} as stored; own "
        f"weight {own['min']:.2f} to {own['max']:.2f} of a row, mean {own['mean']:.2f}"
    )


def graph_warnings(graph: Graph, names: Sequence[str]) -> list[str]:
    """What the user should know before the first step, a sentence each."""
    summary = graph_summary(graph, names)
    said = []
    if zero := summary["zero_count"]:
        said.append(f"{len(zero)} of {len(names)} genres have no training track and cannot be learnt: {_some(zero)}")
    if isolated := summary["isolated"]:
        said.append(f"{len(isolated)} of {len(names)} genres share no training track with another; in the genre graph "
                    f"nothing but their names joins them to others: {_some(isolated)}")  # fmt: skip
    return said


def graph_document(graph: Graph, names: Sequence[str], options: GraphOptions) -> dict[str, Any]:
    """``graph.json``: the summary, and every matrix with 6 decimals; the model's own adjacency is in its weights.

    ``adjacency[i][j]`` is the weight with which genre i draws on genre j (A_hat); `a1` and `a2` are Eq. 2 and Eq. 3.
    """
    return {
        "genres": list(names),
        "used": True,
        "options": dataclasses.asdict(options),
        "counts": graph.counts.tolist(),
        "summary": graph_summary(graph, names),
        "self_weight": _rounded(graph.self_weight),
        "a1": _rounded(graph.a1),
        "a2": _rounded(graph.a2),
        "adjacency": _rounded(graph.adjacency),
    }


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


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")


def _rounded(values: npt.NDArray[np.float64]) -> Any:
    return np.round(values, 6).tolist()
