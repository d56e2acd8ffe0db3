"""Define the baselines ``santana`` and ``pandeya``, reconstructed from their descriptions.

Shapes: B batch, M mel bands, T mel frames, F channels, D text width, C genres.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .audio_cnn import CHANNELS, AudioEncoder, normalise_valid
from .batch import Batch, Outputs
from .config import ModelConfig
from .fusion import at_least_float32, masked_mean
from .system import System

SQUEEZE_RATIOS = (4, 8, 8, 16, 16)
"""Ratio of channels to hidden units in the channel excitation of each block."""

_WIDE_BLOCKS = 3
"""Number of blocks with kernels of size 5 in the dense branch; later blocks use size 3."""


class Pandeya(System):
    """Late fusion by concatenation: ``[GAP(five blocks) ; mean lyrics]`` -> dense layer, ReLU -> C outputs.

    Notes
    -----
    Reconstructed from the public description of a music network by Pandeya and Lee ("Deep learning-based late fusion of
    multimodal information for emotion classification of music video", Multimedia Tools and Applications 2021; Pandeya,
    Bhattarai and Lee, Sensors 2021): f = 16, 32, 64, 128, 256 filters, and 2f channels after each block. Ru et al. 2023
    use it with lyrics in place of video and give no details. Three choices are ours: the mean of the frozen token
    states is concatenated before one dense layer of ``config.width`` units, kernels are frequency x time, and outputs
    are independent instead of a softmax. The smaller encoders have half and a quarter of the filters.

    The lyrics vector of a track without lyrics is 0. Padding does not change outputs in evaluation, since every
    convolution, average and maximum uses valid frames only.
    """

    def __init__(self, config: ModelConfig, *, mel_mean: float = 0.0, mel_std: float = 1.0) -> None:
        super().__init__(config, mel_mean=mel_mean, mel_std=mel_std)
        widths = CHANNELS[config.encoder]
        self.blocks = nn.ModuleList(
            DenseBlock(n_in, n_out // 2, reach=5 if i < _WIDE_BLOCKS else 3, ratio=SQUEEZE_RATIOS[i])
            for i, (n_in, n_out) in enumerate(zip((1, *widths), widths, strict=False))
        )
        self.dense = nn.Linear(widths[-1] + config.text_dim, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.width, config.n_genres, bias=config.bias)

    @property
    def output_bias(self) -> Tensor | None:
        return self.classifier.bias

    def forward(self, batch: Batch) -> Outputs:
        """Score every genre for each track of `batch`, on the system's device."""
        mel, valid = self.normalise_mel(batch)
        x = mel[:, None]
        for block in self.blocks:
            x = block(x, valid, padded=batch.padded)
            valid = valid[:, ::2]
        audio = _valid_mean(x, valid)
        lyrics = batch.lyrics_pooled.to(audio.dtype).masked_fill((batch.lyrics_tokens == 0)[:, None], 0.0)
        hidden = torch.relu(self.dense(torch.cat([audio, lyrics], dim=-1)))
        return Outputs(logits=self.classifier(self.dropout(hidden)).float(), fused=hidden.float())


