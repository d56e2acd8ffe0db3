"""Options of prediction.

The command line imports this module before it runs a command, so it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...cache.bounds import Between, Count, Encoding, check_options
from ...cache.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options for the prediction of songs and of stored tracks.

    Attributes
    ----------
    threshold : ``overall``, ``per-genre`` (both tuned on validation tracks) or a number, such as ``0.5``.
    batch_size, device : of the model.
    windows : ``one`` clip per song, at the position of the model's recipe, or ``all``: the mean of the scores over
        successive windows from the start of the song. The last window counts if it is at least half full. A song
        shorter than one and a half windows is predicted as with ``one``. All windows have the lyrics of the song.
    missing_ok : let a missing file fail on its own, with a reason code, like a file that cannot be decoded. None does
        so if several files are given.
    workers : number of processes that decode songs and embed lyrics. None uses one per core for 32 songs or more, and
        0 (this process) for fewer.
    lyrics_encoding : Python name of the encoding of lyrics files that are not UTF-8 and have no byte order mark; None
        detects it.
    audio_model, audio_device : location of the pretrained audio encoder of the model's audio input (``hf:FOLDER``),
        whose hashes must match, and its device. None takes the name in the recipe.
    genres : names of genres to score without training, for a model with the genre-query head.
    text_model, text_device : local path of the model's text encoder, whose hashes must match, and its device.
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
    audio_model: str | None = None
    audio_device: str = "cpu"
    genres: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.windows not in ("one", "all"):
            choices = "Choose one (one clip per song) or all (the mean over a whole song)."
            raise ConfigError(f"windows {self.windows!r}: unknown. {choices}")
        check_options(self)
