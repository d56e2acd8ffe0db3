"""Provide the code that a user would write without mgc: documented one-liners of libraries, on one core.

benchmarks/speed/run.py times them in the same run as mgc and compares the results. They are not tuned.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib
import itertools
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

SAMPLE_RATE_HZ, N_FFT, HOP, N_MELS, CLIP_S = 22_050, 2048, 512, 128, 30.0
HF_BATCH, HF_TOKENS = 16, 512


def is_usable(package: str) -> bool:
    """Return whether a package is installed with the libraries that it needs; torchcodec needs those of FFmpeg."""
    try:
        importlib.import_module(package)
    except (ImportError, OSError, RuntimeError):
        return False
    return True


# ---------------------------------------------------------------- audio


def librosa_script(path: Path, saved: Path) -> np.ndarray:
    """Compute and save a log-mel spectrogram with librosa: (128, frames) float32, in dB."""
    import librosa

    y, rate_hz = librosa.load(path, sr=SAMPLE_RATE_HZ, duration=CLIP_S)
    mel = librosa.feature.melspectrogram(y=y, sr=rate_hz, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS)
    decibels = librosa.power_to_db(mel, top_db=None)
    np.save(saved, decibels)
    return decibels


def torchcodec_script(path: Path, saved: Path) -> None:
    """As `librosa_script`, but FFmpeg decodes, resamples and mixes, through torchcodec."""
    import librosa
    from torchcodec.decoders import AudioDecoder

    decoder = AudioDecoder(path, sample_rate=SAMPLE_RATE_HZ, num_channels=1)
    y = decoder.get_samples_played_in_range(0, CLIP_S).data[0].numpy()
    mel = librosa.feature.melspectrogram(y=y, sr=SAMPLE_RATE_HZ, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS)
    np.save(saved, librosa.power_to_db(mel, top_db=None))


@functools.cache
def nnaudio_layer() -> nn.Module:
    from nnAudio.features import MelSpectrogram

    return MelSpectrogram(sr=SAMPLE_RATE_HZ, n_fft=N_FFT, n_mels=N_MELS, hop_length=HOP, verbose=False)


def nnaudio_script(path: Path, saved: Path) -> None:
    """As `librosa_script`, but the spectrogram is a layer of nnAudio."""
    import librosa

    y, _ = librosa.load(path, sr=SAMPLE_RATE_HZ, duration=CLIP_S)
    with torch.no_grad():
        mel = nnaudio_layer()(torch.from_numpy(y))[0].numpy()
    np.save(saved, librosa.power_to_db(mel, top_db=None))


def lhotse_script(path: Path, saved: Path) -> None:
    """Store features of lhotse, one file per recording, which are logarithms of amplitudes and not of powers."""
    from lhotse import LibrosaFbank, LibrosaFbankConfig, NumpyFilesWriter, Recording

    config = LibrosaFbankConfig(
        sampling_rate=SAMPLE_RATE_HZ,
        fft_size=N_FFT,
        hop_size=HOP,
        num_mel_bins=N_MELS,
        fmin=0,
        fmax=SAMPLE_RATE_HZ // 2,
    )
    cut = Recording.from_file(path).resample(SAMPLE_RATE_HZ).to_cut().to_mono(mono_downmix=True)
    with NumpyFilesWriter(saved.parent) as writer:
        cut.compute_and_store_features(LibrosaFbank(config), writer)


def decode_only(path: Path) -> np.ndarray:
    """Decode a file with libsndfile, which is the limit."""
    import soundfile

    samples, _ = soundfile.read(path, dtype="float32")
    return np.asarray(samples)


# ---------------------------------------------------------------- text


class PaddedEncoder:
    """Encoder as in the documentation of transformers: batches of 16, padded to 512 tokens, float32."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the last hidden states of each text without padding: (tokens, hidden) float32."""
        states = []
        for first in range(0, len(texts), HF_BATCH):
            some = list(texts[first : first + HF_BATCH])
            batch = self.tokenizer(
                some, padding="max_length", truncation=True, max_length=HF_TOKENS, return_tensors="pt"
            )
            with torch.no_grad():
                hidden = self.model(**batch).last_hidden_state.numpy()
            states += [text[: int(mask.sum())] for text, mask in zip(hidden, batch["attention_mask"], strict=True)]
        return states


class SortedEncoder(PaddedEncoder):
    """Encoder with less padding: texts are sorted by length and padded to the longest of 8."""

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        order = np.argsort([len(text) for text in texts], kind="stable")
        states: dict[int, np.ndarray] = {}
        for first in range(0, len(texts), 8):
            some = order[first : first + 8]
            batch = self.tokenizer(
                [texts[i] for i in some], padding=True, truncation=True, max_length=HF_TOKENS, return_tensors="pt"
            )
            with torch.no_grad():
                hidden = self.model(**batch).last_hidden_state.numpy()
            for i, text, mask in zip(some, hidden, batch["attention_mask"], strict=True):
                states[int(i)] = text[: int(mask.sum())]
        return [states[i] for i in range(len(texts))]