class DenseBlock(nn.Module):
    """Map (B, n_in, M, T) to (B, 2f, ceil(M / 2), ceil(T / 2)), ignoring frames beyond each track's length.

    The dense branch has three convolutions in series (1 x reach to f channels, reach x 1 to one channel, 1 x 3 to f);
    each receives the input of the block and the output of the convolution before it. A parallel branch is a 3 x 1
    convolution to f. The output of either branch is concatenated with the input and max-pooled 2 x 2. Their sum passes
    Conv3x3 to 2f, ReLU, batch normalisation, and squeeze and excitation.
    """

    def __init__(self, n_in: int, n_filters: int, *, reach: int, ratio: int) -> None:
        super().__init__()
        self.along_time = _same_conv(n_in, n_filters, (1, reach))
        self.along_frequency = _same_conv(n_in + n_filters, 1, (reach, 1))
        self.narrow = _same_conv(n_in + 1, n_filters, (1, 3))
        self.beside = _same_conv(n_in, n_filters, (3, 1))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.merge = _same_conv(n_in + n_filters, 2 * n_filters, (3, 3))
        self.norm = nn.BatchNorm2d(2 * n_filters)
        self.excite = SqueezeExcite(2 * n_filters, ratio)

    def forward(self, x: Tensor, valid_BT: Tensor, *, padded: bool) -> Tensor:
        """Transform `x`, which is 0 in padding, like the output."""
        padding = ~valid_BT[:, None, None, :]
        y = torch.relu(self.along_time(x)).masked_fill(padding, 0.0)
        y = torch.relu(self.along_frequency(torch.cat([x, y], dim=1))).masked_fill(padding, 0.0)
        y = torch.relu(self.narrow(torch.cat([x, y], dim=1)))
        parallel = torch.relu(self.beside(x))
        # The maximum over a valid frame and a padding frame must not be the 0 of the padding.
        pooled = [self.pool(torch.cat([x, end], dim=1).masked_fill(padding, -torch.inf)) for end in (y, parallel)]
        valid_BT = valid_BT[:, ::2]
        padding = ~valid_BT[:, None, None, :]
        merged = torch.relu(self.merge((pooled[0] + pooled[1]).masked_fill(padding, 0.0)))
        # A copy: `normalise_valid` writes in place, and the gradient of ReLU needs its output.
        normed = normalise_valid(self.norm, merged.clone(), valid_BT if padded else None).masked_fill(padding, 0.0)
        excited: Tensor = self.excite(normed, valid_BT)
        return excited


class SqueezeExcite(nn.Module):
    """Concurrent squeeze and excitation: x times a gate per channel, plus x times a gate per position.

    Notes
    -----
    Roy, Navab and Wachinger, MICCAI 2018, without biases and with the sum of both, as Pandeya and Lee use it.
    """

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(1, channels // ratio), bias=False)
        self.excite = nn.Linear(max(1, channels // ratio), channels, bias=False)
        self.place = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, x: Tensor, valid_BT: Tensor) -> Tensor:
        channel = torch.sigmoid(self.excite(torch.relu(self.squeeze(_valid_mean(x, valid_BT)))))
        gated: Tensor = x * channel[:, :, None, None] + x * torch.sigmoid(self.place(x))
        return gated


def _same_conv(n_in: int, n_out: int, kernel: tuple[int, int]) -> nn.Conv2d:
    """Build a convolution that keeps the size, with the initial weights of He et al. (2015)."""
    conv = nn.Conv2d(n_in, n_out, kernel, padding="same")
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _valid_mean(x_BFMT: Tensor, valid_BT: Tensor) -> Tensor:
    """Return the (B, F) float32 mean over bands and valid frames of a tensor that is 0 in padding."""
    total = at_least_float32(x_BFMT).sum(dim=(2, 3))
    return total / (valid_BT.sum(dim=1, keepdim=True) * x_BFMT.shape[2])


class Santana(System):
    """Encoder, global average pooling over valid frames, ``Linear(E, C)``.

    Notes
    -----
    Reconstructed from the description in Ru et al. 2023 (Table 1) of the audio baseline by the authors of Music4All
    (Santana et al., IWSSIP 2020). No public code of the original is known. The blocks are those of the paper's model.
    With the base encoder the system has 1 568 992 + 513 C parameters.
    """

    def __init__(self, config: ModelConfig, *, mel_mean: float = 0.0, mel_std: float = 1.0) -> None:
        super().__init__(config, mel_mean=mel_mean, mel_std=mel_std)
        self.encoder = AudioEncoder(config.encoder, n_mels=config.n_mels)
        self.classifier = nn.Linear(self.encoder.out_channels, config.n_genres, bias=config.bias)

    @property
    def output_bias(self) -> Tensor | None:
        return self.classifier.bias

    def forward(self, batch: Batch) -> Outputs:
        """Score every genre for each track of `batch`, on the system's device."""
        mel, valid = self.normalise_mel(batch)
        pooled = masked_mean(*self.encoder.encode(mel, valid, padded=batch.padded))
        return Outputs(logits=self.classifier(pooled).float(), fused=pooled.float())
