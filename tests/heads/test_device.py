"""Devices and precisions asked for are had or refused; `auto` takes what is there."""

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


def test_auto_takes_cuda_where_torch_sees_it_and_cuda_is_refused_where_not() -> None:
    if torch.cuda.is_available():
        assert resolve_device("auto").type == resolve_device("cuda").type == "cuda"
    else:
        assert resolve_device("auto") == CPU
        with pytest.raises(ConfigError, match="device=cuda"):
            resolve_device("cuda")
    assert resolve_device("cpu") == CPU


def test_auto_precision_is_bf16_only_where_the_cpu_multiplies_it() -> None:
    assert resolve_precision("auto", CPU) == ("bf16" if cpu_has_bf16() else "fp32")
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_free_memory_is_some_and_no_more_than_there_is() -> None:
    assert 0 < free_bytes(CPU) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("place", "free", "kept"),
    [("cpu", ROOMY_BYTES, True), ("cpu", ROOMY_BYTES - 1, False), ("cuda", 2 * ROOMY_BYTES, False)],
)
def test_memory_is_kept_between_steps_on_a_cpu_with_room_for_it(
    place: str, free: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    @contextlib.contextmanager
    def noted(wanted: bool) -> Iterator[None]:
        said.append(wanted)
        yield

    monkeypatch.setattr(device, "free_bytes", lambda _: free)
    monkeypatch.setattr(device, "keep_freed_memory", noted)
    with reused_memory(torch.device(place)):
        assert said == [kept]
