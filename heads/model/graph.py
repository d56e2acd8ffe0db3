"""Build the genre graph from label co-occurrence and name similarity, and the GCN that turns it into classifiers.

Shapes: N tracks, C genres, D text width, B batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...cache.messages import counted, join_names, number
from ..results import json_value
from .config import Conditional, GraphOptions

FloatArray = npt.NDArray[np.float64]

CROWDED_COSINE = 0.99
"""Mean cosine between classifier rows above which all genres start with nearly the same classifier."""
LOW_SELF_WEIGHT = 0.2
"""Share of a genre's own weight in its row of A_hat below which other genres dominate its classifier."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The adjacency matrix with its components.

    Attributes
    ----------
    adjacency : (C, C) float64, A_hat, for :class:`GenreGraph`.
    counts : (C,) int64, training tracks per genre.
    a1, a2 : (C, C) float64, Eq. 2 and Eq. 3.
    mean_cosine : mean off-diagonal cosine of the name vectors as used (centred or raw, before clipping); NaN for one
        genre.
    mean_cosine_raw : mean off-diagonal cosine of the name vectors as stored.
    self_weight : (C,) float64, share of a genre's own weight in its row of A_hat.
    """

    adjacency: FloatArray
    counts: npt.NDArray[np.int64]
    a1: FloatArray
    a2: FloatArray
    mean_cosine: float
    mean_cosine_raw: float
    self_weight: FloatArray


def co_occurrence(labels: npt.ArrayLike, conditional: Conditional = "rhs") -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Return conditional probabilities of genres, and their numbers of tracks.

    Parameters
    ----------
    labels : (N, C) 0/1, label matrix Y of the training split.

    Returns
    -------
    A1 : (C, C) float64, 1 on the diagonal; 0 elsewhere in row and column of a genre without a track.
    counts : (C,) int64.

    Notes
    -----
    Ru et al. 2023, Eq. 2: ``A1_ij = P(L_j | L_i) = N_ij / N_j``. The two sides contradict each other: ``rhs`` computes
    ``N_ij / N_j``, ``lhs`` computes ``N_ij / N_i``.
    """
    y = _label_matrix(labels)
    together = y.T @ y
    counts = np.diag(together).copy()
    divisor = np.maximum(counts, 1.0)
    a1 = together / (divisor[None, :] if conditional == "rhs" else divisor[:, None])
    np.fill_diagonal(a1, 1.0)
    return a1, counts.astype(np.int64)


def centre(embedding: npt.ArrayLike) -> FloatArray:
    """Subtract the mean over genres from (C, D) name vectors; a single genre is unchanged, since it would become 0."""
    f = np.asarray(embedding, dtype=np.float64)
    return f - f.mean(axis=0, keepdims=True) if len(f) > 1 else f


def cosine(vectors: npt.ArrayLike) -> FloatArray:
    """Return the (C, C) cosines between rows: 1 on the diagonal, 0 between a zero vector and all others.

    Notes
    -----
    Ru et al. 2023, Eq. 3.
    """
    f = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(f, axis=1, keepdims=True)
    # Centred equal vectors are rounding errors without a meaningful direction.
    unit = np.divide(f, norm, out=np.zeros_like(f), where=norm > 1e-9 * max(1.0, float(np.abs(f).max(initial=0.0))))
    similarity = np.clip(unit @ unit.T, -1.0, 1.0)
    np.fill_diagonal(similarity, 1.0)
    return np.asarray(similarity, dtype=np.float64)


def normalise_adjacency(a: npt.ArrayLike, normalisation: Literal["symmetric", "row"] = "symmetric") -> FloatArray:
    """Return ``D^-1/2 A D^-1/2`` or ``D^-1 A`` with D the row sums of A. No identity is added: the diagonal of A is 1.

    Raises
    ------
    ValueError
        If a row sum is not positive, which strongly negative similarities cause.
    """
    a = np.asarray(a, dtype=np.float64)
    degree = a.sum(axis=1)
    if (degree <= 0).any():
        rows = np.flatnonzero(degree <= 0).tolist()
        raise ValueError(f"genre graph, rows {rows}: sums are not positive. Use --set graph_similarity=centred.")
    if normalisation == "row":
        return np.asarray(a / degree[:, None], dtype=np.float64)
    root = degree**-0.5
    return np.asarray(root[:, None] * a * root[None, :], dtype=np.float64)


