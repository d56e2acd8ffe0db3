"""Read and write the objects below one URL of an object store, through ``obstore`` (extra ``cloud``).

Credentials come from the environment only (``AWS_ACCESS_KEY_ID`` etc., instance roles): none is an argument, and no
message contains one.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from .distribution import explain_missing_extra
from .errors import (
    AccessDeniedError,
    ConfigError,
    MgcError,
    MissingExtraError,
    StoreCorruptError,
    StoreError,
    StoreNotFoundError,
)
from .places import ObjectPath

CONNECTIONS = 16
"""Requests at the same time."""

_RETRIES, _RETRY_S, _REQUEST_S, _CONNECT_S = 4, 60, 60, 10
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (AWS_SKIP_SIGNATURE=true for a public bucket)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "http": "the URL: no credentials are sent",
    "https": "the URL: no credentials are sent",
}
_SETTINGS = {
    "http": "the URL",
    "https": "the URL",
    "s3": "AWS_ENDPOINT_URL and AWS_REGION",
    "gs": "the network",
    "az": "AZURE_STORAGE_ACCOUNT_NAME",
}

_process: list[int] = []
"""Process that has opened the first folder: the threads of obstore do not survive a fork."""


class _BrokenOffError(StoreError):
    """An answer ended too early."""


class _ExistsError(StoreError):
    """The object to create exists."""


Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Listed:
    """An object in a listing: its size in bytes, its entity tag, and the time of its last change, of the service."""

    size: int
    tag: str | None
    changed: datetime = field(compare=False)


class ObjectFolder:
    """The objects below one URL; keys are relative to it. Thread-safe.

    Raises
    ------
    MissingExtraError
        If ``obstore`` is not installed.
    ConfigError
        If the environment lacks a setting that the service needs.
    """

    def __init__(self, url: ObjectPath) -> None:
        try:
            import obstore.store
        except ImportError as error:
            raise MissingExtraError(f"{url}: {explain_missing_extra('cloud', error.name or 'obstore')}") from error
        _process[:] = _process or [os.getpid()]
        self.url, self._scheme = url, url.parts[0].rstrip(":")
        self._obstore: Any = obstore  # its types are not always installed
        options: dict[str, Any] = {"timeout": f"{_REQUEST_S}s", "connect_timeout": f"{_CONNECT_S}s"}
        if self._scheme == "http" or any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS):
            options["allow_http"] = True
        settings = {"checksum_algorithm": "SHA256"} if self._scheme == "s3" else {}  # the service compares it
        retries: Any = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)}
        with self._errors(""):
            self._store: Any = self._obstore.store.from_url(
                str(url), client_options=options, retry_config=retries, **settings
            )

    def listing(self, folder: str | None = None) -> dict[str, Listed]:
        """Return all objects, or those of one folder, by key."""
        items = self._call("", lambda: [item for batch in self._obstore.list(self._store, folder) for item in batch])
        return {item["path"]: _listed(item) for item in items}

    def find(self, key: str) -> Listed | None:
        """Return size and time of an object; None if there is none."""
        with suppress(StoreNotFoundError):
            return _listed(self._call(key, lambda: self._obstore.head(self._store, key)))
        return None

    def get_if_there(self, key: str) -> bytes | None:
        """Return the content of an object; None if there is none."""
        with suppress(StoreNotFoundError):
            return self.get(key)
        return None

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        return self._call(key, lambda: bytes(self._obstore.get(self._store, key).bytes()))

    def get_ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of an object from start to stop, for each span; near spans share one request.

        Raises
        ------
        StoreCorruptError
            If the object is shorter.
        """
        starts, stops = [start for start, _ in spans], [stop for _, stop in spans]
        pieces = self._call(key, lambda: self._obstore.get_ranges(self._store, key, starts=starts, ends=stops))
        read = [bytes(piece) for piece in pieces]
        if [len(piece) for piece in read] != [stop - start for start, stop in spans]:
            raise StoreCorruptError(f"{self.url}/{key}: truncated. Copy the store again.")
        return read

    def download(self, key: str, target: Path, max_bytes: int, deadline_s: float) -> None:
        """Write an object to a new file; after an answer that breaks off, start again.

        Raises
        ------
        OverflowError
            If it has more than `max_bytes`.
        TimeoutError
            If it takes longer than `deadline_s`.
        """
        stop = time.monotonic() + deadline_s

        def write() -> None:
            answer = self._obstore.get(self._store, key)
            if answer.meta["size"] > max_bytes:
                raise OverflowError(answer.meta["size"])
            with target.open("wb") as file:
                for chunk in answer.stream():
                    if time.monotonic() > stop:
                        raise TimeoutError(key)
                    file.write(chunk)

        self._call(key, write)

    def put(self, key: str, data: bytes) -> None:
        """Write an object; replace an earlier one."""
        self._call(key, lambda: self._obstore.put(self._store, key, data))

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object on condition that there is none (``If-None-Match: *``).

        Returns
        -------
        bool
            False if the service refused. The object may still be this one: the answer to a first attempt may be lost.
        """
        with suppress(_ExistsError):
            self._call(key, lambda: self._obstore.put(self._store, key, data, mode="create", use_multipart=False))
            return True
        return False

    def copy(self, source: str, target: str) -> bool:
        """Copy an object inside the service, over an earlier one; return False if there is no `source`."""
        with suppress(StoreNotFoundError):
            self._call(source, lambda: self._obstore.copy(self._store, source, target))
            return True
        return False

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; some may not exist."""
        with suppress(StoreNotFoundError):
            if keys:
                self._call("", lambda: self._obstore.delete(self._store, list(keys)))

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Convert errors of obstore into errors of mgc: what is wrong, where, what to do."""
        if _process != [os.getpid()]:  # a request would wait forever
            raise ConfigError(
                f"{self.url}: a forked process cannot read an object store. Start worker processes with the method "
                "spawn (torch: DataLoader(..., multiprocessing_context='spawn'))."
            )
        try:
            yield
        except FileNotFoundError as error:
            raise StoreNotFoundError(f"{self._place(key)}: no such object. Check bucket and path.") from error
        except PermissionError as error:
            raise self._denied(key) from error
        except self._obstore.exceptions.BaseError as error:
            raise self._explain(error, key) from error

    def _call(self, key: str, request: Callable[[], Result]) -> Result:
        """Call a function of obstore, which repeats requests that fail; repeat it where an answer breaks off."""
        for attempt in range(_RETRIES):
            try:
                with self._errors(key):
                    return request()
            except _BrokenOffError:
                time.sleep(0.1 * 2**attempt)
        with self._errors(key):
            return request()

    def _explain(self, error: Exception, key: str) -> StoreError | ConfigError:
        exceptions, text = self._obstore.exceptions, str(error)
        if "<Code>NoSuchBucket" in text or "ContainerNotFound" in text:
            bucket = "/".join(str(self.url).split("/")[:3])
            return StoreNotFoundError(f"{bucket}: no such bucket. Check its name, {_SETTINGS[self._scheme]}.")
        if isinstance(error, exceptions.NotFoundError) or "404 Not Found" in text:
            return StoreNotFoundError(f"{self._place(key)}: no such object. Check bucket and path.")
        refused = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
        if isinstance(error, refused) or re.search(r"40[13] (Unauthorized|Forbidden)", text):
            return self._denied(key)
        if "169.254.169.254" in text or "metadata.google" in text or "must be specified" in text:
            return ConfigError(f"{self._place(key)}: no credentials in the environment. Set {self._variables}.")
        if isinstance(error, exceptions.AlreadyExistsError):
            return _ExistsError(f"{self._place(key)}: exists already.")
        if "416 Range" in text or "end of file" in text.lower():
            return StoreCorruptError(f"{self._place(key)}: truncated. Copy the store again.")
        kind = _BrokenOffError if "body error" in text else StoreError
        return kind(
            f"{self._place(key)}: the object store does not answer as expected ({_summary(text)}). Check the network "
            f"and {_SETTINGS[self._scheme]}, then run the command again."
        )

    def _denied(self, key: str) -> StoreError:
        return AccessDeniedError(f"{self._place(key)}: access denied. Check {self._variables}.")

    @property
    def _variables(self) -> str:
        return _CREDENTIALS[self._scheme]

    def _place(self, key: str) -> str:
        return f"{self.url}/{key}" if key else str(self.url)


@contextmanager
def errors_at(url: ObjectPath, folder: Path, advice: Callable[[str], str] = str) -> Iterator[None]:
    """Replace the local folder of a remote store by its URL in messages of errors, and then their advice."""
    try:
        yield
    except MgcError as error:
        if str(folder) not in str(error):
            raise
        raise type(error)(advice(str(error).replace(str(folder), str(url)))) from error


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], n: int = CONNECTIONS) -> Iterator[Result]:
    """Yield the results of a function in the order of `items`, computed in threads; an error cancels the rest."""
    with ThreadPoolExecutor(n, thread_name_prefix="mgc-objects") as executor:
        futures = [executor.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _listed(item: Mapping[str, Any]) -> Listed:
    return Listed(item["size"], item["e_tag"], item["last_modified"])


def _summary(text: str) -> str:
    """Return the first line of an error without addresses, which may contain a signature."""
    line = text.partition("\n")[0]
    line = re.sub(r"https?://\S+", "URL", line)
    return re.sub(r"<[^>]*>", " ", line)[:200].strip()
