"""Read and write ``metrics.jsonl``: one line per epoch, consistent with the checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...cache.durable import replace_file
from ..results import Result

MAX_RATIO = 10.0
"""Ratio of the gradient of the audio-lyrics loss to that of the classification loss above which there is a warning."""

EVENTS = "events.out.tfevents.*"
"""Pattern of the names of TensorBoard event files (:mod:`mgc.heads.runs.tensorboard`)."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord(Result):
    """One line of ``metrics.jsonl``. Undefined values are None.

    Attributes
    ----------
    epoch, step : completed epochs (from 1) and optimizer steps.
    loss, contrastive, classification : training losses, means over tracks.
    tau : temperature after the epoch.
    val_bce, val_map, val_jaccard, val_empty_share : on the validation split; Jaccard index and share of tracks without
        a predicted genre at threshold 0.5.
    gradient_contrastive, gradient_classification : norm of each loss's gradient at the output frames of the audio
        encoder, weighted as in Eq. 7, in the first batch of the epoch; None with a single loss.
    """

    epoch: int
    step: int
    lr: float
    loss: float
    contrastive: float
    classification: float
    tau: float | None
    val_bce: float | None
    val_map: float | None
    val_jaccard: float | None
    val_empty_share: float | None
    seconds: float
    gradient_contrastive: float | None = None
    gradient_classification: float | None = None


def read_history(path: Path) -> list[EpochRecord]:
    """Return the records of a run, skipping damaged lines; none if there is no file."""
    records: list[EpochRecord] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError):
            records.append(EpochRecord(**json.loads(line)))
    return records


def rewind_history(path: Path, epoch: int) -> list[EpochRecord]:
    """Drop the lines of epochs after `epoch`, whose checkpoints were not committed; return the others."""
    records = [record for record in read_history(path) if record.epoch <= epoch]
    data = "".join(map(_line, records)).encode()
    if not path.exists() or path.read_bytes() != data:
        replace_file(path, data)
    return records


def training_seconds(history: Sequence[EpochRecord]) -> float:
    """Return the time that the epochs of a run took, in all its sessions."""
    return sum(record.seconds for record in history)


def append_record(path: Path, record: EpochRecord) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())  # the checkpoint that follows is as durable


def _line(record: EpochRecord) -> str:
    return json.dumps(record.to_dict()) + "\n"


def warning_of_gradient_ratio(history: Sequence[EpochRecord]) -> str | None:
    """Return a warning if the audio-lyrics loss dominates the gradient of the audio encoder, else None."""
    ratios = [
        record.gradient_contrastive / record.gradient_classification
        for record in history
        if record.gradient_contrastive and record.gradient_classification
    ]
    ratio = statistics.median(ratios) if ratios else 0.0
    if ratio <= MAX_RATIO:
        return None
    return (
        f"at the audio encoder, the gradient of the audio-lyrics loss is {ratio:.0f} times that of the classification "
        "loss (median over epochs), so the encoder learns little about genres. Use a lower --lambda, or "
        "--set bce_reduction=sum."
    )
