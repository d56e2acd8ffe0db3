from __future__ import annotations

import pytest
import torch

from mgc.heads.model.config import TAU_MAX, TAU_MIN
from mgc.heads.model.contrastive import LOG_TAU_MIN, ContrastiveProjection, contrastive_loss


def test_default_projection_has_the_documented_number_of_parameters():
    assert sum(p.numel() for p in ContrastiveProjection(512, 768).parameters()) == 328_193


def test_projections_have_unit_length_unless_normalisation_is_off():
    torch.manual_seed(0)
    a, t = torch.randn(4, 6), torch.randn(4, 5)
    torch.manual_seed(1)
    unit = ContrastiveProjection(6, 5, 3)
    torch.manual_seed(1)
    raw = ContrastiveProjection(6, 5, 3, normalise=False)
    audio, lyrics = unit(a, t)
    torch.testing.assert_close(audio.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(lyrics.norm(dim=1), torch.ones(4))
    raw_audio, _ = raw(a, t)
    torch.testing.assert_close(raw_audio, a @ raw.audio.weight.T + raw.audio.bias)
    torch.testing.assert_close(audio, raw_audio / raw_audio.norm(dim=1, keepdim=True))


def test_projections_are_float32_under_autocast():
    module = ContrastiveProjection(6, 5, 3)
    a, t = torch.randn(4, 6), torch.randn(4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        audio, lyrics = module(a.bfloat16(), t)
    assert audio.dtype == lyrics.dtype == torch.float32
    torch.testing.assert_close(lyrics, module(a, t)[1])


@pytest.mark.parametrize(("scale", "lowest"), [("linear", TAU_MIN), ("log", LOG_TAU_MIN)])
@pytest.mark.parametrize("direction", [1e6, -1e6])
def test_tau_stays_clamped_under_extreme_steps_and_receives_gradient(direction, scale, lowest):
    """The gradient is not 0 at the bound either, where a clamp in the forward pass would have none."""
    torch.manual_seed(0)
    module = ContrastiveProjection(6, 5, 3, tau_scale=scale)
    assert module.temperature.item() == pytest.approx(0.07)
    learnt = module.tau if scale == "linear" else module.log_tau
    assert isinstance(learnt, torch.nn.Parameter)
    keys = torch.arange(4)
    optimizer = torch.optim.SGD([learnt], lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        audio, lyrics = module(torch.randn(4, 6), torch.randn(4, 5))
        contrastive_loss(audio, lyrics, module.temperature, keys, keys).backward()
        assert learnt.grad is not None
        assert learnt.grad.item() != 0.0
        learnt.grad.fill_(direction)
        optimizer.step()
        module.clamp_temperature()
        assert module.temperature.item() == pytest.approx(lowest if direction > 0 else TAU_MAX)