class SentenceEncoder:
    """sentence-transformers: ``encode(..., output_value="token_embeddings")``, its own sorting and batches of 32."""

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Transformer

        transformer = Transformer(str(folder), max_seq_length=HF_TOKENS)
        self.model = SentenceTransformer(modules=[transformer], device="cpu")

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The last hidden states of each text: (tokens, hidden) float32."""
        states = self.model.encode(list(texts), output_value="token_embeddings", show_progress_bar=False)
        return [text.numpy() for text in states]


class OpenVinoEncoder:
    """OpenVINO as its documentation has it: ``convert_model``, compiled for the CPU, one text at a time."""

    def __init__(self, folder: Path, precision: str) -> None:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # no reports over the network
        import openvino
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder).eval()
        with torch.no_grad():
            example = dict(self.tokenizer("an example", return_tensors="pt"))
            converted = openvino.convert_model(model, example_input=example)
        hint = {"fp32": "f32", "bf16": "bf16"}[precision]
        options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        self.model = openvino.compile_model(converted, "CPU", options)

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The last hidden states of each text: (tokens, hidden) float32."""
        states = []
        for text in texts:
            tokens = self.tokenizer(text, truncation=True, max_length=HF_TOKENS, return_tensors="np")
            states.append(np.array(self.model(dict(tokens))[0][0]))
        return states


class OnnxEncoder:
    """ONNX Runtime as PyTorch's documentation has it: ``torch.onnx.export``, float32, one text at a time."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder).eval()
        example = dict(self.tokenizer("an example", return_tensors="pt"))
        sizes = {name: dict.fromkeys(range(2), torch.export.Dim.DYNAMIC) for name in example}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
            file = Path(scratch) / "encoder.onnx"
            torch.onnx.export(model, (), file, kwargs=example, dynamo=True, dynamic_shapes=sizes, verbose=False)
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The last hidden states of each text: (tokens, hidden) float32."""
        states = []
        for text in texts:
            tokens = self.tokenizer(text, truncation=True, max_length=HF_TOKENS, return_tensors="np")
            states.append(self.session.run(None, dict(tokens))[0][0])
        return states


def whole_script(songs: Sequence[tuple[Path, Path]], encoder: Path, saved: Path) -> None:
    """Write the features of all songs to .npy files, audio and lyrics."""
    for audio, lyrics in songs:
        librosa_script(audio, saved / f"{lyrics.stem}.mel.npy")
    padded = PaddedEncoder(encoder)
    texts = {lyrics.stem: lyrics.read_text() for _, lyrics in songs}
    for name, states in zip(texts, padded(list(texts.values())), strict=True):
        np.save(saved / f"{name}.lyrics.npy", states)


# ---------------------------------------------------------------- random reads


def zarr_oindex(array: Any, rows: np.ndarray) -> np.ndarray:
    """Read with the fancy indexing of zarr-python."""
    return np.asarray(array.oindex[rows])


def zarr_one_by_one(array: Any, rows: np.ndarray) -> np.ndarray:
    return np.stack([array[int(row)] for row in rows])


def h5py_one_by_one(data: Any, rows: np.ndarray) -> np.ndarray:
    """Read with h5py, with one chunk per clip."""
    return np.stack([data[int(row)] for row in rows])


def npy_files(folder: Path, rows: np.ndarray) -> np.ndarray:
    """Read one .npy file per track."""
    return np.stack([np.load(folder / f"{int(row)}.npy") for row in rows])


def tensorstore_rows(array: Any, rows: np.ndarray) -> np.ndarray:
    return np.asarray(array[rows].read().result())


def memory_map(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Read with np.take on a flat memory map of the same bytes, which is the limit."""
    return np.take(array, rows, axis=0)


class NpyClips(Dataset[Tensor]):
    """Dataset as in the PyTorch tutorial, with one .npy file per track."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.n = folder, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> Tensor:
        return torch.from_numpy(np.load(self.folder / f"{row}.npy"))


def dataloader_batches(folder: Path, n: int, batches: Iterable[np.ndarray], workers: int) -> Iterator[np.ndarray]:
    """Yield batches of a DataLoader with worker processes."""
    order = [rows.tolist() for rows in batches]
    loader = DataLoader(NpyClips(folder, n), batch_sampler=order, num_workers=workers)
    for batch in loader:
        yield batch.numpy()


# ---------------------------------------------------------------- training


class NpyTracks(Dataset[dict[str, Tensor]]):
    """Dataset with all features of a track in one .npz file."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.n = folder, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        with np.load(self.folder / f"{row}.npz") as track:
            return {name: torch.from_numpy(track[name]) for name in track.files}


def plain_training(
    model: nn.Module, loss_of: Any, dataset: Dataset[Any], order: Sequence[Sequence[int]], lr: float
) -> list[float]:
    """Train with the loop of the PyTorch tutorial in float32; return the loss of each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    loader = DataLoader(dataset, batch_sampler=[list(rows) for rows in order], num_workers=2)
    losses = []
    model.train()
    for batch in itertools.islice(loader, len(order)):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":  # the whole script as a process: python -m benchmarks.speed.rivals SONGS.csv ENCODER FOLDER
    songs, encoder, saved = map(Path, sys.argv[1:])
    with songs.open(newline="") as file:
        paths = [(songs.parent / row["path"], songs.parent / row["lyrics_path"]) for row in csv.DictReader(file)]
    whole_script(paths, encoder, saved)
