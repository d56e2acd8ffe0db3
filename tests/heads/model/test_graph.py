from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mgc.cache.errors import ConfigError
from mgc.heads.model.graph import (
    GenreGraph,
    GraphOptions,
    build_adjacency,
    centre,
    co_occurrence,
    conditioning,
    cosine,
    graph_summary,
    graph_warnings,
    ml_gcn_adjacency,
    normalise_adjacency,
    reweighted_adjacency,
)

Y = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0]])
A2 = np.array([[1, 0.8, 0.6], [0.8, 1, 0.4], [0.6, 0.4, 1]])
A_HAT = np.array([[0.408163, 0.312430, 0.395897], [0.272375, 0.566038, 0.116554], [0.230940, 0.116554, 0.6]])


def test_co_occurrence_equals_a_hand_calculation():
    rhs, counts = co_occurrence(Y, "rhs")
    lhs, _ = co_occurrence(Y, "lhs")
    assert counts.tolist() == [3, 2, 1]
    np.testing.assert_allclose(rhs, [[1, 0.5, 1], [1 / 3, 1, 0], [1 / 3, 0, 1]])
    np.testing.assert_array_equal(lhs, rhs.T)


def test_normalisation_equals_a_hand_calculation():
    a = (co_occurrence(Y)[0] + A2) / 2
    np.testing.assert_allclose(a, [[1, 0.65, 0.8], [0.566667, 1, 0.2], [0.466667, 0.2, 1]], atol=1e-6)
    np.testing.assert_allclose(a.sum(axis=1), [2.45, 1.766667, 1.666667], atol=1e-6)
    np.testing.assert_allclose(normalise_adjacency(a), A_HAT, atol=1e-6)
    np.testing.assert_allclose(normalise_adjacency(a, "row").sum(axis=1), 1.0)


def test_graph_convolution_equals_a_hand_calculation():
    nodes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    gcn = GenreGraph(torch.from_numpy(A_HAT), nodes, hidden=2, out_width=1)
    with torch.no_grad():
        gcn.first.weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 1.0]]).T)
        gcn.second.weight.fill_(1.0)
        hidden = gcn.adjacency @ gcn.first(gcn.nodes)
        before = gcn.second(torch.nn.functional.leaky_relu(hidden, 0.2))
    expected = [[-0.154668, -0.095733], [1.054788, 0.293663], [-1.335951, -0.114386]]
    np.testing.assert_allclose(hidden, expected, atol=1e-5)
    np.testing.assert_allclose(before[:, 0], [-0.050080, 1.348452, -0.290068], atol=1e-5)
    np.testing.assert_allclose(gcn().detach()[:, 0], [0.286019, 0.715826, -0.028439], atol=1e-5)


def test_ml_gcn_adjacency_equals_a_hand_calculation():
    expected = [[1, 0.117851, 0.117851], [0, 0.888889, 0], [0, 0, 0.888889]]
    np.testing.assert_allclose(ml_gcn_adjacency(Y), expected, atol=1e-6)
    built = build_adjacency(Y, np.eye(3), GraphOptions(normalisation="ml-gcn"))
    np.testing.assert_allclose(built.adjacency, expected, atol=1e-6)


def test_reweighted_adjacency_equals_a_hand_calculation():
    """1 - p on the diagonal, p times the shares of the other genres elsewhere."""
    a = (co_occurrence(Y)[0] + A2) / 2
    shares = [[0, 0.65 / 1.45, 0.8 / 1.45], [0.566667 / 0.766667, 0, 0.2 / 0.766667], [0.466667 / 0.666667, 0.3, 0]]
    np.testing.assert_allclose(reweighted_adjacency(a, 0.4), 0.6 * np.eye(3) + 0.4 * np.array(shares), atol=1e-6)
    np.testing.assert_array_equal(reweighted_adjacency(a, 0.0), np.eye(3))
    np.testing.assert_array_equal(
        reweighted_adjacency(np.eye(3), 0.4), np.eye(3)
    )  # a genre without neighbours keeps its own weight


def test_conditioning_equals_that_of_the_squared_adjacency():
    assert conditioning(np.eye(4)) == (1.0, 4.0)
    assert conditioning(np.ones((3, 3))) == (np.inf, pytest.approx(1.0))
    twice = np.diag([4.0, 2.0, 1.0])
    condition_number, effective_rank = conditioning(np.diag([2.0, 2**0.5, 1.0]))
    assert condition_number == pytest.approx(np.linalg.cond(twice))
    assert effective_rank == pytest.approx(np.linalg.norm(twice) ** 2 / np.linalg.norm(twice, 2) ** 2)


def test_low_own_weight_in_the_graph_gives_a_warning():
    """With 20 genres that all co-occur, the own weight is 1/20, with ``reweighted`` 3/4."""
    labels, names = np.ones((5, 20), int), [f"g{i}" for i in range(20)]
    embedding = np.random.default_rng(0).normal(size=(20, 8))
    blurred = graph_summary(build_adjacency(labels, embedding), names)
    (warning,) = graph_warnings(blurred)
    assert "20 of 20 genres have a self-weight below 20%" in warning
    options = GraphOptions(normalisation="reweighted")
    reweighted = graph_summary(build_adjacency(labels, embedding, options), names)
    assert graph_warnings(reweighted) == []
    assert reweighted["self_weight"]["min"] == pytest.approx(0.75)
    assert reweighted["effective_rank"] > 4 * blurred["effective_rank"]


