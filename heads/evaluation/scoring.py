"""Scores of a model over a set of examples, the same whoever else is in the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ...cache.steps import Progress, silent
from ..data.batches import FeatureBatches, in_batches
from ..model.system import System


@dataclass(frozen=True, kw_only=True)
class OutputArrays:
    """Outputs for n examples, float32: logits (n, C), and (n, P) embeddings if the model projects both."""

    logits: npt.NDArray[np.float32]
    audio_embedding: npt.NDArray[np.float32] | None = None
    lyrics_embedding: npt.NDArray[np.float32] | None = None


def score(
    model: System,
    batches: FeatureBatches,
    index: npt.NDArray[np.int64],
    *,
    batch_size: int = 16,
    on_progress: Progress = silent,
) -> OutputArrays:
    """Compute the outputs for the examples `index`, in that order, always in float32 and without dropout.

    Parameters
    ----------
    on_progress : receives the number of examples scored so far.
    """
    arrays: dict[str, npt.NDArray[np.float32]] = {
        "logits": np.zeros((len(index), model.config.n_genres), dtype=np.float32)
    }
    # Lyrics of one length together: less padding to compute.
    places = in_batches(np.argsort(batches.examples.lyrics_tokens[index], kind="stable"), batch_size)
    done = 0
    with torch.inference_mode(), _evaluating(model):
        for place, batch in zip(places, batches(index[place] for place in places), strict=True):
            for name, value in vars(model(batch)).items():
                if value is not None and value.ndim == 2:  # tau is a scalar
                    array = arrays.setdefault(name, np.zeros((len(index), value.shape[1]), dtype=np.float32))
                    array[place] = value.float().cpu().numpy()
            done += len(place)
            on_progress("predict", done, len(index))
    return OutputArrays(**arrays)


def probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return scores in [0, 1], float32: the logistic function of the logits."""
    values: npt.NDArray[np.float32] = torch.from_numpy(logits).sigmoid().numpy()
    return values


@contextlib.contextmanager
def _evaluating(model: System) -> Iterator[None]:
    """Evaluation mode, nothing compiled, and on CUDA convolutions in true float32 by algorithms that do not vary."""
    was_training = model.training
    model.eval()
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    try:
        with (
            exact if next(model.parameters()).is_cuda else contextlib.nullcontext(),
            torch.compiler.set_stance("force_eager"),  # scores must not depend on how a model was trained
        ):
            yield
    finally:
        model.train(was_training)
