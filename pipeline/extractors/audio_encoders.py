"""Run pretrained audio encoders of transformers over windows of a clip.

Each layout has a window: the longest input of the encoder. A clip that is longer has several windows of full length,
evenly spaced from its start to its end. A shorter clip is one window. Windows of unequal length never run together,
because an encoder without attention mask (group norm of wav2vec 2.0) would see the padding.

Shapes: W windows, L layers, T frames of a window, F frequencies, C channels.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers.utils import import_utils

from ...cache.errors import ConfigError
from ..text.backends import load_network, quiet_transformers
from .audio_models import AudioModelFiles

Float32 = npt.NDArray[np.float32]
Layers = Literal["last"] | tuple[int, ...]

_WINDOWS_AT_ONCE = 8
_UNUSED = ("masked_spec_embed",)
"""Weights that only training uses; checkpoints may lack them."""


class Layout(ABC):
    """An encoder's input and output: its windows, their frames, and its hidden states.

    Attributes
    ----------
    network_class, processor_class : classes of transformers.
    window : samples of a window.
    n_frames : frames of a whole window.
    width : channels of a frame.
    n_layers : layers, of which each can be stored; 0 if only the output can.
    """

    network_class: str
    processor_class: str
    window: int
    n_frames: int
    width: int
    n_layers: int

    def __init__(self, files: AudioModelFiles) -> None:
        network, processor = getattr(transformers, self.network_class), getattr(transformers, self.processor_class)
        try:
            with quiet_transformers(), warnings.catch_warnings():
                # The lowest bands of AST are narrower than a bin of its own spectrum.
                warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
                self.config: Any = network.config_class.from_pretrained(files.folder, local_files_only=True)
                self.processor: Any = processor.from_pretrained(files.folder, local_files_only=True)
            self.sample_rate_hz = int(self.processor.sampling_rate)
            self.measure()
        except Exception as error:  # transformers raises bare exceptions
            cause = f"{type(error).__name__}: {error}"
            raise ConfigError(f"audio model {files.folder}: its configuration cannot be read ({cause})") from error

    @abstractmethod
    def measure(self) -> None:
        """Set `window`, `n_frames`, `width` and `n_layers`."""

    def frames(self, n_samples: int) -> int:
        """Return the frames with audio of a window of so many samples, at least 1."""
        return self.n_frames

    def load(self, files: AudioModelFiles) -> Any:
        """Return the encoder, in float32.

        Raises
        ------
        ConfigError
            If transformers cannot load it, or weights are missing, which would be random.
        """
        try:
            network, missing_keys = load_network(getattr(transformers, self.network_class), files.folder)
        except Exception as error:  # safetensors and transformers raise classes of their own, and bare ones
            raise ConfigError(f"audio model {files.folder}: transformers cannot load it: {error}") from error
        missing = [key for key in missing_keys if not key.endswith(_UNUSED)]
        if missing:
            raise ConfigError(
                f"audio model {files.folder}: {len(missing)} weights are not in the files, such as {missing[0]}. "
                "Download the model again."
            )
        return self.encoder_of(network).eval().requires_grad_(False)

    def encoder_of(self, network: Any) -> Any:
        """Return the audio encoder of a network that has other parts too."""
        return network

    def input(self, window: Float32) -> torch.Tensor:
        """Return the encoder's input for one window, (1, ...)."""
        inputs = self.processor(window, sampling_rate=self.sample_rate_hz, return_tensors="pt")
        value: torch.Tensor = inputs[self.processor.model_input_names[0]]
        return value.float()

    def run(self, encoder: Any, inputs: torch.Tensor, layers: Layers) -> torch.Tensor:
        """Return hidden states (W, L, T, C) of the encoder for inputs (W, ...)."""
        output = encoder(inputs, output_hidden_states=layers != "last")
        states = [output.last_hidden_state] if layers == "last" else [output.hidden_states[i] for i in layers]
        return torch.stack([self.over_time(each) for each in states], dim=1)

    def over_time(self, states: torch.Tensor) -> torch.Tensor:
        """Return hidden states as (W, T, C)."""
        return states


class Waveform(Layout):
    """HuBERT, wav2vec 2.0 and WavLM: a strided convolution over samples. A window has 30 s or is the whole clip."""

    processor_class = "Wav2Vec2FeatureExtractor"

    def __init__(self, files: AudioModelFiles, network_class: str) -> None:
        self.network_class = network_class
        super().__init__(files)

    def measure(self) -> None:
        self.window = 30 * self.sample_rate_hz
        self.n_frames = self.frames(self.window)
        self.width, self.n_layers = self.config.hidden_size, self.config.num_hidden_layers

    def frames(self, n_samples: int) -> int:
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            n_samples = (n_samples - kernel) // stride + 1
        return max(1, n_samples)

    def input(self, window: Float32) -> torch.Tensor:
        shortest = 1  # samples of one frame
        for kernel, stride in zip(self.config.conv_kernel[::-1], self.config.conv_stride[::-1], strict=True):
            shortest = (shortest - 1) * stride + kernel
        return super().input(np.pad(window, (0, max(0, shortest - len(window)))))


