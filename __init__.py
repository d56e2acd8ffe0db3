"""mgc: multi-label music genre classification from audio and lyrics, and a feature store.

Importing ``mgc`` imports nothing heavy; what needs torch, librosa or dask is imported on first use. What the commands
do, as functions, is in ``mgc.api``.

Examples
--------
>>> import mgc
>>> store = mgc.open("songs.zarr")
>>> test = store.sel(split="test", genre="jazz")
>>> test["mel"][0].dtype
dtype('float16')
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .cache.distribution import __version__

__all__ = [
    "Extractor",
    "Model",
    "StoreView",
    "__version__",
    "api",
    "load_model",
    "open",
    "to_dask",
    "to_torch",
    "to_xarray",
]

if TYPE_CHECKING:
    from . import api
    from .api import Model, load_model, to_dask, to_torch, to_xarray
    from .cache.reading.view import StoreView
    from .cache.reading.view import open_store as open  # noqa: A004
    from .pipeline.extractors.extractor import Extractor

_WHERE = {
    "open": ("cache.reading.view", "open_store"),
    "StoreView": ("cache.reading.view", "StoreView"),
    "Extractor": ("pipeline.extractors.extractor", "Extractor"),
    **{name: ("api", name) for name in ("Model", "load_model", "to_dask", "to_torch", "to_xarray")},
}


def __getattr__(name: str) -> Any:
    if name == "api":
        return importlib.import_module(".api", __name__)
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(importlib.import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