def test_frequent_genres_have_lower_own_weight_than_rare_genres():
    """With the rhs form of Eq. 2, since frequent genres co-occur with many others."""
    labels = np.zeros((40, 8), int)
    labels[np.arange(40), np.arange(40) % 8] = 1
    labels[:, :2] = 1
    summary = graph_summary(build_adjacency(labels, np.eye(8)), list("abcdefgh"))
    assert summary["self_weight"]["frequent"] < summary["self_weight"]["rare"]


def test_number_of_parameters_of_the_default_size():
    gcn = GenreGraph(torch.eye(4), torch.zeros(4, 768))
    assert sum(p.numel() for p in gcn.parameters()) == 1_310_720
    assert gcn().shape == (4, 512)


@pytest.mark.parametrize("normalisation", ["symmetric", "row", "ml-gcn", "reweighted"])
@pytest.mark.parametrize("conditional", ["rhs", "lhs"])
def test_genre_without_a_track_has_finite_weights_and_a_warning(normalisation, conditional):
    labels = np.column_stack([Y, np.zeros(4, dtype=int)])
    options = GraphOptions(normalisation=normalisation, conditional=conditional)
    graph = build_adjacency(labels, np.random.default_rng(0).normal(size=(4, 6)), options)
    assert np.isfinite(graph.adjacency).all()
    np.testing.assert_array_equal(np.diag(graph.a1), 1.0)
    assert graph.a1[3, :3].tolist() == graph.a1[:3, 3].tolist() == [0, 0, 0]
    assert graph.counts.tolist() == [3, 2, 1, 0]
    (warning,) = graph_warnings(graph_summary(graph, ["blues", "folk", "jazz", "polka"]))
    assert "1 of 4 genres have no training track and cannot be learned: polka" in warning


def test_centring_separates_similar_names():
    rng = np.random.default_rng(0)
    names = 5 + rng.normal(size=(20, 32))
    graph = build_adjacency(np.eye(20), names)
    assert graph.mean_cosine_raw > 0.9
    assert abs(graph.mean_cosine) < 0.1
    assert graph.a2.min() >= 0
    raw = build_adjacency(np.eye(20), names, GraphOptions(similarity="raw"))
    assert raw.mean_cosine == raw.mean_cosine_raw > 0.9
    np.testing.assert_allclose(graph.self_weight, np.diag(graph.adjacency) / graph.adjacency.sum(axis=1))
    assert (graph.self_weight > raw.self_weight).all()


def test_similar_name_vectors_start_with_equal_classifiers():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    names = 5 + rng.normal(size=(20, 32))
    labels = rng.random((200, 20)) < 0.2
    adjacency = torch.from_numpy(build_adjacency(labels, names, GraphOptions(similarity="raw")).adjacency)
    assert GenreGraph(adjacency, torch.from_numpy(names)).row_cosine() > 0.99
    adjacency = torch.from_numpy(build_adjacency(labels, names).adjacency)
    assert GenreGraph(adjacency, torch.from_numpy(centre(names))).row_cosine() < 0.9


def test_graph_is_defined_for_equal_names_and_for_a_single_genre():
    equal = np.full((3, 4), 0.1)
    graph = build_adjacency(Y, equal)
    np.testing.assert_array_equal(graph.a2, np.eye(3))
    single = build_adjacency(Y[:, :1], equal[:1])
    np.testing.assert_allclose(single.adjacency, [[1.0]])
    assert np.isnan(single.mean_cosine)
    np.testing.assert_array_equal(centre(equal[:1]), equal[:1])


def test_weights_stay_float32_under_autocast():
    torch.manual_seed(0)
    gcn = GenreGraph(torch.from_numpy(A_HAT), torch.randn(3, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gcn(), GenreGraph.forward(gcn))
        assert gcn().dtype == torch.float32


@given(arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 6))), st.randoms(use_true_random=False))
def test_permuting_genres_permutes_the_graph(labels, random):
    """The test also counts A1 pair by pair."""
    n_genres = labels.shape[1]
    order = random.sample(range(n_genres), n_genres)
    names = np.random.default_rng(1).normal(size=(n_genres, 5))
    graph = build_adjacency(labels, names)
    permuted = build_adjacency(labels[:, order], names[order])
    np.testing.assert_allclose(permuted.adjacency, graph.adjacency[np.ix_(order, order)], atol=1e-12)
    for i in range(n_genres):
        for j in range(n_genres):
            both, of_j = (labels[:, i] & labels[:, j]).sum(), labels[:, j].sum()
            expected = 1.0 if i == j else both / of_j if of_j else 0.0
            assert graph.a1[i, j] == pytest.approx(expected)


def test_cosine_equals_that_of_scikit_learn():
    from sklearn.metrics.pairwise import cosine_similarity

    vectors = np.random.default_rng(0).normal(size=(7, 5))
    np.testing.assert_allclose(cosine(vectors), cosine_similarity(vectors), atol=1e-12)


def test_reweight_above_1_is_refused():
    with pytest.raises(ConfigError, match="graph_reweight=1.5"):
        GraphOptions(reweight=1.5)


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match="0 or 1"):
        build_adjacency(Y * 2, np.eye(3))
    with pytest.raises(ValueError, match="at least one genre"):
        co_occurrence(np.zeros((3, 0)))
    with pytest.raises(ValueError, match="does not fit 3 genres"):
        build_adjacency(Y, np.eye(4))
    with pytest.raises(ValueError, match="NaN"):
        build_adjacency(Y, np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="sums are not positive"):
        normalise_adjacency(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    with pytest.raises(ConfigError, match="graph_similarity='cosine': unknown"):
        GraphOptions(similarity="cosine")
