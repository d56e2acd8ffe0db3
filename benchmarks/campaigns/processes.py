"""Start and kill `mgc` processes for trials, with start-up code or on a disk that is too small."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


def start(*arguments: object, env: dict[str, str] | None = None, folder: Path | None = None) -> subprocess.Popen[bytes]:
    """Start ``mgc ARGUMENTS`` as the leader of its own process group, in `folder`, with `env` added to os.environ."""
    return subprocess.Popen(
        [sys.executable, "-m", "mgc", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=folder,
        env={**os.environ, **(env or {})},
    )


def output(process: subprocess.Popen[bytes], timeout_s: float = 300) -> bytes:
    """Return the standard output of a process; assert that it succeeds."""
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, err.decode()[-2000:]
    return out


def run_first(folder: Path, code: str) -> dict[str, str]:
    """Write `code` to a new folder; return the environment variable that makes Python processes run it at start-up."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def kill_group(process: subprocess.Popen[bytes]) -> bool:
    """Send SIGKILL to a process group; return False if the process had already exited."""
    alive = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def missing() -> str:
    """Return why this process cannot mount file systems, or an empty string."""
    return "" if os.geteuid() == 0 else "only root can mount file systems"


@contextlib.contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Callable[[], None]]:
    """Mount a tmpfs of `kib` KiB at a new folder; yield a function that enlarges it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=256m", folder], check=True) and None
    finally:
        subprocess.run(["umount", folder], check=True)
        shutil.rmtree(folder)


def full_disk_error(process: subprocess.Popen[bytes], timeout_s: float) -> str | None:
    """Return the error of a process that ended because its disk is full; None if it succeeded."""
    _, err = process.communicate(timeout=timeout_s)
    if process.returncode == 0:
        return None
    assert process.returncode == 2, err.decode()[-2000:]
    assert b"No space left on device" in err, err.decode()[-2000:]
    return err.decode()
