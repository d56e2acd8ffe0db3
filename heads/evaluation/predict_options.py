"""How songs and stored tracks are predicted, as chosen by the user.

The command line imports this module before it runs a command, so nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...cache.bounds import Between, Count, Encoding, check_options
from ...cache.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How songs and stored tracks are predicted.

    Attributes
    ----------
    threshold : ``overall``, ``per-genre`` (both tuned on validation tracks) or a number, such as ``0.5``.
    batch_size, device : of the model.
    windows : ``one`` clip of each song, where the model's recipe says, or ``all``: the mean of the scores over
        successive clips from the start on. The last counts if it is at least half full; a song shorter than one and a
        half clips is the same as with ``one``. The lyrics of a song are the same in each.
    missing_ok : let a file that does not exist fail by itself, with a reason, like one that cannot be decoded. None:
        where several are named.
    workers : processes that decode songs and embed lyrics; None takes one per core for 32 songs or more, and 0 (this
        process) for fewer.
    lyrics_encoding : of lyrics files that are neither marked nor UTF-8, by Python's name; None detects it.
    text_model, text_device : where the model's own text encoder lies on this machine (its hashes must match), and the
        device that it runs on.
    """

    threshold: str = "overall"
    batch_size: Count = 16
    device: str = "auto"
    windows: str = "one"
    missing_ok: bool | None = None
    workers: Annotated[int, Between(0)] | None = None
    lyrics_encoding: Encoding | None = None
    text_model: str | None = None
    text_device: str = "cpu"

    def __post_init__(self) -> None:
        if self.windows not in ("one", "all"):
            want = "want one (a clip of each song) or all (the mean over a whole song)"
            raise ConfigError(f"windows {self.windows!r}: {want}")
        check_options(self)
