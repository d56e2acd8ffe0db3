"""Genre graph sections: isolated and absent genres, nearest genres, order with related genres together."""

from __future__ import annotations

import numpy as np
import pytest

from mgc.heads.model.graph import (
    GraphOptions,
    build_adjacency,
    graph_document,
    graph_sentence,
    graph_summary,
    graph_warnings,
)
from mgc.reports.run_sections import clustered_order, genre_graph, neighbours

NAMES = ["blues", "folk", "jazz", "metal", "polka"]
# blues with folk on two tracks of three; jazz with blues once; metal always alone; polka never.
Y = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 0]])


def test_summary_lists_isolated_and_absent_genres():
    graph = build_adjacency(Y, np.eye(5), GraphOptions(similarity="raw"))
    summary = graph_summary(graph, NAMES)
    assert (summary["zero_count"], summary["isolated"]) == (["polka"], ["metal"])
    assert summary["mean_cosine"] == summary["mean_cosine_raw"] == 0
    share = np.diag(graph.adjacency) / graph.adjacency.sum(axis=1)
    assert summary["self_weight"].items() >= {"min": share.min(), "mean": share.mean(), "max": 1.0}.items()
    absent, alone = graph_warnings(summary)
    assert absent == "1 of 5 genres have no training track and cannot be learned: polka"
    alone_start = "1 of 5 genres never co-occur with another genre in the training tracks; the genre graph "
    assert alone == f"{alone_start}can link them only by name similarity: metal"
    assert graph_warnings(summary, GraphOptions(normalisation="ml-gcn"))[1] == f"{alone_start}does not link them: metal"
    assert "1 without a training track, 1 isolated; mean cosine of names 0.000" in graph_sentence(summary)
    assert graph_warnings(graph_summary(build_adjacency(Y[:3, :3], np.eye(3)), NAMES[:3])) == []


def test_graph_document_reproduces_the_adjacency():
    graph = build_adjacency(Y, np.eye(5), GraphOptions(similarity="raw"))
    document = graph_document(graph, graph_summary(graph, NAMES), NAMES, GraphOptions(similarity="raw"))
    assert document["counts"] == [3, 2, 1, 1, 0]
    a = (np.array(document["a1"]) + np.array(document["a2"])) / 2
    root = a.sum(axis=1) ** -0.5
    np.testing.assert_allclose(root[:, None] * a * root, document["adjacency"], atol=2e-6)


@pytest.mark.parametrize(
    ("normalisation", "uses_names"), [("symmetric", True), ("reweighted", True), ("ml-gcn", False)]
)
def test_section_states_whether_the_adjacency_uses_genre_names(normalisation, uses_names):
    options = GraphOptions(normalisation=normalisation)
    rng = np.random.default_rng(0)
    graphs = [build_adjacency(Y, rng.normal(size=(5, 8)), options) for _ in range(2)]
    assert np.array_equal(graphs[0].adjacency, graphs[1].adjacency) != uses_names
    section = genre_graph(graph_document(graphs[0], graph_summary(graphs[0], NAMES), NAMES, options))
    assert section is not None
    assert section["uses_names"] == uses_names


def test_neighbours_are_the_genres_of_largest_weight():
    weights = np.array([[9, 1, 3], [0, 9, 0], [2, 4, 9.0]])
    assert neighbours(weights, 1) == [[(2, 3.0)], [], [(1, 4.0)]]
    assert neighbours(weights, 5) == [[(2, 3.0), (1, 1.0)], [], [(1, 4.0), (0, 2.0)]]


def test_clustered_order_keeps_families_together():
    """87 genres of 11 families, as in the paper's number of genres."""
    rng = np.random.default_rng(0)
    family = rng.permutation(np.arange(87) % 11)
    weights = 0.02 * rng.random((87, 87)) + 0.5 * (family[:, None] == family)
    ordered = family[clustered_order(weights)]
    assert sorted(clustered_order(weights).tolist()) == list(range(87))
    assert np.count_nonzero(np.diff(ordered)) == 10
    for few in (np.zeros((0, 0)), np.eye(1), np.eye(2), np.eye(4)):
        assert sorted(clustered_order(few).tolist()) == list(range(len(few)))
