""":mod:`mgc.api`, imported on the first call of a command, so that ``mgc --help`` is fast."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    return getattr(importlib.import_module("..api", __package__), name)