class Ast(Layout):
    """Audio Spectrogram Transformer: patches of a mel spectrogram, which are averaged over frequency."""

    network_class, processor_class = "ASTModel", "ASTFeatureExtractor"

    def measure(self) -> None:
        self._hop, self._frame = (int(self.sample_rate_hz * seconds) for seconds in (0.01, 0.025))  # of Kaldi
        self._stride, self._size = int(self.config.time_stride), int(self.config.patch_size)
        bins, frames = self.config.num_mel_bins, self.config.max_length
        if (bins, frames) != (self.processor.num_mel_bins, self.processor.max_length):
            raise ValueError(f"config.json has {frames} frames of {bins} bands, the preprocessor has others")
        self._n_frequencies = (bins - self._size) // self.config.frequency_stride + 1
        self.window = frames * self._hop
        self.n_frames = (frames - self._size) // self._stride + 1
        self.width, self.n_layers = self.config.hidden_size, self.config.num_hidden_layers

    def frames(self, n_samples: int) -> int:
        if n_samples >= self.window:
            return self.n_frames
        n_mel = 1 + (n_samples - self._frame) // self._hop
        return min(self.n_frames, max(1, (n_mel - self._size) // self._stride + 1))

    def input(self, window: Float32) -> torch.Tensor:
        return super().input(np.pad(window, (0, max(0, self._frame - len(window)))))

    def over_time(self, states: torch.Tensor) -> torch.Tensor:
        patches = states[:, 2:]  # without the class and distillation tokens
        return patches.reshape(len(patches), self._n_frequencies, self.n_frames, -1).mean(dim=1)


class Clap(Layout):
    """Audio tower of CLAP: a Swin transformer, whose output is averaged over frequency. A short window is repeated."""

    processor_class = "ClapFeatureExtractor"

    def __init__(self, files: AudioModelFiles) -> None:
        self.network_class = "ClapModel" if files.config["model_type"] == "clap" else "ClapAudioModel"
        super().__init__(files)

    def measure(self) -> None:
        config = getattr(self.config, "audio_config", self.config)
        self.window = self.processor.nb_max_samples
        stages = len(config.depths)
        ratio = config.spec_size // config.num_mel_bins
        self.n_frames = ratio * (config.spec_size // 2 ** (stages - 1) // config.patch_stride[1])
        self.width, self.n_layers = config.patch_embeds_hidden_size * 2 ** (stages - 1), 0

    def encoder_of(self, network: Any) -> Any:
        return network.audio_model if self.network_class == "ClapModel" else network

    def run(self, encoder: Any, inputs: torch.Tensor, layers: Layers) -> torch.Tensor:
        # The processor of transformers marks a random window as longer than it is.
        is_longer = torch.zeros(len(inputs), 1, dtype=torch.bool, device=inputs.device)
        states = encoder(inputs, is_longer=is_longer).last_hidden_state  # (W, C, F, T)
        over_time: torch.Tensor = states.mean(dim=2).transpose(1, 2)[:, None]
        return over_time


class Whisper(Layout):
    """Encoder of Whisper: a window has 30 s. Frames behind a shorter clip are left out."""

    network_class, processor_class = "WhisperModel", "WhisperFeatureExtractor"

    def measure(self) -> None:
        self.n_frames = int(self.config.max_source_positions)
        self._frame = 2 * int(self.processor.hop_length)
        self.window = self.n_frames * self._frame
        if self.window != self.processor.n_samples or self.processor.dither:
            raise ValueError("the preprocessor has windows of another length than config.json, or adds noise")
        self.width, self.n_layers = self.config.d_model, self.config.encoder_layers

    def frames(self, n_samples: int) -> int:
        return min(self.n_frames, max(1, math.ceil(n_samples / self._frame)))

    def encoder_of(self, network: Any) -> Any:
        return network.get_encoder()


def read_layout(files: AudioModelFiles) -> Layout:
    """Return the layout of an encoder, without loading its weights."""
    if files.family == "AST":
        layout: Layout = Ast(files)
    elif files.family == "CLAP":
        layout = Clap(files)
    elif files.family == "Whisper":
        layout = Whisper(files)
    else:
        names = {"HuBERT": "HubertModel", "wav2vec 2.0": "Wav2Vec2Model", "WavLM": "WavLMModel"}
        layout = Waveform(files, names[files.family])
    return layout


class AudioEncoder:
    """A frozen audio encoder; its weights are loaded by :meth:`load`.

    Parameters
    ----------
    layers : ``last`` for the output, else numbers of hidden states of transformers: 0 is the input of the first layer.
    pooling : ``mean`` over all frames with audio of all windows, or ``frames``.
    precision : ``fp32``, or ``bf16`` for matrix products (autocast). Convolutions stay in float32: the group norm
        behind the first one of HuBERT would amplify its rounding.
    """

    def __init__(
        self,
        files: AudioModelFiles,
        layout: Layout,
        *,
        layers: Layers,
        pooling: Literal["mean", "frames"],
        precision: Literal["fp32", "bf16"],
        device: str,
    ) -> None:
        self._files, self._layout = files, layout
        self._layers, self._pooling = layers, pooling
        self._device, self._bf16 = torch.device(device), precision == "bf16"
        self._encoder: Any = None

    def load(self) -> None:
        """Load the weights.

        Raises
        ------
        ConfigError
        """
        self._encoder = self._layout.load(self._files).to(self._device)
        if self._bf16:
            for module in self._encoder.modules():
                if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d):
                    exact = _in_float32(module.forward, self._device.type)
                    module.forward = exact  # type: ignore[method-assign, assignment]

    def compute(self, samples: Float32, sample_rate_hz: int) -> Float32:
        """Return the features of one clip, ([L], [T], C) float32; samples (n,) at the rate of the encoder."""
        return self.compute_batch([samples], sample_rate_hz)[0]

    def compute_batch(self, clips: Sequence[Float32], sample_rate_hz: int) -> list[Float32]:
        """Return the features of several clips; windows of the same length run together."""
        if sample_rate_hz != self._layout.sample_rate_hz:
            raise ValueError(f"clips of {sample_rate_hz} Hz; the encoder needs {self._layout.sample_rate_hz} Hz")
        windows = [split_windows(samples, self._layout.window) for samples in clips]
        owners = [i for i, own in enumerate(windows) for _ in own]
        states = self._run([window for own in windows for window in own])
        return [
            self._pool([each for owner, each in zip(owners, states, strict=True) if owner == i])
            for i in range(len(clips))
        ]

    def _run(self, windows: Sequence[Float32]) -> list[Float32]:
        """Return the hidden states of each window, (L, T, C) float32, without frames behind its audio."""
        states: dict[int, Float32] = {}
        by_length: dict[int, list[int]] = {}
        for i, window in enumerate(windows):
            by_length.setdefault(len(window), []).append(i)
        for length, same in by_length.items():
            n_frames = self._layout.frames(length)
            for first in range(0, len(same), _WINDOWS_AT_ONCE):
                some = same[first : first + _WINDOWS_AT_ONCE]
                inputs = torch.cat([self._layout.input(windows[i]) for i in some]).to(self._device)
                with (
                    torch.inference_mode(),
                    torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16),
                ):
                    hidden = self._layout.run(self._encoder, inputs, self._layers)
                values = hidden[:, :, :n_frames].float().cpu().numpy()
                states.update(zip(some, values, strict=True))
        return [states[i] for i in range(len(windows))]

    def _pool(self, states: Sequence[Float32]) -> Float32:
        frames = np.concatenate(states, axis=1)  # (L, T of all windows, C)
        values = frames.mean(axis=1) if self._pooling == "mean" else frames
        return values if isinstance(self._layers, tuple) and len(self._layers) > 1 else values[0]


def _in_float32(forward: Callable[[torch.Tensor], torch.Tensor], device: str) -> Callable[[Any], torch.Tensor]:
    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, enabled=False):
            return forward(x.float())

    return run


def split_windows(samples: Float32, window: int) -> list[Float32]:
    """Return the windows of a clip: full ones, evenly spaced from start to end; or the whole clip if it is shorter.

    >>> [len(each) for each in split_windows(np.zeros(30, np.float32), 12)]
    [12, 12, 12]
    """
    return [samples[start : start + window] for start in window_starts(len(samples), window)]


def window_starts(n_samples: int, window: int) -> list[int]:
    """Return the first sample of each window of a clip.

    >>> window_starts(30, 12), window_starts(5, 12)
    ([0, 9, 18], [0])
    """
    n_windows = max(1, math.ceil(n_samples / window))
    last = max(0, n_samples - window)
    return [round(i * last / max(1, n_windows - 1)) for i in range(n_windows)]


def processor_settings(layout: Layout) -> dict[str, Any]:
    """Return the settings of the input that determine its values, for the recipe."""
    unused = ("processor_class", "feature_extractor_type")
    settings = {name: value for name, value in layout.processor.to_dict().items() if name not in unused}
    if isinstance(layout, Ast):  # transformers has two filter banks, which differ slightly
        settings["filter_bank"] = "torchaudio" if import_utils.is_speech_available() else "transformers"
    return settings
