"""Test the selection of device and precision, and the measurement of free memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
import torch

from mgc.cache.errors import ConfigError
from mgc.cache.machine import cpu_has_bf16
from mgc.heads import device
from mgc.heads.device import ROOMY_BYTES, free_bytes, resolve_device, resolve_precision, reused_memory

CPU = torch.device("cpu")


def test_auto_selects_cuda_if_available_and_cuda_is_refused_otherwise() -> None:
    if torch.cuda.is_available():
        assert resolve_device("auto").type == resolve_device("cuda").type == "cuda"
    else:
        assert resolve_device("auto") == CPU
        with pytest.raises(ConfigError, match="device=cuda"):
            resolve_device("cuda")
    assert resolve_device("cpu") == CPU


def test_auto_precision_is_bf16_only_on_cpus_with_native_bf16() -> None:
    assert resolve_precision("auto", CPU) == ("bf16" if cpu_has_bf16() else "fp32")
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_free_memory_is_positive_and_at_most_the_physical_memory() -> None:
    assert 0 < free_bytes(CPU) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("device_type", "free", "kept"),
    [("cpu", ROOMY_BYTES, True), ("cpu", ROOMY_BYTES - 1, False), ("cuda", 2 * ROOMY_BYTES, False)],
)
def test_freed_memory_is_kept_on_cpus_with_enough_room(
    device_type: str, free: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    @contextlib.contextmanager
    def record(enabled: bool) -> Iterator[None]:
        calls.append(enabled)
        yield

    monkeypatch.setattr(device, "free_bytes", lambda _: free)
    monkeypatch.setattr(device, "keep_freed_memory", record)
    with reused_memory(torch.device(device_type)):
        assert calls == [kept]
