"""Where training runs and in which precision, and how much memory is there for cached features."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from ..cache.errors import ConfigError, MgcError, TrainingError
from ..cache.machine import cpu_has_bf16, environment, keep_freed_memory

ROOMY_BYTES = 8 * 2**30
"""Free memory above which a step may take half as much again; one of 16 clips of 30 s takes 1.4 GB."""

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_share_bytes = sys.maxsize


def resolve_device(wanted: str) -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU.

    Raises
    ------
    ConfigError
        If CUDA is asked for and not there.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(f"device={wanted}: torch sees no CUDA device here; use auto or cpu")
    return torch.device("cuda", torch.cuda.current_device())


def resolve_precision(wanted: str, device: torch.device) -> str:
    """``auto`` is bf16 where the device multiplies bf16 natively, else fp32."""
    if wanted != "auto":
        return wanted
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_bf16()
    return "bf16" if native else "fp32"


def machine(device: torch.device, precision: str) -> dict[str, str | int]:
    """Return what the last bits of computed weights depend on, besides the code."""
    setting: dict[str, str | int] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
        "precision": precision,
    }
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        name = torch.cuda.get_device_name(device)
        setting |= {"device": name, "cuda": str(torch.version.cuda), "cudnn": cudnn or 0}
    return setting


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Torch's deterministic algorithms only; does nothing unless `wanted`.

    Raises
    ------
    TrainingError
        If torch has no deterministic form of an operation on this device.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cublas = {_CUBLAS: os.environ.get(_CUBLAS, ":4096:8")}  # else cuBLAS may choose by what else is running
    cudnn = torch.backends.cudnn
    torch.use_deterministic_algorithms(True)
    try:
        with (
            environment(cublas),
            cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32),
        ):
            yield
    except RuntimeError as error:
        if isinstance(error, MgcError) or "deterministic" not in str(error):
            raise
        raise TrainingError(f"deterministic: {error}; train without it, or on another device") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextlib.contextmanager
def reused_memory(device: torch.device) -> Iterator[None]:
    """On a CPU each step takes the memory that the last one gave back, where there is room for the gaps that it leaves.

    docs/design/008-speed.md has what that is worth, and what it takes.
    """
    with keep_freed_memory(device.type == "cpu" and free_bytes(device) >= ROOMY_BYTES):
        yield


@contextlib.contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Where models that are to be compiled run; does nothing unless `wanted`.

    Raises
    ------
    TrainingError
        If torch cannot compile here, such as where it finds no compiler.
    """
    try:
        yield
    except RuntimeError as error:
        if not wanted or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"compile: torch cannot compile the model here ({reason}); train without it") from error


def free_bytes(device: torch.device) -> int:
    """Memory that features may still take on the device: CUDA's own count, or what the system and cgroup leave us.

    Of the host's, no more than :func:`take_at_most` allows.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _system_available_bytes()
    limit, used = (_cgroup_bytes(name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free = min(free, max(0, limit - used))
    return min(free, _share_bytes)


def take_at_most(n_bytes: int) -> None:
    """This process's share of the host's memory, where several train side by side and each would count all of it."""
    global _share_bytes  # a process has one
    _share_bytes = n_bytes


def _system_available_bytes() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _cgroup_bytes(name: str) -> int | None:
    try:
        return int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
