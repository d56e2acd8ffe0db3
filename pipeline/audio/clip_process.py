"""A decoding process: pipes, messages, termination.

A message has two unsigned 32-bit sizes, JSON, and raw bytes. A request has the raw path in place of JSON, and after a
NUL, an optional start of the clip in seconds. Nothing is pickled, and no shell is used.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import struct
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any, BinaryIO

from ...cache.distribution import explain_missing_extra
from ...cache.errors import MgcError, MissingExtraError
from ...cache.machine import ONE_THREAD

SIZES = struct.Struct(">II")
"""Sizes of a message's JSON and payload."""

Answer = tuple[dict[str, Any], bytearray]
"""JSON and payload of an answer; the payload has this machine's byte order and is not reused."""

_START_WALL_S = 300.0
_STOP_WALL_S = 5.0
_STDERR_BYTES = 8192


class DecoderDiedError(Exception):
    """The child exited without an answer; `timed_out` if a deadline ended it."""

    def __init__(self, returncode: int, *, timed_out: bool) -> None:
        super().__init__(f"exit status {returncode}")
        self.returncode = returncode
        self.timed_out = timed_out or returncode == -getattr(signal, "SIGXCPU", signal.SIGTERM)


class Child:
    """A decoding process and its three pipes; it ends with `owner`, a reader that may never be closed."""

    def __init__(self, command: tuple[str, ...], settings: dict[str, Any], *, owner: object) -> None:
        search_path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": search_path, "PYTHONFAULTHANDLER": "1"},
        )
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self._stdin, self._stderr = stdin, stderr
        self._answers, self._stderr_tail = bytearray(), b""
        self._selector = selectors.DefaultSelector()
        for pipe in (stdout, stderr):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ)
        self._ready = False
        self._finalizer = weakref.finalize(owner, self._stop)
        with contextlib.suppress(BrokenPipeError):  # the first `ask` reports a child that cannot start
            self._send(json.dumps(settings).encode())

    @property
    def stderr_tail(self) -> str:
        return self._stderr_tail.decode("utf-8", "replace")

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: bytes, wall_s: float) -> Answer:
        if not self._ready:
            try:
                self._receive(_START_WALL_S)
            except DecoderDiedError as death:
                raise _cannot_start(death, self.stderr_tail) from None
            self._ready = True
        self._stderr_tail = b""
        try:
            self._send(request)
        except BrokenPipeError:
            raise self._died(timed_out=False) from None
        return self._receive(wall_s)

    def stop(self) -> None:
        self._finalizer()

    def _stop(self) -> None:
        with self._process:  # closes the pipes, and waits
            self._selector.close()
            self._stdin.close()  # the end of its input is the end of the child
            try:
                self._process.wait(_STOP_WALL_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def kill(self) -> None:
        """Kill the child, also during decoding."""
        self._process.kill()
        self.stop()

    def _keep_stderr(self, chunk: bytes) -> None:
        self._stderr_tail = (self._stderr_tail + chunk)[-_STDERR_BYTES:]

    def _send(self, request: bytes) -> None:
        message = SIZES.pack(len(request), 0) + request
        while message:
            message = message[self._stdin.write(message) or 0 :]

    def _receive(self, wall_s: float) -> Answer:
        deadline = time.monotonic() + wall_s
        while (answer := self._pop_answer()) is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise self._died(timed_out=True)
            for key, _ in self._selector.select(left_s):
                chunk = os.read(key.fd, 1 << 20)
                if key.fileobj is self._stderr:
                    self._keep_stderr(chunk)
                    if not chunk:
                        self._selector.unregister(key.fileobj)
                elif chunk:
                    self._answers += chunk
                else:
                    raise self._died(timed_out=False)
        return answer

    def _pop_answer(self) -> Answer | None:
        """Remove and return the first complete answer of the received bytes; None if there is none yet."""
        if len(self._answers) < SIZES.size:
            return None
        n_json, n_payload = SIZES.unpack_from(self._answers)
        end = SIZES.size + n_json + n_payload
        if len(self._answers) < end:
            return None
        text, payload = self._answers[SIZES.size : SIZES.size + n_json], self._answers[SIZES.size + n_json : end]
        del self._answers[:end]
        return json.loads(text), payload

    def _died(self, *, timed_out: bool) -> DecoderDiedError:
        self._finalizer.detach()
        with self._process:  # closes the pipes
            if not timed_out:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_STOP_WALL_S)
            self._process.kill()
            returncode = self._process.wait()
            self._keep_stderr(self._stderr.read() or b"")
            self._selector.close()
        return DecoderDiedError(returncode, timed_out=timed_out)


def _cannot_start(death: DecoderDiedError, stderr_tail: str) -> MgcError:
    last_line = stderr_tail.strip().rpartition("\n")[2]
    if match := re.match(r"ModuleNotFoundError: No module named '([^']*)'", last_line):
        return MissingExtraError(explain_missing_extra("extract", match[1]))
    return MgcError(f"the decoding process does not start ({death}). Its output:\n{stderr_tail}")


def receive(source: BinaryIO) -> bytes | None:
    """Read the JSON or path of the next message to the child; None at the end of the input."""
    sizes = source.read(SIZES.size)
    if not sizes or len(sizes) < SIZES.size:
        return None
    return source.read(SIZES.unpack(sizes)[0])
