"""Compute the losses: audio-lyrics contrastive loss, binary cross-entropy or asymmetric loss, and their sum.

Shapes: B batch, C genres, P projection width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from ...cache.errors import ConfigError
from .batch import Batch, Outputs
from .config import Loss
from .contrastive import contrastive_loss
from .fusion import at_least_float32


@dataclass(kw_only=True)
class Losses:
    """Scalars () float32: the total loss and its two terms. `contrastive` is 0 for a model without projections."""

    total: Tensor
    contrastive: Tensor
    classification: Tensor


def asymmetric_loss(
    logits: Tensor, labels: Tensor, *, gamma_positive: float = 1.0, gamma_negative: float = 4.0, clip: float = 0.05
) -> Tensor:
    """Return the asymmetric loss, () float32, mean over tracks and genres.

    With gammas and clip 0 it equals the binary cross-entropy.

    Notes
    -----
    Ridnik et al., ICCV 2021: ``-(1 - p)^g+ log p`` for a positive, ``-p_m^g- log(1 - p_m)`` for a negative, with the
    shifted probability ``p_m = max(p - clip, 0)``.
    """
    x = at_least_float32(logits)
    y = labels.to(x.dtype)
    p = torch.sigmoid(x)
    positive = (1.0 - p) ** gamma_positive * softplus(-x)
    shifted = (p - clip).clamp(min=0.0)
    # log(1 - p) = -softplus(x) is exact near p = 1, but valid only without a shift.
    log_miss = softplus(x) if clip == 0 else -torch.log1p(-shifted)
    negative = shifted**gamma_negative * log_miss
    return (y * positive + (1.0 - y) * negative).mean()


def classification_loss(logits: Tensor, labels: Tensor, *, loss: Loss = "bce", sum_over_genres: bool = False) -> Tensor:
    """Return the binary cross-entropy or asymmetric loss, () float32: mean over tracks, mean or sum over genres.

    Notes
    -----
    Ru et al. 2023, section 2.5, do not specify the reduction over genres. With the sum, lambda has C times less weight.
    """
    if loss == "asymmetric":
        mean = asymmetric_loss(logits, labels)
    else:
        x = at_least_float32(logits)
        mean = binary_cross_entropy_with_logits(x, labels.to(x.dtype))
    return mean * logits.shape[1] if sum_over_genres else mean


def total_loss(
    outputs: Outputs, batch: Batch, lambda_: float = 0.3, *, loss: Loss = "bce", sum_over_genres: bool = False
) -> Losses:
    """Return ``lambda L_AL + (1 - lambda) L_BCE`` with its terms; ``loss="asymmetric"`` replaces L_BCE.

    Without projections, lambda has no effect and the total is the classification loss.

    Raises
    ------
    ConfigError
        If `lambda_` is outside [0, 1].

    Notes
    -----
    Ru et al. 2023, Eq. 7, lambda = 0.3. At lambda = 1, fusion, graph and classifier have no gradient.
    """
    if not 0.0 <= lambda_ <= 1.0:
        raise ConfigError(f"lambda={lambda_}: out of range. Use a number from 0 to 1.")
    labelled = classification_loss(outputs.logits, batch.labels, loss=loss, sum_over_genres=sum_over_genres)
    if outputs.audio_embedding is None or outputs.lyrics_embedding is None or outputs.tau is None:
        return Losses(total=labelled, contrastive=torch.zeros_like(labelled), classification=labelled)
    contrastive = contrastive_loss(
        outputs.audio_embedding, outputs.lyrics_embedding, outputs.tau, batch.track_key, batch.lyrics_key
    )
    total = torch.lerp(labelled, contrastive, lambda_)
    return Losses(total=total, contrastive=contrastive, classification=labelled)


def gradient_norms(outputs: Outputs, losses: Losses, lambda_: float) -> Tensor | None:
    """Return the gradient norms of both losses, weighted as in Eq. 7, at the output frames of the audio encoder.

    Returns
    -------
    Tensor or None
        (2,) float32, for ``lambda L_AL`` and ``(1 - lambda) L_BCE``. None without a contrastive loss, or if a compiled
        model does not expose its frames. The graph of the losses is retained.
    """
    if outputs.frames is None:
        return None
    weighted = (lambda_ * losses.contrastive, (1.0 - lambda_) * losses.classification)
    gradients = [
        torch.autograd.grad(loss, outputs.frames, retain_graph=True, allow_unused=True)[0] for loss in weighted
    ]
    if any(gradient is None for gradient in gradients):
        return None
    return torch.stack([at_least_float32(gradient).norm() for gradient in gradients])
