"""Built-in extractors ``musicnn`` and ``musicnn_tags``: a pretrained network for music tagging.

Pons and Serra 2019, "musicnn: pre-trained convolutional neural networks for music audio tagging" (arXiv:1909.06654).
The weights are inside the package ``musicnn`` 0.1.0 (ISC licence), whose other requirements can no longer be installed
and are not needed: ``pip install --no-deps musicnn==0.1.0``. They were trained on the Million Song Dataset with the 50
most frequent Last.fm tags.

Shapes: W windows, T mel frames of a window, M mel bands, F features per frame.
"""

from __future__ import annotations

import dataclasses
import functools
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cache.errors import ConfigError
from ...cache.format.recipe import MelRecipe
from ..audio.mel import mel_power
from .extractor import Extractor
from .tensor_bundle import read_tensors

CHECKPOINT = "MSD_musicnn"
DATA_SHA256 = "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6"
INSTALL = "pip install --no-deps musicnn==0.1.0"
SAMPLE_RATE_HZ, N_FFT, HOP, N_MELS, WINDOW_FRAMES = 16_000, 512, 256, 96, 187
N_FEATURES = 200
TAGS = (
    *("rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock"),
    *("jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "Mellow"),
    *("electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient"),
    *("acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country"),
    *("easy listening", "sexy", "catchy", "funk", "electro", "heavy metal", "Progressive rock", "60s", "rnb"),
    *("indie pop", "sad", "House", "happy"),
)
_MEL = MelRecipe(sample_rate_hz=SAMPLE_RATE_HZ, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS, fmax_hz=SAMPLE_RATE_HZ / 2)
_EPSILON = 1e-3  # of TensorFlow's batch normalisation
_TIMBRAL, _TEMPORAL, _MIDDLE = (0, 1), (2, 3, 4), (5, 6, 7)
"""Numbers of the convolutions of the front end, over bands and over time, and of the middle."""

Float32 = npt.NDArray[np.float32]


def windows_of(samples: Float32) -> Float32:
    """Return log-mel windows of 3 s, (W, 187, 96) float32; a last shorter one only if it is the only one.

    Notes
    -----
    ``log10(10 000 mel power + 1)``, with librosa's mel bands (:mod:`mgc.pipeline.audio.mel`). The published script
    rounds the mel power to float16, in which the product overflows for loud music; this one does not.
    """
    frames = np.log10(10_000 * mel_power(np.ascontiguousarray(samples, np.float32), _MEL).T + 1).astype(np.float32)
    if len(frames) < WINDOW_FRAMES:
        frames = np.pad(frames, ((0, WINDOW_FRAMES - len(frames)), (0, 0)))
    n_windows = len(frames) // WINDOW_FRAMES
    return np.asarray(frames[: n_windows * WINDOW_FRAMES].reshape(n_windows, WINDOW_FRAMES, N_MELS))


def weights_folder() -> Path:
    """Return the folder of the checkpoint in the installed package.

    Raises
    ------
    ConfigError
        If the package is not installed, or its weights are not those of version 0.1.0.
    """
    spec = find_spec("musicnn")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"extractor 'musicnn': its weights are not installed. Run `{INSTALL}`.")
    folder = Path(next(iter(spec.submodule_search_locations))) / CHECKPOINT
    data = folder / ".data-00000-of-00001"
    if not data.is_file() or sha256(data.read_bytes()).hexdigest() != DATA_SHA256:
        raise ConfigError(f"{folder}: these are not the weights of musicnn 0.1.0. Run `{INSTALL}`.")
    return folder


