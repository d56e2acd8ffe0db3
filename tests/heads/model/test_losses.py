from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mgc.cache.errors import ConfigError
from mgc.heads.model.batch import Batch, Outputs
from mgc.heads.model.contrastive import contrastive_loss, symmetric_cross_entropy
from mgc.heads.model.losses import asymmetric_loss, classification_loss, total_loss

SCORES = torch.tensor([[2.0, 0.0], [1.0, 3.0]], dtype=torch.float64)


def batch(n_rows: int, n_genres: int, labels: torch.Tensor | None = None) -> Batch:
    keys = torch.arange(n_rows)
    return Batch(
        mel=torch.zeros(n_rows, 128, 32),
        mel_frames=torch.full((n_rows,), 32),
        lyrics=torch.zeros(n_rows, 1, 4),
        lyrics_tokens=torch.ones(n_rows, dtype=torch.int64),
        lyrics_pooled=torch.zeros(n_rows, 4),
        labels=torch.zeros(n_rows, n_genres) if labels is None else labels,
        track_key=keys,
        lyrics_key=keys,
        rows=keys,
    )


def test_contrastive_loss_has_the_values_computed_by_hand():
    targets = torch.arange(2)
    assert cross_entropy(SCORES, targets).item() == pytest.approx(0.126928, abs=1e-6)
    assert cross_entropy(SCORES.T, targets).item() == pytest.approx(0.180925, abs=1e-6)
    assert symmetric_cross_entropy(SCORES).item() == pytest.approx(0.153926, abs=1e-6)
    assert symmetric_cross_entropy(SCORES.T).item() == pytest.approx(0.153926, abs=1e-6)
    eye = torch.eye(2, dtype=torch.float64)
    assert symmetric_cross_entropy(eye).item() == pytest.approx(0.313262, abs=1e-6)
    assert symmetric_cross_entropy(eye / 0.07).item() == pytest.approx(6.25e-7, rel=1e-2)
    assert symmetric_cross_entropy(torch.full((16, 16), 3.0)).item() == pytest.approx(2.772589, abs=1e-5)


def test_temperature_divides_the_products():
    audio, lyrics = torch.tensor([[2.0, 0.0], [1.0, 3.0]]), torch.eye(2)
    keys = torch.arange(2)
    for tau in (1.0, 0.25):
        expected = symmetric_cross_entropy(SCORES / tau).item()
        loss = contrastive_loss(audio, lyrics, torch.tensor(tau), keys, keys)
        assert loss.item() == pytest.approx(expected, abs=1e-6)


@given(st.integers(2, 8), st.integers(0, 1000))
def test_contrastive_loss_without_masks_is_the_mean_of_two_cross_entropies(n_rows, seed):
    torch.manual_seed(seed)
    scores = 3 * torch.randn(n_rows, n_rows, dtype=torch.float64)
    targets = torch.arange(n_rows)
    expected = (cross_entropy(scores, targets) + cross_entropy(scores.T, targets)) / 2
    torch.testing.assert_close(symmetric_cross_entropy(scores), expected)
    torch.testing.assert_close(symmetric_cross_entropy(scores.T), expected)


def test_pairs_of_one_track_or_equal_lyrics_are_not_negatives():
    torch.manual_seed(0)
    audio, lyrics, tau = torch.randn(4, 3), torch.randn(4, 3), torch.tensor(0.5)
    track_key, lyrics_key = torch.tensor([0, 1, 2, 0]), torch.tensor([7, 8, 8, 9])
    scores = audio @ lyrics.T / tau
    # Pairs (0, 3) share the track, (1, 2) the lyrics; these are the remaining entries of each row and column.
    kept = {0: [0, 1, 2], 1: [0, 1, 3], 2: [0, 2, 3], 3: [1, 2, 3]}
    rows = [scores[i, kept[i]].logsumexp(0) - scores[i, i] for i in range(4)]
    columns = [scores[kept[i], i].logsumexp(0) - scores[i, i] for i in range(4)]
    expected = (sum(rows) + sum(columns)) / 8
    torch.testing.assert_close(contrastive_loss(audio, lyrics, tau, track_key, lyrics_key), expected)