def reweighted_adjacency(a: npt.ArrayLike, reweight: float = 0.25) -> FloatArray:
    """Return ``(1 - p) I + p R``, where R is A without its diagonal, each row divided by its sum.

    The own weight of a genre is 1 - p, for any number of related genres, and 1 without one. Every row sums to 1.

    Notes
    -----
    The re-weighting of ML-GCN (Chen et al., CVPR 2019, Eq. 8) on an adjacency that is not thresholded.
    """
    others = np.asarray(a, dtype=np.float64).copy()
    np.fill_diagonal(others, 0.0)
    total = others.sum(axis=1, keepdims=True)
    shares = np.divide(others, total, out=np.eye(len(others)), where=total > 0)
    return np.asarray((1 - reweight) * np.eye(len(others)) + reweight * shares, dtype=np.float64)


def conditioning(adjacency: npt.ArrayLike) -> tuple[float, float]:
    """Measure how well two applications of A_hat, as in the GCN, keep genres distinct.

    Returns
    -------
    condition_number : of ``A_hat^2``: largest singular value over smallest; infinity if it is singular.
    effective_rank : stable rank of ``A_hat^2``: sum of squared singular values over the largest squared, from 1 to C.
        It estimates the number of directions of classifier space that the graph preserves.

    Notes
    -----
    Oversmoothing: Li, Han and Wu, AAAI 2018. Stable rank: Rudelson and Vershynin, J. ACM 54 (2007).
    """
    a = np.asarray(adjacency, dtype=np.float64)
    singular = np.linalg.svd(a @ a, compute_uv=False)
    largest, smallest = float(singular[0]), float(singular[-1])
    rank = float(((singular / largest) ** 2).sum())
    is_singular = smallest <= largest * len(singular) * np.finfo(np.float64).eps
    return (math.inf if is_singular else largest / smallest), rank


def ml_gcn_adjacency(labels: npt.ArrayLike, threshold: float = 0.4, reweight: float = 0.25) -> FloatArray:
    """Return the adjacency of ML-GCN (Chen et al., CVPR 2019): binarised and re-weighted co-occurrence.

    Notes
    -----
    ``P = N_ij / N_i`` with zero diagonal; ``B = [P >= t]``; ``B <- p B / (column sum + 1e-6) + I``;
    ``A_hat = (B D)^T D`` with ``D = diag(row sum ^ -1/2)``, as in the authors' code.
    """
    p, _ = co_occurrence(labels, "lhs")
    np.fill_diagonal(p, 0.0)
    b = (p >= threshold).astype(np.float64)
    b = reweight * b / (b.sum(axis=0, keepdims=True) + 1e-6) + np.eye(len(b))
    root = b.sum(axis=1) ** -0.5
    return np.asarray((b * root[None, :]).T * root[None, :], dtype=np.float64)


