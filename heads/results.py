"""Convert results to JSON values, for the files of a run and for ``--json``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Result:
    """Base of dataclasses that are written as JSON, field by field."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, in their order, as JSON values."""
        return {item.name: json_value(getattr(self, item.name)) for item in dataclasses.fields(self)}


def json_value(value: Any) -> Any:
    """Return results, arrays, collections and numbers as JSON values; None for NaN and infinity."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
