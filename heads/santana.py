"""The baseline ``santana``, reconstructed: sound alone, through five convolutional blocks and one average.

Shapes: B batch, K encoder frames, E encoder channels, C genres.
"""

from __future__ import annotations

from torch import Tensor, nn

from .audio_cnn import AudioEncoder, encoder_frames, valid_mask
from .batch import Batch, Outputs
from .fusion import masked_mean
from .model_config import ModelConfig
from .system import System


class Santana(System):
    """Encoder, global average pooling over the frames that hold sound, ``Linear(E, C)``.

    Notes
    -----
    Reconstructed from what Ru et al. 2023 (Table 1) say of the audio baseline of Music4All's authors (Santana et al.,
    IWSSIP 2020); we know of no public code of the original. The blocks are those of ``ours``; with the base encoder
    1 568 992 + 513 C parameters.
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
        mel = self.normalise_mel(batch.mel, batch.mel_frames)
        frames_BKE = self.encoder(mel, batch.lengths)
        n_frames = encoder_frames(batch.mel_frames, mel.shape[-1])
        pooled = masked_mean(frames_BKE, valid_mask(n_frames, frames_BKE.shape[1]))
        return Outputs(logits=self.classifier(pooled).float())
