"""Count the operations of a training step on a device: kernels, views, and waits of the host for a value."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

_NO_KERNEL = ("_unsafe_view", "detach", "lift_fresh", "empty", "new_empty", "promote_types", "scalar_tensor")
"""Operations that move no data on a device: views, allocations, and scalars of the host."""
_WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")


class KernelCount(TorchDispatchMode):
    """Context that counts the operations below autograd. Most are one kernel, few are several.

    Attributes
    ----------
    kernels, views, waits : number of calls by name of the operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.views: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::")
        if name in _WAITS:
            self.waits[name] += 1
        elif func.is_view or name.startswith(_NO_KERNEL):
            self.views[name] += 1
        else:
            self.kernels[name] += 1
        return func(*args, **(kwargs or {}))
