"""Write a run's curves for TensorBoard (``events.out.tfevents.*``). Needs the extra ``tensorboard``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from .history import EVENTS, EpochRecord

_CURVES = {
    "loss": "loss/total",
    "contrastive": "loss/contrastive",
    "classification": "loss/classification",
    "val_bce": "validation/bce",
    "val_map": "validation/mAP",
    "val_jaccard": "validation/jaccard",
    "val_empty_share": "validation/empty_share",
    "lr": "training/learning_rate",
    "tau": "training/tau",
    "gradient_contrastive": "gradient/contrastive",
    "gradient_classification": "gradient/classification",
    "seconds": "training/seconds_per_epoch",
}


class EventLog:
    """Log of epochs, over epochs (``epoch/loss/total``) and over optimizer steps (``step/loss/total``).

    On resume, all events are rewritten from ``metrics.jsonl``, so that there are no duplicates and no events of
    uncommitted epochs. The log draws no random numbers.

    Parameters
    ----------
    run : the run folder.
    history : records of the completed epochs.
    """

    def __init__(self, run: Path, history: Sequence[EpochRecord]) -> None:
        for path in run.glob(EVENTS):
            path.unlink()
        self._clock_s = time.time() - sum(record.seconds for record in history)
        self._writer = SummaryWriter(str(run))
        for record in history:
            self._add(record)
        self._writer.flush()

    def append(self, record: EpochRecord) -> None:
        self._add(record)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, record: EpochRecord) -> None:
        self._clock_s += record.seconds
        for field, name in _CURVES.items():
            if (value := getattr(record, field)) is not None:  # undefined values have no point
                self._writer.add_scalar(f"epoch/{name}", value, record.epoch, walltime=self._clock_s)
                self._writer.add_scalar(f"step/{name}", value, record.step, walltime=self._clock_s)
