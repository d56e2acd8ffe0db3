"""Read clips in a child process, so that a file that crashes, stalls or bloats the decoder fails on its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from ...cache.errors import ClipError
from ...cache.format.recipe import MelRecipe
from ...cache.format.schema import Flag, Reason
from .clip_process import Answer, Child, DecoderDiedError
from .containers import Caps
from .decoded import ClipFacts


@dataclass(frozen=True, kw_only=True)
class ClipLimits:
    """Limits per file. The deadline counts CPU seconds; the wall-clock limit covers a stalled disk.

    A child is replaced after `files` files, so that memory leaks of a decoder do not accumulate.
    """

    cpu_s: float = 60.0
    wall_s: float = 900.0
    memory_bytes: int = 2 << 30
    files: int = 2000


@dataclass(frozen=True, kw_only=True)
class ClipMel(ClipFacts):
    """Log-mel spectrogram of a clip, as it is stored.

    Attributes
    ----------
    mel : (n_mels, n_frames) float16, dB re 1.0.
    mel_frames : frames that hold audio, at least 1.
    source_sha256 : of the whole audio file, hexadecimal.
    """

    mel: npt.NDArray[np.float16]
    mel_frames: int
    source_sha256: str


@dataclass(frozen=True, kw_only=True)
class ClipSamples(ClipFacts):
    """The audio of a clip.

    Attributes
    ----------
    samples : (n,) float32, mono, at the recipe's rate, without padding.
    source_sha256 : of the whole audio file, hexadecimal.
    """

    samples: npt.NDArray[np.float32]
    source_sha256: str


class ClipReader:
    """Read clips in a child process, which is restarted after a file has crashed it.

    A file that crashes a child is retried once, as the child may have been killed from outside. If it crashes the
    second child, FFmpeg alone reads it in a third. A reader serves one thread. POSIX only.

    Parameters
    ----------
    recipe : recipe of the clip.
    caps : limits beyond which files are refused unread.
    limits : limits on time and memory per file.
    form : the method that can be called: :meth:`read`, :meth:`read_samples` or :meth:`read_seconds`. A child computes
        one form only.

    Examples
    --------
    >>> with ClipReader(MelRecipe()) as reader:  # doctest: +SKIP
    ...     clip = reader.read("song.mp3")
    """

    command: ClassVar[tuple[str, ...]] = ("-m", "mgc.pipeline.audio.clip_child")
    """Arguments with which the Python interpreter runs the child."""

    def __init__(
        self,
        recipe: MelRecipe,
        *,
        caps: Caps | None = None,
        limits: ClipLimits | None = None,
        form: Literal["mel", "samples", "seconds"] = "mel",
    ) -> None:
        self._recipe = recipe
        self._form = form
        self._caps = caps or Caps()
        self._limits = limits or ClipLimits()
        self._child: Child | None = None
        self._files_read = 0
        self.stderr_tail = ""
        """Last lines that the decoders wrote to standard error about the last file."""

    def __enter__(self) -> Self:
        self._child = self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the child; the next read starts another."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def read(self, path: str | os.PathLike[str], start_s: float | None = None) -> ClipMel:
        """Decode one file.

        Parameters
        ----------
        start_s : start of the clip in seconds, in place of the recipe's policy.

        Raises
        ------
        ClipError
            With the file's :class:`Reason`, ``DECODER_CRASH``, ``DECODER_TIMEOUT`` and ``DECODER_MEMORY`` included.
        MissingExtraError
            A library that the child needs is not installed.
        """
        assert self._form == "mel"
        answer, payload = self._answer(path, start_s)
        mel = np.frombuffer(payload, np.float16).reshape(self._recipe.n_mels, self._recipe.n_frames)
        return ClipMel(mel=mel, flags=Flag(answer.pop("flags")), **answer)

    def read_samples(self, path: str | os.PathLike[str], start_s: float | None = None) -> ClipSamples:
        """Decode one file to samples; parameters and errors as of :meth:`read`."""
        assert self._form == "samples"
        answer, payload = self._answer(path, start_s)
        return ClipSamples(samples=np.frombuffer(payload, np.float32), flags=Flag(answer.pop("flags")), **answer)

    def read_seconds(self, path: str | os.PathLike[str]) -> float:
        """Return the length of a file's audio as it can be decoded; raises as :meth:`read` does."""
        assert self._form == "seconds"
        return float(self._answer(path)[0]["seconds"])

    def _answer(self, path: str | os.PathLike[str], start_s: float | None = None) -> Answer:
        request = os.fsencode(Path(path).absolute()) + (b"" if start_s is None else f"\0{start_s}".encode())
        if self._files_read >= self._limits.files:
            self.close()
        try:
            answer, payload = self._ask(request)
        except DecoderDiedError as death:
            raise self._verdict(death) from None
        self._files_read += 1
        if "reason" in answer:
            if answer["reason"] == Reason.DECODER_MEMORY:
                self.close()
            raise ClipError(answer["reason"], answer["detail"])
        return answer, payload

    def _ask(self, request: bytes) -> Answer:
        for is_last in (False, True):
            if self._child is not None and not self._child.alive():
                self.close()
            child = self._child or self._start()
            self._child = None  # until it has answered; after an interrupt, its pending answer would be read next
            try:
                answer = child.ask(request, self._limits.wall_s)
                self._child = child
                return answer
            except DecoderDiedError as death:
                if is_last and not death.timed_out and death.returncode != -signal.SIGKILL:
                    return self._ask_ffmpeg(request, death)
                if is_last or death.timed_out:
                    raise
            except BaseException:
                child.kill()
                raise
            finally:
                self.stderr_tail = child.stderr_tail
        raise AssertionError("unreachable")

    def _ask_ffmpeg(self, request: bytes, death: DecoderDiedError) -> Answer:
        """Retry in a child without libsndfile; raise `death` if that fails too."""
        child = self._start(use_libsndfile=False)
        try:
            answer = child.ask(request, self._limits.wall_s)
        except DecoderDiedError:
            raise death from None
        except BaseException:
            child.kill()
            raise
        child.stop()
        if "reason" in answer[0]:
            raise death
        return answer

    def _start(self, *, use_libsndfile: bool = True) -> Child:
        settings = {
            "recipe": dataclasses.asdict(self._recipe),
            "caps": dataclasses.asdict(self._caps),
            "limits": dataclasses.asdict(self._limits),
            "parent": os.getpid(),
            "form": self._form,
            "use_libsndfile": use_libsndfile,
        }
        self._files_read = 0
        return Child(self.command, settings, owner=self)

    def _verdict(self, death: DecoderDiedError) -> ClipError:
        limits = self._limits
        if death.timed_out:
            return ClipError(
                Reason.DECODER_TIMEOUT, f"not decoded within {limits.cpu_s:g} s of CPU or {limits.wall_s:g} s of time"
            )
        if death.returncode == -signal.SIGKILL:
            return ClipError(Reason.DECODER_MEMORY, "the decoder was killed twice, as happens where memory runs out")
        cause = f"exit status {death.returncode}"
        if death.returncode < 0:
            with contextlib.suppress(ValueError):
                cause = signal.Signals(-death.returncode).name
        return ClipError(Reason.DECODER_CRASH, f"the decoder ended with {cause}, more than once")