def test_tracks_without_lyrics_are_left_out_of_the_contrastive_loss():
    torch.manual_seed(0)
    audio, lyrics, tau = torch.randn(5, 3), torch.randn(5, 3), torch.tensor(0.5)
    with_lyrics = torch.tensor([0, 2, 4])
    lyrics_key = torch.tensor([0, -1, 2, -1, 4])
    loss = contrastive_loss(audio, lyrics, tau, torch.arange(5), lyrics_key)
    expected = symmetric_cross_entropy(audio[with_lyrics] @ lyrics[with_lyrics].T / tau)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("lyrics_key", [[-1, -1, -1], [-1, 5, -1]])
def test_contrastive_loss_and_gradient_are_zero_with_fewer_than_two_lyrics(lyrics_key):
    audio = torch.randn(3, 4, requires_grad=True)
    tau = torch.tensor(0.07, requires_grad=True)
    loss = contrastive_loss(audio, torch.randn(3, 4), tau, torch.arange(3), torch.tensor(lyrics_key))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(audio.grad, torch.zeros(3, 4))
    assert tau.grad.item() == 0.0


def test_total_loss_has_the_values_computed_by_hand():
    """The contrastive loss is 0.153926, the cross-entropy log 2 at zero logits; lambda is 0.3."""
    outputs = Outputs(
        logits=torch.zeros(2, 5),
        audio_embedding=SCORES.float(),
        lyrics_embedding=torch.eye(2),
        tau=torch.tensor(1.0),
    )
    losses = total_loss(outputs, batch(2, 5), 0.3)
    assert losses.contrastive.item() == pytest.approx(0.153926, abs=1e-6)
    assert losses.total.item() == pytest.approx(0.531381, abs=1e-6)
    assert total_loss(outputs, batch(2, 5), 0.0).total.item() == losses.classification.item()
    assert total_loss(outputs, batch(2, 5), 1.0).total.item() == losses.contrastive.item()
    assert total_loss(outputs, batch(2, 5), 0.0, sum_over_genres=True).total.item() == pytest.approx(5 * 0.693147)


def test_total_loss_without_contrastive_loss_is_the_cross_entropy():
    losses = total_loss(Outputs(logits=torch.zeros(2, 5)), batch(2, 5), 0.3)
    assert losses.total.item() == losses.classification.item() == pytest.approx(0.693147, abs=1e-6)
    assert losses.contrastive.item() == 0.0


@pytest.mark.parametrize("lambda_", [-0.1, 1.1, float("nan")])
def test_lambda_out_of_range_is_refused(lambda_):
    with pytest.raises(ConfigError, match="lambda"):
        total_loss(Outputs(logits=torch.zeros(2, 5)), batch(2, 5), lambda_)


def test_asymmetric_loss_has_the_values_computed_by_hand():
    zero = torch.zeros(1, 1)
    assert asymmetric_loss(zero, torch.ones(1, 1)).item() == pytest.approx(0.346574, abs=1e-6)
    assert asymmetric_loss(zero, zero).item() == pytest.approx(0.024515, abs=1e-6)


@given(st.integers(0, 1000))
def test_asymmetric_loss_without_focusing_and_clipping_is_cross_entropy(seed):
    torch.manual_seed(seed)
    logits, labels = 5 * torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float()
    plain = asymmetric_loss(logits, labels, gamma_positive=0, gamma_negative=0, clip=0)
    torch.testing.assert_close(plain, binary_cross_entropy_with_logits(logits, labels))
    torch.testing.assert_close(plain, classification_loss(logits, labels))


def test_asymmetric_loss_is_finite_at_extreme_logits():
    logits = torch.tensor([[200.0, -200.0, 200.0, -200.0]], requires_grad=True)
    loss = asymmetric_loss(logits, torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
