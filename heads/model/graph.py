"""The genre graph: how often genres meet, how close their names are, and the GCN that makes classifiers of both.

Shapes: N tracks, C genres, D text width, B batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...cache.errors import ConfigError
from ...cache.messages import join_names, number
from ..results import json_value

FloatArray = npt.NDArray[np.float64]

Conditional = Literal["rhs", "lhs"]
Similarity = Literal["centred", "raw"]
Normalisation = Literal["symmetric", "row", "ml-gcn", "reweighted"]

CROWDED_COSINE = 0.99
"""Mean cosine between classifier rows above which training starts from one and the same classifier for every genre."""
LOW_SELF_WEIGHT = 0.2
"""Share of a genre's own weight in its row of A_hat below which its classifier is mostly made of those of others."""


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """How the adjacency is made.

    Attributes
    ----------
    conditional : divide co-occurrence by ``N_j`` (``rhs``: the printed right-hand side of Eq. 2) or ``N_i`` (``lhs``).
    similarity : cosine of name vectors ``centred`` over genres and clipped at 0, or ``raw`` (Eq. 3 as printed).
    normalisation : ``symmetric`` D^-1/2 A D^-1/2; ``row`` D^-1 A; ``reweighted`` (1 - p) I + p times the off-diagonal
        of A with rows that sum to 1; or ``ml-gcn``: co-occurrence alone, thresholded and re-weighted as Chen et al.
        (CVPR 2019) do.
    threshold : ``t`` of ``ml-gcn``.
    reweight : ``p`` of ``ml-gcn`` and of ``reweighted``, from 0 (no graph) to 1.
    """

    conditional: Conditional = "rhs"
    similarity: Similarity = "centred"
    normalisation: Normalisation = "symmetric"
    threshold: float = 0.4
    reweight: float = 0.25

    def __post_init__(self) -> None:
        kinds = {"conditional": Conditional, "similarity": Similarity, "normalisation": Normalisation}
        for name, kind in kinds.items():
            value, choices = getattr(self, name), get_args(kind)
            if value not in choices:
                raise ConfigError(f"graph {name} {value!r} is unknown; choose one of {', '.join(choices)}")
        if not 0 <= self.reweight <= 1:
            raise ConfigError(f"graph reweight {self.reweight}: want a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The adjacency and what it was made of.

    Attributes
    ----------
    adjacency : (C, C) float64, A_hat, ready for :class:`GenreGraph`.
    counts : (C,) int64, training tracks of each genre.
    a1, a2 : (C, C) float64, Eq. 2 and Eq. 3.
    mean_cosine : mean off-diagonal cosine of the name vectors as used (centred or raw, before clipping); NaN for one
        genre.
    mean_cosine_raw : the same of the vectors as stored.
    self_weight : (C,) float64, share of a node's own weight in its row of A_hat.
    """

    adjacency: FloatArray
    counts: npt.NDArray[np.int64]
    a1: FloatArray
    a2: FloatArray
    mean_cosine: float
    mean_cosine_raw: float
    self_weight: FloatArray


def co_occurrence(labels: npt.ArrayLike, conditional: Conditional = "rhs") -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Conditional probabilities of genres, and how many tracks each has.

    Parameters
    ----------
    labels : (N, C) 0/1, the training split's label matrix Y.

    Returns
    -------
    A1 : (C, C) float64; diagonal 1; a genre without a track has 0 elsewhere in its row and column.
    counts : (C,) int64.

    Notes
    -----
    Ru et al. 2023, Eq. 2: ``A1_ij = P(L_j | L_i) = N_ij / N_j``, whose two sides disagree; ``rhs`` builds
    ``N_ij / N_j``, ``lhs`` builds ``N_ij / N_i``.
    """
    y = _label_matrix(labels)
    together = y.T @ y
    counts = np.diag(together).copy()
    divisor = np.maximum(counts, 1.0)
    a1 = together / (divisor[None, :] if conditional == "rhs" else divisor[:, None])
    np.fill_diagonal(a1, 1.0)
    return a1, counts.astype(np.int64)


def centre(embedding: npt.ArrayLike) -> FloatArray:
    """(C, D) name vectors less their mean over genres; a single genre is left as it is (its centre would be 0)."""
    f = np.asarray(embedding, dtype=np.float64)
    return f - f.mean(axis=0, keepdims=True) if len(f) > 1 else f


def cosine(vectors: npt.ArrayLike) -> FloatArray:
    """(C, C) cosines between rows; 1 on the diagonal; a zero vector is at 0 from every other.

    Notes
    -----
    Ru et al. 2023, Eq. 3.
    """
    f = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(f, axis=1, keepdims=True)
    # What centring leaves of equal vectors is rounding, and its direction means nothing.
    unit = np.divide(f, norm, out=np.zeros_like(f), where=norm > 1e-9 * max(1.0, float(np.abs(f).max(initial=0.0))))
    similarity = np.clip(unit @ unit.T, -1.0, 1.0)
    np.fill_diagonal(similarity, 1.0)
    return np.asarray(similarity, dtype=np.float64)


def normalise_adjacency(a: npt.ArrayLike, normalisation: Literal["symmetric", "row"] = "symmetric") -> FloatArray:
    """``D^-1/2 A D^-1/2`` or ``D^-1 A`` with D the row sums of A; no identity is added (the diagonal is 1 already).

    Raises
    ------
    ValueError
        A row sum is not positive: similarities are so negative that the graph has no normalisation.
    """
    a = np.asarray(a, dtype=np.float64)
    degree = a.sum(axis=1)
    if (degree <= 0).any():
        rows = np.flatnonzero(degree <= 0).tolist()
        raise ValueError(f"rows {rows} of the genre graph do not sum to a positive number; use similarity 'centred'")
    if normalisation == "row":
        return np.asarray(a / degree[:, None], dtype=np.float64)
    root = degree**-0.5
    return np.asarray(root[:, None] * a * root[None, :], dtype=np.float64)


def reweighted_adjacency(a: npt.ArrayLike, reweight: float = 0.25) -> FloatArray:
    """``(1 - p) I + p R``, where R is A without its diagonal, each row divided by its sum.

    A genre keeps 1 - p of itself however many others it meets; one that meets none keeps all. Every row sums to 1.

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
    """Return how far two applications of A_hat, as in the GCN, keep genres apart.

    Returns
    -------
    condition_number : of ``A_hat^2``, largest singular value over smallest; infinity where it is singular.
    effective_rank : its stable rank, the sum of squared singular values over the largest squared, from 1 to C: about
        how many directions of classifier space the graph lets through.

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
    """Adjacency of ML-GCN (Chen et al., CVPR 2019): binarised, re-weighted co-occurrence.

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
    embedding : (C, D) genre-name embeddings.

    Notes
    -----
    Ru et al. 2023, section 2.3: ``A = (A1 + A2) / 2``.
    """
    options = options or GraphOptions()
    a1, counts = co_occurrence(labels, options.conditional)
    raw = np.asarray(embedding, dtype=np.float64)
    if raw.ndim != 2 or len(raw) != len(a1):
        raise ValueError(f"{len(a1)} genres have labels but the name embedding has shape {raw.shape}")
    if not np.isfinite(raw).all():
        raise ValueError("the genre-name embedding holds NaN or infinity; extract the genre names again")
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
    nodes : (C, D) name vectors, centred already where they are to be; a buffer too.

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
        """W (C, out_width) float32."""
        with torch.autocast(self.nodes.device.type, enabled=False):
            hidden = nn.functional.leaky_relu(self.adjacency @ self.first(self.nodes), 0.2)
            classifiers: Tensor = self.adjacency @ self.second(hidden)
        return classifiers

    @torch.no_grad()
    def row_cosine(self) -> float:
        """Mean cosine between the rows of W; near 1 every genre has the same classifier. NaN for one genre."""
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


NAMED = 10
"""Genres that a warning names."""


def graph_summary(graph: Graph, names: Sequence[str]) -> dict[str, Any]:
    """Plain values for ``run.json`` and the log.

    Returns
    -------
    dict
        ``zero_count``: genres without a training track. ``isolated``: genres that have some, but share none with
        another. ``mean_cosine``, ``mean_cosine_raw``: off the diagonal, of the name vectors as used and as stored.
        ``self_weight``: smallest, mean and largest share of a genre's own weight in its row; ``frequent`` and ``rare``:
        its mean over the half of the genres with most training tracks, and over the others. ``condition_number``
        (None: infinite) and ``effective_rank``: see :func:`conditioning`. ``blurred``: genres that keep less than
        `LOW_SELF_WEIGHT` of themselves, the most frequent first.
    """
    together = np.where(np.eye(len(names), dtype=bool), 0.0, graph.a1)
    alone = ~(together.any(axis=0) | together.any(axis=1))
    zero = graph.counts == 0
    condition_number, effective_rank = conditioning(graph.adjacency)
    by_count = np.argsort(-graph.counts, kind="stable")
    half, own = -(-len(names) // 2), graph.self_weight
    blurred = [names[i] for i in by_count.tolist() if own[i] < LOW_SELF_WEIGHT]
    return {
        "n_genres": len(names),
        "zero_count": [names[i] for i in np.flatnonzero(zero).tolist()],
        "isolated": [names[i] for i in np.flatnonzero(alone & ~zero).tolist()],
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
    """The summary as a line for the log."""
    cosine, raw = (number(summary[key], missing="undefined") for key in ("mean_cosine", "mean_cosine_raw"))
    own = summary["self_weight"]
    return (
        f"genre graph of {summary['n_genres']} genres: {len(summary['zero_count'])} without a training track, "
        f"{len(summary['isolated'])} that share none; mean cosine of names {cosine} as used, {raw} as stored; own "
        f"weight {own['min']:.2f} to {own['max']:.2f} of a row, mean {own['mean']:.2f}; applied twice: condition "
        f"number {number(summary['condition_number'], missing='infinite')}, effective rank "
        f"{summary['effective_rank']:.1f}"
    )


def graph_warnings(summary: dict[str, Any]) -> list[str]:
    """What the user should know before the first step, a sentence each."""
    n_genres, warnings = summary["n_genres"], []
    if zero := summary["zero_count"]:
        untrained = f"{len(zero)} of {n_genres} genres have no training track and cannot be learnt"
        warnings.append(f"{untrained}: {join_names(zero, NAMED)}")
    if isolated := summary["isolated"]:
        alone = f"{len(isolated)} of {n_genres} genres share no training track with another"
        joins = "in the genre graph nothing but their names joins them to others"
        warnings.append(f"{alone}; {joins}: {join_names(isolated, NAMED)}")
    if blurred := summary["blurred"]:
        kept = (
            f"{len(blurred)} of {n_genres} genres keep less than {LOW_SELF_WEIGHT:.0%} of their own weight in the graph"
        )
        advice = "their classifiers are nearly alike; graph_normalisation=reweighted keeps them apart"
        warnings.append(f"{kept}; {advice}: {join_names(blurred, NAMED)}")
    return warnings


def graph_document(
    graph: Graph, summary: dict[str, Any], names: Sequence[str], options: GraphOptions
) -> dict[str, Any]:
    """``graph.json``: the summary, and every matrix with 6 decimals; the model's own adjacency is in its weights.

    ``adjacency[i][j]`` is the weight with which genre i draws on genre j (A_hat); `a1` and `a2` are Eq. 2 and Eq. 3.
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
