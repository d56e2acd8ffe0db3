"""``metrics.jsonl``: one line an epoch, kept in step with the checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from ...cache.durable import replace_file
from ..results import Result

EVENTS = "events.out.tfevents.*"
"""File names of TensorBoard, which hold the same where they were asked for (:mod:`mgc.heads.runs.tensorboard`)."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord(Result):
    """One line of ``metrics.jsonl``; means over tracks; None where undefined.

    Attributes
    ----------
    epoch, step : epochs (from 1) and optimizer steps done.
    loss, contrastive, classification : training losses; tau : temperature after the epoch.
    gradient_contrastive, gradient_classification : norm of each loss's gradient at the frames of the audio encoder,
        weighted as in Eq. 7, in the epoch's first batch; None where there is one loss only.
    val_bce, val_map, val_jaccard, val_empty_share : on the validation split; Jaccard and the share of tracks with no
        predicted genre at threshold 0.5.
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
    """The records of a run, without lines that are damaged; none where there is no file."""
    records: list[EpochRecord] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError):
            records.append(EpochRecord(**json.loads(line)))
    return records


def rewind_history(path: Path, epoch: int) -> list[EpochRecord]:
    """Drop the lines of epochs after `epoch`, whose checkpoint was never committed; returns what is left."""
    records = [record for record in read_history(path) if record.epoch <= epoch]
    replace_file(path, "".join(map(_line, records)).encode())
    return records


def append_record(path: Path, record: EpochRecord) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())  # the checkpoint that follows is as durable


def _line(record: EpochRecord) -> str:
    return json.dumps(record.to_dict()) + "\n"
