"""The search equals brute force in float64, with ties, constants and vectors of zeros."""

from __future__ import annotations

import numpy as np
import pytest

from mgc.heads.metrics.nearest import Cosine


def brute_force(vectors: np.ndarray, query: np.ndarray, *, standardise: bool) -> np.ndarray:
    values, wanted = vectors.astype(np.float64), query.astype(np.float64)
    if standardise:
        std = values.std(axis=0)
        used = std > 1e-6 * std.max()
        values, wanted = (
            ((array - vectors.mean(axis=0, dtype=np.float64)) / np.where(used, std, np.inf))
            for array in (values, wanted)
        )
    norms = np.linalg.norm(values, axis=1) * np.linalg.norm(wanted)
    return np.divide(values @ wanted, norms, out=np.zeros(len(values)), where=norms > 0)


@pytest.mark.parametrize("standardise", [False, True])
def test_nearest_equals_brute_force(standardise: bool) -> None:
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(20_000, 48)) * random.uniform(0.1, 30, 48) - 40).astype(np.float32)
    vectors[:, 5] = 3.0
    for query in (vectors[7], random.normal(size=48).astype(np.float32) - 40):
        expected = brute_force(vectors, query, standardise=standardise)
        index, similarity = Cosine(vectors.copy(), standardise=standardise).nearest(query, 50)
        best = np.argsort(-expected, kind="stable")[:50]
        np.testing.assert_array_equal(index, best)
        np.testing.assert_allclose(similarity, expected[best], atol=1e-6)


def test_ties_keep_the_order_of_tracks_and_zeros_have_similarity_zero() -> None:
    vectors = np.ones((30_000, 4), dtype=np.float32)
    vectors[100:200] = 0
    index, similarity = Cosine(vectors, standardise=False).nearest(np.ones(4, dtype=np.float32), 5)
    assert (index.tolist(), similarity.round(6).tolist()) == ([0, 1, 2, 3, 4], [1.0] * 5)
    index, similarity = Cosine(vectors, standardise=False).nearest(np.zeros(4, dtype=np.float32), 40_000)
    assert len(index) == 30_000
    assert not similarity.any()


def test_pairs_equal_those_of_the_full_matrix() -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(5_000, 16)).astype(np.float32)
    vectors[4_321] = 2 * vectors[17]
    vectors[[3_000, 3_001]] = vectors[2_999]
    unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    expected = np.argwhere(np.triu(unit @ unit.T >= 0.95, 1)).tolist()
    pairs = list(Cosine(vectors, standardise=False).pairs(0.95))
    assert sorted([i, j] for i, j, _ in pairs) == expected
    assert [17, 4_321] in expected
    assert all(value == pytest.approx(unit[i] @ unit[j], abs=1e-6) for i, j, value in pairs)
