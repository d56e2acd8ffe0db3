from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from mgc.cache.errors import ConfigError
from mgc.heads.model import audio_cnn
from mgc.heads.model.audio_cnn import AudioEncoder, ConvBlock, normalise_valid, valid_mask


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def encoder(name: str = "tiny", seed: int = 0) -> AudioEncoder:
    """Return an encoder with random statistics and scales in batch normalisation, some of them negative."""
    torch.manual_seed(seed)
    model = AudioEncoder(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model


@pytest.mark.parametrize(("name", "channels", "parameters"), [("base", 512, 1_568_992), ("lite", 256, 392_816)])
def test_encoder_has_the_documented_shapes_and_number_of_parameters(name, channels, parameters):
    model = AudioEncoder(name).eval()
    assert count(model) == parameters
    with torch.no_grad():
        assert model(torch.zeros(1, 128, 1292)).shape == (1, 40, channels)


def test_order_of_pooling_and_relu_does_not_matter():
    torch.manual_seed(0)
    block = ConvBlock(3, 8, (2, 2)).train()
    nn.init.normal_(block.norm.weight)
    x = torch.randn(2, 3, 16, 21)
    assert torch.equal(block(x, block.norm), block.pool(torch.relu(block.norm(block.conv(x)))))


def test_tracks_slightly_shorter_than_the_longest_have_finite_gradients():
    model = encoder().train()
    out = model(torch.randn(3, 128, 160), valid_mask(torch.tensor([160, 159, 131]), 160))
    out.square().sum().backward()
    assert (out.abs().sum(dim=2) > 0).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_output_of_padding_frames_is_zero(training):
    model = encoder().train(training)
    frames = torch.tensor([320, 150, 1])
    mel = torch.randn(3, 128, 320)
    mel[1, :, 150:], mel[2, :, 1:] = 0.0, 0.0
    out, valid = model.encode(mel, valid_mask(frames, 320), padded=True)
    assert valid.sum(dim=1).tolist() == [10, 5, 1]
    for i, n in enumerate(valid.sum(dim=1).tolist()):
        assert torch.equal(out[i, n:], torch.zeros(10 - n, 128))
        assert (out[i, :n].abs().sum(dim=1) > 0).all()


def test_frames_of_a_clip_do_not_depend_on_the_amount_of_padding():
    model = encoder().eval()
    mel = torch.randn(1, 128, 150)
    outputs = []
    # The second track sets the length of the batch.
    for n_frames in (160, 320, 1292):
        padded = torch.randn(2, 128, n_frames)
        padded[0, :, :150], padded[0, :, 150:] = mel, 0.0
        outputs.append(model(padded, valid_mask(torch.tensor([150, n_frames]), n_frames))[:1, :5])
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], atol=1e-5, rtol=1e-5)


def test_training_statistics_ignore_padding():
    """Two clips of 160 frames train alike as they are, and block by block with as much padding again.

    Without the epsilon, which counts twice there; the running variance's n - 1 is of all frames.
    """
    short, long = encoder().train(), encoder().train()
    for block in (*short.blocks, *long.blocks):
        block.norm.eps = 1e-12
    mel = torch.randn(2, 128, 160)
    padded = torch.zeros(2, 1, 128, 320)
    padded[:, 0, :, :160] = mel
    out_short = short(mel)
    for k, block in enumerate(long.blocks):
        valid = valid_mask(torch.tensor([160 >> k] * 2), 320 >> k)
        padded = block(padded, functools.partial(normalise_valid, block.norm, valid_BT=valid))
    out_long = padded.mean(dim=2).transpose(1, 2)
    torch.testing.assert_close(out_long[:, :5], out_short, atol=1e-4, rtol=1e-4)
    for a, b in zip(short.blocks, long.blocks, strict=True):
        torch.testing.assert_close(a.norm.running_mean, b.norm.running_mean, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.norm.running_var, b.norm.running_var, atol=0, rtol=1e-3)
    out_short.square().sum().backward()
    out_long.square().sum().backward()
    for a, b in zip(short.parameters(), long.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-2, rtol=1e-3)


def test_valid_statistics_equal_masked_sums():
    torch.manual_seed(1)
    x = torch.randn(3, 2, 4, 7, dtype=torch.float64) * 3 + 1
    norm = nn.BatchNorm2d(2, dtype=torch.float64).train()
    valid = valid_mask(torch.tensor([7, 2, 5]), 7)
    out = normalise_valid(norm, x.clone(), valid)
    mask = valid[:, None, None, :].expand_as(x)
    n = mask[:, 0].sum()
    mean = (x * mask).sum((0, 2, 3)) / n
    var = (((x - mean[:, None, None]) ** 2) * mask).sum((0, 2, 3)) / n
    expected = (x - mean[:, None, None]) / (var[:, None, None] + norm.eps).sqrt()
    torch.testing.assert_close(out, expected.masked_fill(~mask, 0.0), rtol=1e-6, atol=0)
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    n_all = mask[:, 0].numel()
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * var * n_all / (n_all - 1))


def test_valid_statistics_without_padding_equal_batch_normalisation():
    """A batch whose clips have one length, of which one is masked all the same."""
    x = torch.randn(3, 2, 4, 5)
    plain, masked = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    every = torch.ones(3, 5, dtype=torch.bool)
    torch.testing.assert_close(normalise_valid(masked, x.clone(), every), plain(x))
    torch.testing.assert_close(masked.running_var, plain.running_var)


@pytest.mark.parametrize("in_place", [True, False])
def test_gradients_of_valid_statistics_equal_finite_differences(in_place, monkeypatch):
    """Of input, weight and bias, with padding overwritten in place and by a mask."""
    monkeypatch.setattr(audio_cnn, "_IN_PLACE", in_place)
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(2, dtype=torch.float64).train()
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    valid = valid_mask(torch.tensor([4, 1]), 4)

    def function(x, weight, bias):
        norm.weight, norm.bias = (nn.Parameter(torch.zeros(0)),) * 2
        del norm.weight, norm.bias
        norm.weight, norm.bias = weight, bias
        return torch.where(valid[:, None, None, :], normalise_valid(norm, x * 1.0, valid), 0.0)

    weight, bias = (torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(function, (x, weight, bias))


@pytest.mark.parametrize("training", [False, True])
def test_padding_by_mask_as_on_a_gpu_gives_what_padding_in_place_gives(training, monkeypatch):
    mel, valid = torch.randn(3, 128, 160), valid_mask(torch.tensor([160, 37, 131]), 160)
    mel = mel.masked_fill(~valid[:, None, :], 0.0)
    found = []
    for in_place in (True, False):
        monkeypatch.setattr(audio_cnn, "_IN_PLACE", in_place)
        model = encoder().train(training)
        out = model(mel, valid)
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad for p in model.parameters()), *model.buffers()])
    torch.testing.assert_close(*found)


def test_unknown_encoder_and_too_small_spectrograms_raise():
    with pytest.raises(ConfigError, match="unknown"):
        AudioEncoder("huge")
    with pytest.raises(ConfigError, match="128 mel bands"):
        AudioEncoder("tiny", n_mels=64)
    with pytest.raises(ValueError, match="at least 32 mel frames"):
        AudioEncoder("tiny")(torch.zeros(1, 128, 31))
