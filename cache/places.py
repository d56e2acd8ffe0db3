"""Places of stores: local paths, and URLs of object stores (``s3://bucket/songs.zarr``) as paths."""

from __future__ import annotations

import os
import re
from pathlib import Path, PosixPath
from typing import Self

from .errors import ConfigError

SCHEMES = ("s3", "gs", "az")
"""URL schemes of object stores that :mod:`mgc.cache.object_folder` opens."""

_URL = re.compile(r"([a-z][a-z0-9+.]{1,9}):/{1,3}(.*)", re.DOTALL)
_WEB = ("http", "https", "ftp", "file")


class ObjectPath(PosixPath):
    """URL of an object store as a path: ``str`` gives the URL, and no local file has this path."""

    def __str__(self) -> str:
        scheme, *rest = self.parts
        return f"{scheme}//{'/'.join(rest)}"

    def __fspath__(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple[type[ObjectPath], tuple[str, ...]]:
        return type(self), self.parts

    def is_absolute(self) -> bool:
        return True

    def absolute(self) -> Self:
        return self

    def resolve(self, strict: bool = False) -> Self:
        return self


def place(path: str | os.PathLike[str]) -> Path:
    """Return a path, or an :class:`ObjectPath` for the URL of an object store.

    A URL that was a plain ``Path`` before, which merges the slashes after the scheme, is accepted.

    Raises
    ------
    ConfigError
        If it is the URL of another service, or has parts that a URL of a store cannot have.
    """
    if isinstance(path, ObjectPath):
        return path
    text = os.fspath(path)
    match = _URL.fullmatch(text)
    if match is None or match[1] not in (*SCHEMES, *_WEB):
        return Path(text)
    scheme, rest = match[1], match[2].rstrip("/")
    if scheme in _WEB:
        raise ConfigError(
            f"{scheme}://{_without_user(rest)}: mgc does not read {scheme} URLs. Download the file, or use a store at "
            f"{', '.join(f'{name}://' for name in SCHEMES)}."
        )
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise ConfigError(
            f"{scheme}://...: a URL of a store has no user, password, query or fragment. Give credentials in the "
            "environment, and only bucket and path in the URL."
        )
    pieces = rest.split("/")
    if not pieces[0] or not {"", ".", ".."}.isdisjoint(pieces) or "\0" in rest:
        raise ConfigError(f"{scheme}://{rest}: not the URL of a store. Use {scheme}://BUCKET/PATH.")
    return ObjectPath(f"{scheme}:", *pieces)


def web_url(path: str | os.PathLike[str]) -> str | None:
    """Return an ``http`` or ``https`` URL; None for any other path. A ``Path`` merges the slashes after the scheme."""
    match = _URL.fullmatch(os.fspath(path))
    return f"{match[1]}://{match[2]}" if match is not None and match[1] in ("http", "https") else None


def refuse_object_store(
    path: Path, advice: str = "Write to a local folder, then copy the store with `mgc store copy`."
) -> None:
    """Raise ConfigError for the URL of an object store, where a command needs a local path."""
    if isinstance(location := place(path), ObjectPath):
        raise ConfigError(f"{location}: this command needs a local path. {advice}")


def _without_user(rest: str) -> str:
    host, slash, path = rest.partition("/")
    return f"{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
