from __future__ import annotations

import pytest
import torch
from torch import nn

from mgc.cache.errors import ConfigError
from mgc.heads.model.audio_cnn import AudioEncoder, ConvBlock, encoder_frames, normalise_valid


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def encoder(name: str = "tiny", seed: int = 0) -> AudioEncoder:
    """An encoder whose batch normalisations have seen data, some with a negative scale."""
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
def test_sizes_are_those_of_the_paper_reading(name, channels, parameters):
    """paper.md check 1, after the mel."""
    model = AudioEncoder(name).eval()
    assert count(model) == parameters
    with torch.no_grad():
        assert model(torch.zeros(1, 128, 1292), [1292]).shape == (1, 40, channels)


def test_pooling_before_relu_is_relu_before_pooling():
    torch.manual_seed(0)
    block = ConvBlock(3, 8, (2, 2)).train()
    nn.init.normal_(block.norm.weight)
    x = torch.randn(2, 3, 16, 21)
    assert torch.equal(block(x, None), block.pool(torch.relu(block.norm(block.conv(x)))))


def test_tracks_a_few_frames_short_of_the_longest_train():
    model = encoder().train()
    out = model(torch.randn(3, 128, 160), [160, 159, 131])
    out.square().sum().backward()
    assert (out.abs().sum(dim=2) > 0).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_frames_of_padding_come_out_as_zero(training):
    model = encoder().train(training)
    frames = torch.tensor([320, 150, 1])
    mel = torch.randn(3, 128, 320)
    mel[1, :, 150:], mel[2, :, 1:] = 0.0, 0.0
    out = model(mel, frames.tolist())
    valid = encoder_frames(frames, 320)
    assert valid.tolist() == [10, 5, 1]
    for i, n in enumerate(valid.tolist()):
        assert torch.equal(out[i, n:], torch.zeros(10 - n, 128))
        assert (out[i, :n].abs().sum(dim=1) > 0).all()


def test_a_clip_gives_the_same_frames_however_much_padding_follows():
    model = encoder().eval()
    mel = torch.randn(1, 128, 150)
    outputs = []
    # The second track makes the batch as long as it is given.
    for n_frames in (160, 320, 1292):
        padded = torch.randn(2, 128, n_frames)
        padded[0, :, :150], padded[0, :, 150:] = mel, 0.0
        outputs.append(model(padded, [150, n_frames])[:1, :5])
    outputs.append(model(padded[:1], [150]))
    assert outputs[-1].shape == (1, 5, 128)
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], atol=1e-5, rtol=1e-5)


def test_training_statistics_are_those_of_the_valid_frames_alone():
    """Two clips of 160 frames train alike as they are, and block by block with as much padding again."""
    short, long = encoder().train(), encoder().train()
    mel = torch.randn(2, 128, 160)
    padded = torch.zeros(2, 1, 128, 320)
    padded[:, 0, :, :160] = mel
    out_short = short(mel, [160, 160])
    for k, block in enumerate(long.blocks):
        padded = block(padded, [160 >> k] * 2)
    out_long = padded.mean(dim=2).transpose(1, 2)
    torch.testing.assert_close(out_long[:, :5], out_short, atol=1e-4, rtol=1e-4)
    for a, b in zip(short.buffers(), long.buffers(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    out_short.square().sum().backward()
    out_long.square().sum().backward()
    for a, b in zip(short.parameters(), long.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-2, rtol=1e-3)


def test_valid_statistics_equal_masked_sums():
    torch.manual_seed(1)
    x = torch.randn(3, 2, 4, 7, dtype=torch.float64) * 3 + 1
    norm = nn.BatchNorm2d(2, dtype=torch.float64).train()
    lengths = [7, 2, 5]
    out = normalise_valid(norm, x.clone(), lengths)
    mask = torch.stack([torch.arange(7) < n for n in lengths])[:, None, None, :].expand_as(x)
    n = mask[:, 0].sum()
    mean = (x * mask).sum((0, 2, 3)) / n
    var = (((x - mean[:, None, None]) ** 2) * mask).sum((0, 2, 3)) / n
    expected = (x - mean[:, None, None]) / (var[:, None, None] + norm.eps).sqrt() * mask
    torch.testing.assert_close(out * mask, expected)
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * var * n / (n - 1))
    assert norm.num_batches_tracked == 1


def test_valid_statistics_without_any_padding_are_the_plain_ones():
    """Clips that are all as long as the batch: the usual case of 30 s clips."""
    x = torch.randn(3, 2, 4, 5)
    plain, masked = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    torch.testing.assert_close(normalise_valid(masked, x.clone(), [5, 5, 5]), plain(x))
    torch.testing.assert_close(masked.running_var, plain.running_var)


def test_gradients_of_valid_statistics_equal_numeric_ones():
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(2, dtype=torch.float64).train()
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = (torch.arange(4) < torch.tensor([[4], [1]]))[:, None, None, :]
    assert torch.autograd.gradcheck(lambda x: normalise_valid(norm, x * 1.0, [4, 1]) * mask, (x,))


def test_encoder_frames_round_up_and_stay_in_range():
    frames = torch.tensor([0, 1, 32, 33, 1279, 1280, 1292, 5000])
    assert encoder_frames(frames, 1292).tolist() == [1, 1, 1, 2, 40, 40, 40, 40]


def test_what_the_encoder_cannot_take_is_refused():
    with pytest.raises(ConfigError, match="unknown"):
        AudioEncoder("huge")
    with pytest.raises(ConfigError, match="128 mel bands"):
        AudioEncoder("tiny", n_mels=64)
    with pytest.raises(ValueError, match="at least 32 mel frames"):
        AudioEncoder("tiny")(torch.zeros(1, 128, 31), torch.tensor([31]))