class Musicnn:
    """The network, from tensors by their names in the checkpoint."""

    def __init__(self, tensors: dict[str, Float32]) -> None:
        import torch

        self._tensors = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}

    def __call__(self, windows: Float32) -> tuple[Float32, Float32]:
        """Return features (W, 200), the layer before the tags, and tag probabilities (W, 50), both float32."""
        import torch
        from torch.nn import functional as nnf

        with torch.inference_mode():
            x = self._normalise(torch.from_numpy(windows)[:, None], 0)  # (W, 1, T, M)
            padded = nnf.pad(x, (0, 0, 3, 3))
            front = [self._convolve(padded, number).amax(dim=3) for number in _TIMBRAL]
            for number in _TEMPORAL:
                size = self._tensors[_kernel(number)].shape[0]
                front.append(self._convolve(nnf.pad(x, (0, 0, (size - 1) // 2, size // 2)), number).amax(dim=3))
            frames = torch.cat(front, dim=1).transpose(1, 2)[:, None]  # (W, 1, T, F)
            layers = [frames]
            for number in _MIDDLE:
                new = self._convolve(nnf.pad(layers[-1], (0, 0, 3, 3)), number).permute(0, 3, 2, 1)
                layers.append(new if number == _MIDDLE[0] else new + layers[-1])
            together = torch.cat(layers, dim=3)[:, 0]
            pooled = torch.stack([together.amax(dim=1), together.mean(dim=1)], dim=2).flatten(1)
            features = self._normalise(torch.relu(self._dense(self._normalise(pooled, 9), "dense")), 10)
            tags = torch.sigmoid(self._dense(features, "dense_1"))
        return features.numpy(), tags.numpy()

    def _convolve(self, x: Any, number: int) -> Any:
        """Convolve (W, 1, T, M) without padding, apply ReLU and batch normalisation."""
        from torch.nn import functional as nnf

        kernel = self._tensors[_kernel(number)].permute(3, 2, 0, 1)
        bias = self._tensors[_kernel(number).replace("kernel", "bias")]
        return self._normalise(nnf.conv2d(x, kernel, bias).relu(), number + 1)

    def _normalise(self, x: Any, number: int) -> Any:
        from torch.nn import functional as nnf

        prefix = "batch_normalization" + (f"_{number}" if number else "")
        mean, variance = (self._tensors[f"{prefix}/moving_{name}"] for name in ("mean", "variance"))
        gamma, beta = (self._tensors[f"{prefix}/{name}"] for name in ("gamma", "beta"))
        return nnf.batch_norm(x, mean, variance, gamma, beta, eps=_EPSILON)

    def _dense(self, x: Any, name: str) -> Any:
        return x @ self._tensors[f"{name}/kernel"] + self._tensors[f"{name}/bias"]


def _kernel(number: int) -> str:
    return f"conv2d_{number}/kernel" if number else "conv2d/kernel"


@functools.cache
def network() -> Musicnn:
    """Return the network with the installed weights, which are read once per process."""
    return Musicnn(read_tensors(weights_folder()))


def features(samples: Float32, sample_rate_hz: int) -> Float32:
    """Return the mean of the features of all windows, (200,) float32; samples (n,) at 16 000 Hz."""
    _check_rate(sample_rate_hz)
    return np.asarray(network()(windows_of(samples))[0].mean(axis=0))


def tags(samples: Float32, sample_rate_hz: int) -> Float32:
    """Return the mean probability of each of `TAGS` over all windows, (50,) float32; samples (n,) at 16 000 Hz."""
    _check_rate(sample_rate_hz)
    return np.asarray(network()(windows_of(samples))[1].mean(axis=0))


def _check_rate(sample_rate_hz: int) -> None:
    if sample_rate_hz != SAMPLE_RATE_HZ:
        raise ValueError(f"clips of {sample_rate_hz} Hz; the network was trained at {SAMPLE_RATE_HZ} Hz")


_PARAMETERS = {
    "checkpoint": CHECKPOINT,
    "weights_sha256": DATA_SHA256,
    "n_fft": N_FFT,
    "hop_length": HOP,
    "n_mels": N_MELS,
    "window_frames": WINDOW_FRAMES,
}
MUSICNN = Extractor(
    name="musicnn",
    version="1",
    input="clip",
    sample_rate_hz=SAMPLE_RATE_HZ,
    dims=("musicnn_feature",),
    shape=(N_FEATURES,),
    dtype="float32",
    unit="1",
    description="musicnn (Pons and Serra 2019), layer before the tags, mean over windows of 3 s",
    compute=features,
    prepare=network,
    parameters=_PARAMETERS,
)
MUSICNN_TAGS = dataclasses.replace(
    MUSICNN,
    name="musicnn_tags",
    dims=("musicnn_tag",),
    shape=(len(TAGS),),
    description="musicnn (Pons and Serra 2019), probabilities of 50 Last.fm tags, mean over windows of 3 s",
    compute=tags,
    parameters={**_PARAMETERS, "tags": list(TAGS)},
)
