"""When, how and with what a run was trained: an entry of ``run.json`` each time it was started or resumed."""

from __future__ import annotations

import contextlib
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..cache.errors import RunError
from ..cache.format.layout import library_versions
from .checkpoint import read_sealed

LIBRARIES = ("mgc", "torch", "numpy")
"""What computes."""


def this_session(*, epoch: int, device: torch.device, precision: str) -> dict[str, Any]:
    """JSON values of the training that begins now after `epoch` epochs: time, command line, versions, where."""
    known = library_versions()
    return {
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "after_epoch": epoch,
        "command": command_line(),
        "versions": {"python": platform.python_version()} | {name: known[name] for name in LIBRARIES if name in known},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "precision": precision,
        "n_threads": torch.get_num_threads(),
    }


def command_line() -> str:
    """What this process was started with, without the folder that its program lies in."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])


def earlier_sessions(run: Path) -> list[dict[str, Any]]:
    """Those of the run before now; none where its ``run.json`` is missing, damaged or older than they are."""
    with contextlib.suppress(RunError, OSError):
        return list(read_sealed(run / "run.json").get("sessions", []))
    return []
