"""Time lyrics to token states on one core: documented code of peers, and each backend and precision of mgc."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.speed import rivals
from benchmarks.timing import in_turn, spread, table
from mgc.cache.machine import cpu_has_bf16
from mgc.pipeline.text.encoder import Precision, TextBackend, TextEncoder
from mgc.pipeline.text.models import TextModelFiles, find_text_model

PADDED = "transformers, padded to 512, batches of 16, fp32"
PACKED_TOKENS = 1024
LEAST_COSINE: dict[Precision, float] = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.98}

Encode = Callable[[], list[np.ndarray]]


def run(encoder: str | Path, name: str, lyrics: list[str], rounds: int, *, alternatives: bool) -> str:
    """Time all implementations on `lyrics`; with `alternatives` also rejected ones (docs/design/008-speed.md)."""
    files = find_text_model(str(encoder))
    padded = rivals.PaddedEncoder(files.folder)
    functions: dict[str, Encode] = {PADDED: lambda: padded(lyrics)}
    least: dict[str, float] = {}
    for precision in precisions():
        for label, encode in functions_in(precision, files, lyrics, alternatives=alternatives):
            functions[f"{label}, {precision}"] = encode
            least[f"{label}, {precision}"] = LEAST_COSINE[precision]
    reference = padded(lyrics)
    cosines = {label: token_cosines(reference, encode()) for label, encode in functions.items()}
    for label, limit in least.items():
        if cosines[label].min() < limit:
            raise SystemExit(f"{label}: a token at cosine {cosines[label].min():.6f} to {PADDED}")
    times = in_turn(functions, rounds=rounds)
    n_tokens = sum(map(len, reference))
    rows: list[list[object]] = []
    for label in functions:
        rate = [n_tokens / seconds for seconds in times.seconds[label]]
        ratio = "-" if label == PADDED else times.ratio(PADDED, label)
        rows.append([label, spread(rate, 1, 0), ratio, f"{cosines[label].min():.5f}", f"{cosines[label].mean():.5f}"])
    title = f"Text: {name}, one core ({len(lyrics)} lyrics, {n_tokens / len(lyrics):.0f} tokens on average)"
    return table(title, ["", "tokens/s", "times padded", "least cosine of a token", "mean"], rows)


def precisions() -> list[Precision]:
    """Return the precisions that this machine computes in."""
    int8: list[Precision] = ["int8"] if rivals.is_usable("ctranslate2") else []
    return ["fp32", *(["bf16"] if cpu_has_bf16() else []), *int8]  # type: ignore[list-item]


def functions_in(
    precision: Precision, files: TextModelFiles, lyrics: list[str], *, alternatives: bool
) -> Iterator[tuple[str, Encode]]:
    """Yield name and function of each entrant that computes in `precision`."""
    if precision == "fp32":
        if alternatives:
            by_length = rivals.SortedEncoder(files.folder)
            yield "transformers, sorted by length, padded to the longest of 8", lambda: by_length(lyrics)
        if rivals.is_usable("onnxruntime") and rivals.is_usable("onnxscript"):
            onnx = rivals.OnnxEncoder(files.folder)
            yield "ONNX Runtime, one text at a time", lambda: onnx(lyrics)
        sentences = rivals.SentenceEncoder(files.folder)
        yield "sentence-transformers, token embeddings", lambda: sentences(lyrics)
    if precision == "int8":
        yield "mgc (CTranslate2)", encoding(files, lyrics, precision, "ctranslate2")
        return
    if rivals.is_usable("openvino"):
        script = rivals.OpenVinoEncoder(files.folder, precision)
        yield "OpenVINO, one text at a time", lambda: script(lyrics)
        yield "mgc --text-backend openvino", encoding(files, lyrics, precision, "openvino")
    yield "mgc", encoding(files, lyrics, precision)
    if alternatives:
        is_packed = precision == "bf16"
        other = "one at a time" if is_packed else "packed"
        yield f"mgc, {other}", encoding(files, lyrics, precision, pack_tokens=0 if is_packed else PACKED_TOKENS)


def encoding(
    files: TextModelFiles,
    lyrics: list[str],
    precision: Precision,
    backend: TextBackend = "torch",
    pack_tokens: int | None = None,
) -> Encode:
    encoder = TextEncoder(files, precision=precision, backend=backend, pack_tokens=pack_tokens)
    return lambda: [text.states for text in encoder.encode_all(lyrics)]


def token_cosines(reference: list[np.ndarray], other: list[np.ndarray]) -> np.ndarray:
    """Return the cosine of each token's state to the reference, all texts in one array."""
    for expected, states in zip(reference, other, strict=True):
        if states.shape != expected.shape:
            raise SystemExit(f"{states.shape} states where the reference has {expected.shape}")
    a, b = np.concatenate(reference), np.concatenate(other)
    return np.asarray((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
