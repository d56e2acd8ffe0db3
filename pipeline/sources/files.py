"""Files of tracks: below the root of a source, or in an archive or at a URL, of which a copy is made while it is used.

The decoders, which run in a process without network access of its own, read local files only.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ...cache.errors import AccessDeniedError, ClipError, ConfigError, ManifestError, StoreError, StoreNotFoundError
from ...cache.format.schema import Reason
from ...cache.names import find_file
from ...cache.object_folder import ObjectFolder
from ...cache.places import SCHEMES, ObjectPath
from ..audio.containers import Caps
from .archives import open_archive, split_archive

URL_SCHEMES = (*SCHEMES, "http", "https")
DEADLINE_S = 300.0
"""Time for the download of a file, with all retries."""


def is_url(path: str) -> bool:
    """Return whether the path of a track is a URL that mgc reads."""
    return path.partition("://")[0] in URL_SCHEMES and "://" in path


def url_problem(path: str) -> str | None:
    """Return why a URL is refused, without quoting it, as it may contain a secret; None if it is fine."""
    parts = urlsplit(path)
    if "@" in parts.netloc or parts.query or parts.fragment:
        return (
            "a URL with user, password, query or fragment, which a store would keep. Give credentials in the "
            "environment, and only host and path in the URL"
        )
    if not parts.netloc or not unquote(parts.path).strip("/"):
        return f"{path!r} is not the URL of a file"
    return None


@contextmanager
def local_file(root: Path, path: str, max_bytes: int = Caps.max_bytes) -> Iterator[Path]:
    """Yield the file of a track; of a URL or in an archive a temporary copy, deleted at the end of the ``with`` block.

    Parameters
    ----------
    path : relative to `root`, maybe through an archive (:mod:`mgc.pipeline.sources.archives`), or a URL.
    max_bytes : limit of the copy.

    Raises
    ------
    ClipError
        As :func:`resolve_inside` and :meth:`Archive.copy` do. For a URL: ``SRC_MISSING``, ``SRC_DENIED``,
        ``SRC_TIMEOUT`` (no complete answer within :data:`DEADLINE_S`, or errors of the server at each attempt) or
        ``TOO_LARGE``.
    MissingExtraError, ConfigError
        If no URL can be read: obstore is missing, or the environment lacks a setting of the service.
    """
    packed = None
    if is_url(path):
        if (fault := url_problem(path)) is not None:
            raise ConfigError(f"{fault}.")
    elif (packed := split_archive(root, path)) is None:
        yield resolve_inside(root, path)
        return
    with tempfile.TemporaryDirectory(prefix="mgc-copy-") as folder:
        target = Path(folder, f"file{PurePosixPath(path).suffix[:8]}")
        if packed is None:
            _download(path, target, max_bytes)
        else:
            _unpack(root, *packed, target, max_bytes)
        yield target


def _unpack(root: Path, archive: str, name: str, target: Path, max_bytes: int) -> None:
    path = resolve_inside(root, archive)
    try:
        opened = open_archive(path)
    except ManifestError as error:
        raise ClipError(Reason.BAD_HEADER, str(error)) from error
    opened.copy(name, target, max_bytes)


def _download(url: str, target: Path, max_bytes: int) -> None:
    parts = urlsplit(url)
    key = parts.path if parts.scheme in SCHEMES else unquote(parts.path)
    try:
        _host(parts.scheme, parts.netloc).download(key.lstrip("/"), target, max_bytes, DEADLINE_S)
    except StoreNotFoundError as error:
        raise ClipError(Reason.SRC_MISSING, f"not found: {url}") from error
    except AccessDeniedError as error:
        raise ClipError(Reason.SRC_DENIED, f"access denied: {url}") from error
    except TimeoutError as error:
        raise ClipError(Reason.SRC_TIMEOUT, f"not downloaded within {DEADLINE_S:g} s: {url}") from error
    except OverflowError as error:
        raise ClipError(Reason.TOO_LARGE, f"{error} bytes; the limit is {max_bytes}: {url}") from error
    except StoreError as error:
        raise ClipError(Reason.SRC_TIMEOUT, f"no answer as expected, also after retries: {url}") from error


@functools.lru_cache(maxsize=16)
def _host(scheme: str, name: str) -> ObjectFolder:
    """Return the client of a bucket or a web server, which keeps its connections."""
    return ObjectFolder(ObjectPath(f"{scheme}:", name))


def resolve_inside(root: Path, relative: str) -> Path:
    """Return the path of a track's file after checking that it is inside `root`, with symbolic links resolved.

    Raises
    ------
    ClipError
        ``PATH_ESCAPE`` for an absolute path, one that leaves `root` (also through a link), or one with NUL;
        ``SRC_MISSING`` for circular links, a name that is too long, or a folder without access permission. A
        missing file raises nothing; opening it will fail.
    """
    name = f"path {relative!r}"
    if "\0" in relative or relative.startswith("/"):
        raise ClipError(Reason.PATH_ESCAPE, f"{name} is not relative to the source's root")
    path = find_file(root, relative)
    try:
        inside = path.resolve().is_relative_to(root.resolve())
        if inside:
            path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, RuntimeError) as error:
        raise ClipError(Reason.SRC_MISSING, f"{name} cannot be followed to a file") from error
    if not inside:
        raise ClipError(Reason.PATH_ESCAPE, f"{name} leaves the source's root")
    return path
