"""What every function of the API takes or needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..cache.errors import MissingExtraError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports that an optional part of mgc brings; a missing one is reported by the name of the extra."""
    try:
        yield
    except ImportError as error:
        missing = error.name or str(error)
        raise MissingExtraError(f"{missing} is not installed; run: pip install 'mgc[{name}]'") from error
