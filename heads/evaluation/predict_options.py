"""The options of a prediction. Imports nothing heavy: commands make them before they know that there is a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...cache.errors import ConfigError
from ..bounds import Between, Count, check_options


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How tracks or songs are predicted.

    Attributes
    ----------
    threshold : ``overall``, ``per-genre`` (both tuned on validation tracks) or a number, such as ``0.5``.
    batch_size, device : of the model.
    windows : ``one`` clip of each song, where the model's recipe says, or ``all``: the mean over successive clips.
    missing_ok : let a file that does not exist fail by itself, with a reason. None: where several are named.
    workers : processes that decode songs; None takes one per core for many songs, and 0 (this process) for few.
    text_model, text_device : where the model's own text encoder lies on this machine, and where it runs.
    """

    threshold: str = "overall"
    batch_size: Count = 16
    device: str = "auto"
    windows: str = "one"
    missing_ok: bool | None = None
    workers: Annotated[int, Between(0)] | None = None
    text_model: str | None = None
    text_device: str = "cpu"

    def __post_init__(self) -> None:
        if self.windows not in ("one", "all"):
            want = "want one (a clip of each song) or all (the mean over a whole song)"
            raise ConfigError(f"windows {self.windows!r}: {want}")
        check_options(self)