def build_adjacency(labels: npt.ArrayLike, embedding: npt.ArrayLike, options: GraphOptions | None = None) -> Graph:
    """Build the genre graph from the training split.

    Parameters
    ----------
    labels : (N, C) 0/1, training tracks only.
    embedding : (C, D) embeddings of genre names.

    Raises
    ------
    ValueError
        If shapes disagree, or an embedding is not finite.

    Notes
    -----
    Ru et al. 2023, section 2.3: ``A = (A1 + A2) / 2``.
    """
    options = options or GraphOptions()
    a1, counts = co_occurrence(labels, options.conditional)
    raw = np.asarray(embedding, dtype=np.float64)
    if raw.ndim != 2 or len(raw) != len(a1):
        raise ValueError(f"genre embedding: shape {raw.shape} does not fit {counted(len(a1), 'genre')}")
    if not np.isfinite(raw).all():
        raise ValueError("genre embedding: NaN or infinity. Extract into a new store.")
    used_cosine = cosine(centre(raw) if options.similarity == "centred" else raw)
    a2 = np.maximum(used_cosine, 0.0) if options.similarity == "centred" else used_cosine
    if options.normalisation == "ml-gcn":
        adjacency = ml_gcn_adjacency(labels, options.threshold, options.reweight)
    elif options.normalisation == "reweighted":
        adjacency = reweighted_adjacency((a1 + a2) / 2, options.reweight)
    else:
        adjacency = normalise_adjacency((a1 + a2) / 2, options.normalisation)
    return Graph(
        adjacency=adjacency,
        counts=counts,
        a1=a1,
        a2=a2,
        mean_cosine=_off_diagonal_mean(used_cosine),
        mean_cosine_raw=_off_diagonal_mean(cosine(raw)),
        self_weight=np.diag(adjacency) / adjacency.sum(axis=1),
    )


class GenreGraph(nn.Module):
    """Two-layer graph convolution over genre names: (C, D) -> classifiers W (C, out_width).

    Parameters
    ----------
    adjacency : (C, C) A_hat; a buffer, saved with the weights.
    nodes : (C, D) name vectors, centred by the caller if they should be; a buffer, saved with the weights.
    hidden : inner width.
    out_width : width of a classifier.

    Notes
    -----
    Ru et al. 2023, section 2.3: ``W = A_hat LeakyReLU_0.2(A_hat F W1) W2``, no bias. Always in float32.
    """

    adjacency: Tensor
    nodes: Tensor

    def __init__(self, adjacency: Tensor, nodes: Tensor, *, hidden: int = 1024, out_width: int = 512) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency.float().clone())
        self.register_buffer("nodes", nodes.float().clone())
        self.first = nn.Linear(nodes.shape[1], hidden, bias=False)
        self.second = nn.Linear(hidden, out_width, bias=False)

    def forward(self) -> Tensor:
        """Return W, (C, out_width) float32."""
        with torch.autocast(self.nodes.device.type, enabled=False):
            hidden = nn.functional.leaky_relu(self.adjacency @ self.first(self.nodes), 0.2)
            classifiers: Tensor = self.adjacency @ self.second(hidden)
        return classifiers

    @torch.no_grad()
    def row_cosine(self) -> float:
        """Return the mean cosine between rows of W: near 1, all genres have the same classifier; NaN for one genre."""
        return _off_diagonal_mean(cosine(self().double().cpu().numpy()))


def _label_matrix(labels: npt.ArrayLike) -> FloatArray:
    y = np.asarray(labels, dtype=np.float64)
    if y.ndim != 2 or y.shape[1] == 0:
        raise ValueError(f"labels must have shape (tracks, genres) with at least one genre, not {y.shape}")
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1")
    return y


def _off_diagonal_mean(matrix: FloatArray) -> float:
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1))) if n > 1 else float("nan")


MAX_LISTED = 10
"""Maximum number of genres in a warning."""


