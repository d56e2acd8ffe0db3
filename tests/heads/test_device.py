"""Devices and precisions asked for are had or refused; `auto` takes what is there."""

from __future__ import annotations

import os

import pytest
import torch

from mgc.cache.errors import ConfigError
from mgc.cache.processor import cpu_has_bf16
from mgc.heads.device import free_bytes, resolve_device, resolve_precision

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
