"""Select device and precision, and measure the memory available for cached features."""

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
"""Free memory, in bytes, above which a training step may use 1.5 times the memory for speed.

A step of 16 clips of 30 s takes 1.4 GB.
"""

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_share_bytes = sys.maxsize


def resolve_device(name: str) -> torch.device:
    """Return the device for ``cpu``, ``cuda`` or ``auto``: the current CUDA device if there is one, else the CPU.

    Raises
    ------
    ConfigError
        If ``cuda`` is given and torch has no CUDA device.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(f"device={name}: torch has no CUDA device. Use auto or cpu.")
    return torch.device("cuda", torch.cuda.current_device())


def resolve_precision(name: str, device: torch.device) -> str:
    """Return the precision; for ``auto``, bf16 if the device multiplies bf16 natively, else fp32."""
    if name != "auto":
        return name
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_bf16()
    return "bf16" if native else "fp32"


def machine(device: torch.device, precision: str) -> dict[str, str | int]:
    """Return the hardware and settings that the last bits of computed weights depend on, besides the code."""
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
def deterministic(enabled: bool) -> Iterator[None]:
    """Restrict torch to deterministic algorithms, if `enabled`.

    Raises
    ------
    TrainingError
        If torch has no deterministic algorithm for an operation on this device.
    """
    if not enabled:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cublas = {_CUBLAS: os.environ.get(_CUBLAS, ":4096:8")}  # otherwise cuBLAS may choose its algorithm by load
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
        raise TrainingError(f"deterministic: {error}. Train without --deterministic, or on another device.") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextlib.contextmanager
def reused_memory(device: torch.device) -> Iterator[None]:
    """Keep freed memory for the next training step on a CPU, if there is room for the fragmentation.

    Gain and cost are in docs/design/008-speed.md.
    """
    with keep_freed_memory(device.type == "cpu" and free_bytes(device) >= ROOMY_BYTES):
        yield


@contextlib.contextmanager
def compiling(enabled: bool) -> Iterator[None]:
    """Turn failures of ``torch.compile`` into an error with a hint, if `enabled`.

    Raises
    ------
    TrainingError
        If torch cannot compile the model, for example without a C++ compiler.
    """
    try:
        yield
    except RuntimeError as error:
        if not enabled or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"compile: torch cannot compile the model ({reason}). Train without compile.") from error


def free_bytes(device: torch.device) -> int:
    """Return the free memory of the device in bytes; of the host, within the limits of cgroup and `take_at_most`."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _system_available_bytes()
    limit, used = (_cgroup_bytes(name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free = min(free, max(0, limit - used))
    return min(free, _share_bytes)


def take_at_most(n_bytes: int) -> None:
    """Limit the host memory of this process to a share, for several processes that train on one host."""
    global _share_bytes
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