def graph_summary(graph: Graph, names: Sequence[str]) -> dict[str, Any]:
    """Summarise a graph as plain values, for ``run.json`` and the log.

    Returns
    -------
    dict
        ``zero_count``: genres without a training track. ``isolated``: genres whose training tracks have no other genre.
        ``mean_cosine``, ``mean_cosine_raw``: off-diagonal means for the name vectors as used and as stored.
        ``self_weight``: minimum, mean and maximum of a genre's own weight in its row; ``frequent`` and ``rare``: its
        mean over the half of the genres with most training tracks, and over the others. ``condition_number`` (None:
        infinite) and ``effective_rank``: see :func:`conditioning`. ``blurred``: genres with an own weight below
        `LOW_SELF_WEIGHT`, the most frequent first.
    """
    together = np.where(np.eye(len(names), dtype=bool), 0.0, graph.a1)
    unlinked = ~(together.any(axis=0) | together.any(axis=1))
    zero = graph.counts == 0
    condition_number, effective_rank = conditioning(graph.adjacency)
    by_count = np.argsort(-graph.counts, kind="stable")
    half, own = -(-len(names) // 2), graph.self_weight
    blurred = [names[i] for i in by_count.tolist() if own[i] < LOW_SELF_WEIGHT]
    return {
        "n_genres": len(names),
        "zero_count": [names[i] for i in np.flatnonzero(zero).tolist()],
        "isolated": [names[i] for i in np.flatnonzero(unlinked & ~zero).tolist()],
        "mean_cosine": json_value(graph.mean_cosine),
        "mean_cosine_raw": json_value(graph.mean_cosine_raw),
        "self_weight": {
            **{name: float(getattr(own, name)()) for name in ("min", "mean", "max")},
            "frequent": float(own[by_count[:half]].mean()),
            "rare": json_value(float(own[by_count[half:]].mean()) if half < len(names) else math.nan),
        },
        "condition_number": json_value(condition_number),
        "effective_rank": effective_rank,
        "blurred": blurred,
    }


def graph_sentence(summary: dict[str, Any]) -> str:
    """Return the summary as a line for the log."""
    cosine, raw = (number(summary[key], missing="undefined") for key in ("mean_cosine", "mean_cosine_raw"))
    own = summary["self_weight"]
    return (
        f"genre graph of {counted(summary['n_genres'], 'genre')}: {len(summary['zero_count'])} without a training "
        f"track, {len(summary['isolated'])} isolated; mean cosine of names {cosine} as used, {raw} as stored; "
        f"self-weight {own['min']:.2f} to {own['max']:.2f}, mean {own['mean']:.2f}; squared adjacency: condition "
        f"number {number(summary['condition_number'], missing='infinite')}, "
        f"effective rank {summary['effective_rank']:.1f}"
    )


def graph_warnings(summary: dict[str, Any], options: GraphOptions | None = None) -> list[str]:
    """Return warnings for users before the first step, one sentence each; `options` are those of the graph."""
    by_names = options is None or options.normalisation != "ml-gcn"
    n_genres, warnings = summary["n_genres"], []
    if zero := summary["zero_count"]:
        untrained = f"{len(zero)} of {n_genres} genres have no training track and cannot be learned"
        warnings.append(f"{untrained}: {join_names(zero, MAX_LISTED)}")
    if isolated := summary["isolated"]:
        unlinked = f"{len(isolated)} of {n_genres} genres never co-occur with another genre in the training tracks"
        links = f"the genre graph {'can link them only by name similarity' if by_names else 'does not link them'}"
        warnings.append(f"{unlinked}; {links}: {join_names(isolated, MAX_LISTED)}")
    if blurred := summary["blurred"]:
        low = f"{len(blurred)} of {n_genres} genres have a self-weight below {LOW_SELF_WEIGHT:.0%} in the genre graph"
        advice = "their classifiers are nearly equal; --set graph_normalisation=reweighted separates them"
        warnings.append(f"{low}; {advice}: {join_names(blurred, MAX_LISTED)}")
    return warnings


def graph_document(
    graph: Graph, summary: dict[str, Any], names: Sequence[str], options: GraphOptions
) -> dict[str, Any]:
    """Return the content of ``graph.json``: the summary, and every matrix with 6 decimals.

    ``adjacency[i][j]`` is the weight of genre j in the classifier of genre i (A_hat); `a1` and `a2` are Eq. 2 and 3.
    The exact adjacency is saved with the weights of the model.
    """
    arrays = {name: getattr(graph, name).round(6).tolist() for name in ("self_weight", "a1", "a2", "adjacency")}
    return {
        "genres": list(names),
        "used": True,
        "options": dataclasses.asdict(options),
        "counts": graph.counts.tolist(),
        "summary": summary,
        **arrays,
    }
