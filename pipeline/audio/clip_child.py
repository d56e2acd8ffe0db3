"""The decoding process: ``python -m mgc.pipeline.audio.clip_child``.

:class:`mgc.pipeline.audio.clip_reader.ClipReader` starts it. It limits its own CPU time and memory, dies with its
parent, and answers one message per file.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import functools
import json
import math
import os
import resource
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...cache.durable import file_sha256
from ...cache.errors import ClipError
from ...cache.format.recipe import MelRecipe
from ...cache.format.schema import Reason
from ...cache.machine import reuse_freed_blocks
from . import clips
from .clip_process import SIZES, receive
from .clip_reader import ClipLimits, ClipMel, ClipSamples
from .clips import Clip, audio_seconds, decode_clip
from .containers import Caps
from .decoded import ClipFacts
from .mel import log_mel, mel_frames

Extract = Callable[[Path, MelRecipe, Caps, float | None], ClipMel | ClipSamples | float]

_READS = 2
_COARSEST_CLOCK_NS = 2_500_000_000  # FAT counts modifications in steps of 2 s, ext4 in some milliseconds
_PR_SET_PDEATHSIG = 1
_NO_MEMORY = {"reason": Reason.DECODER_MEMORY, "detail": "more memory needed than the limit allows"}


def extract(path: Path, recipe: MelRecipe, caps: Caps, start_s: float | None = None) -> ClipMel:
    """Compute the audio features of a file.

    Raises
    ------
    ClipError
        As :func:`mgc.pipeline.audio.clips.decode_clip` does, ``NONFINITE`` for samples whose power overflows, and
        ``SOURCE_CHANGED`` for a file that changes during reading.
    """
    clip, source_sha256 = _decode_and_hash(path, recipe, caps, start_s)
    mel = log_mel(clip.samples, recipe)
    if not np.isfinite(mel).all():
        raise ClipError(Reason.NONFINITE, "samples so large that their power overflows")
    frames = mel_frames(clip.n_valid, recipe)
    return ClipMel(mel=mel.astype(np.float16), mel_frames=frames, source_sha256=source_sha256, **_facts(clip))


def extract_samples(path: Path, recipe: MelRecipe, caps: Caps, start_s: float | None = None) -> ClipSamples:
    """Return the audio of a file's clip; raises as :func:`extract` does, without ``NONFINITE`` for the power."""
    clip, source_sha256 = _decode_and_hash(path, recipe, caps, start_s)
    return ClipSamples(samples=clip.samples[: clip.n_valid], source_sha256=source_sha256, **_facts(clip))


def _facts(clip: Clip) -> dict[str, Any]:
    return {field.name: getattr(clip, field.name) for field in dataclasses.fields(ClipFacts)}


def measure(path: Path, recipe: MelRecipe, caps: Caps, start_s: float | None = None) -> float:
    """Return the length of a file's audio in seconds; raises as :func:`mgc.pipeline.audio.clips.decode_clip` does."""
    return audio_seconds(path, caps)


FORMS: dict[str, Extract] = {"mel": extract, "samples": extract_samples, "seconds": measure}


def _decode_and_hash(path: Path, recipe: MelRecipe, caps: Caps, start_s: float | None) -> tuple[Clip, str]:
    """Decode a clip and hash the file; read it a second time if it changes meanwhile.

    A file that was just written may change without a new modification time, so it is hashed before and after.
    """
    for _ in range(_READS):
        state = _state(path)
        try:
            is_fresh = state is not None and time.time_ns() - state[0] < _COARSEST_CLOCK_NS
            before = file_sha256(path) if is_fresh and state is not None and state[1] <= caps.max_bytes else None
            clip = decode_clip(path, recipe, caps, start_s)
            after = file_sha256(path) if before else _sha256_of(path, state)
        except Exception:  # the change of the file may be the cause
            if _state(path) == state:
                raise
            continue
        if _state(path) == state and before in (None, after):
            return clip, after
        _sha256_of.cache_clear()
    raise ClipError(Reason.SOURCE_CHANGED, "the file was written to or replaced while it was read")


def _state(path: Path) -> tuple[int, ...] | None:
    """Return the state of a file: modification time in ns, size and more; None for a missing file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    times = status.st_mtime_ns, status.st_ctime_ns
    return max(times), status.st_size, *times, status.st_ino, status.st_dev


@functools.lru_cache(maxsize=1)
def _sha256_of(path: Path, state: tuple[int, ...] | None) -> str:
    """Hash a file in one state, once for all windows of a song."""
    return file_sha256(path)


def serve(extract: Extract | None = None) -> None:
    """Serve requests until standard input ends, with the function that the parent chooses, or `extract`."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that output of a C library does not mix with the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    message = receive(sys.stdin.buffer)
    if message is None:
        return
    settings: dict[str, Any] = json.loads(message)
    recipe, caps = MelRecipe(**settings["recipe"]), Caps(**settings["caps"])
    limits = ClipLimits(**settings["limits"])
    clips.use_libsndfile = settings["use_libsndfile"]
    extract = extract or FORMS[settings["form"]]
    _die_with(settings["parent"])
    # Private memory only: RLIMIT_AS would count a large source file too, which is mapped and costs no memory.
    _lower(resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS, limits.memory_bytes)
    _lower(resource.RLIMIT_CORE, 0)
    reuse_freed_blocks()
    _answer(answers, {})  # ready
    while (request := receive(sys.stdin.buffer)) is not None:
        _lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + limits.cpu_s))  # the kernel then sends SIGXCPU
        path, _, start = request.partition(b"\0")
        reply, payload = _attempt(extract, Path(os.fsdecode(path)), recipe, caps, float(start) if start else None)
        _answer(answers, reply, payload)


def _attempt(
    extract: Extract, path: Path, recipe: MelRecipe, caps: Caps, start_s: float | None
) -> tuple[dict[str, Any], bytes]:
    try:
        result = extract(path, recipe, caps, start_s)
    except ClipError as error:
        return {"reason": error.reason, "detail": error.detail}, b""
    except (MemoryError, OSError) as error:
        if isinstance(error, MemoryError) or error.errno == errno.ENOMEM:
            return _NO_MEMORY, b""
        cause = os.strerror(error.errno) if error.errno else type(error).__name__
        return {"reason": Reason.SRC_MISSING, "detail": f"cannot be read: {cause}"}, b""
    except Exception as error:
        traceback.print_exc()
        return {"reason": Reason.DECODER_CRASH, "detail": f"the decoder raised {type(error).__name__}"}, b""
    if isinstance(result, float):
        return {"seconds": result}, b""
    fields = dict(vars(result))
    array = fields.pop("samples" if isinstance(result, ClipSamples) else "mel")
    return fields, array.tobytes()


def _answer(answers: BinaryIO, reply: dict[str, Any], payload: bytes = b"") -> None:
    text = json.dumps(reply).encode()
    answers.write(SIZES.pack(len(text), len(payload)) + text + payload)
    answers.flush()


def _die_with(parent: int) -> None:
    """Terminate this process with its parent, also during decoding (Linux); an idle one exits when its input ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def _lower(kind: int, soft: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    serve()
