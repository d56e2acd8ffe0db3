"""A temporary local folder that stands for a store in an object store, so that all code for local stores reads it.

Every listed object is a file of the right size. Records and tables have their content; other files are sparse, without
content, until :meth:`Mirror.fetch` downloads them. A file without content does not match its checksum.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from ..durable import inside, make_folders, unseal_bytes
from ..errors import StoreCorruptError, StoreNotFoundError
from ..format.documents import is_record_key
from ..format.plan import PLAN_FILE, generation_key
from ..format.records import STAGING, labels_to_keys
from ..object_folder import Listed, ObjectFolder, errors_at, in_threads
from ..places import ObjectPath

_AT_ONCE = re.compile(r"plan\.json|(?:generations|features|drops|tracks|genres)/.*|rows/[0-9]+\.parquet")
"""Objects that every command reads."""

_REPAIR = re.compile(r"[Rr]un `mgc store repair[^`]*`( to build it again)?")

_open: dict[ObjectPath, Mirror] = {}


class Mirror:
    """Files for the objects that were listed when the mirror was made.

    Attributes
    ----------
    url : of the store.
    folder : the local folder, removed at the end of the process.
    listing : key -> size and entity tag.
    objects : the objects themselves.
    """

    def __init__(self, objects: ObjectFolder, listing: dict[str, Listed]) -> None:
        self.url, self.objects, self.listing = objects.url, objects, listing
        if PLAN_FILE not in listing or generation_key(0) not in listing:
            raise StoreNotFoundError(
                f"{self.url}: not a feature store (no {PLAN_FILE}). Check the URL, or repeat an interrupted "
                "`mgc extract` or `mgc store copy`. A sealed store (.h5) is read from a local copy."
            )
        self.folder = Path(tempfile.mkdtemp(prefix="mgc-mirror-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._fetched: set[str] = set()
        try:
            for key, listed in listing.items():
                self._blank(key, listed.size)
        except OSError as error:  # a key that is also a folder, or a name that is too long
            raise StoreCorruptError(f"{self.url}: its keys are not those of a store ({error})") from error
        self.fetch(key for key in listing if _AT_ONCE.fullmatch(key) and is_record_key(key))

    @classmethod
    def open(cls, url: ObjectPath) -> Mirror:
        """Return a mirror of the objects that exist now; a process makes a new one only where they have changed."""
        objects = ObjectFolder(url)
        listing = _installed(objects, objects.listing())
        mirror = _open.get(url)
        if mirror is None or mirror.listing != listing:
            mirror = _open[url] = cls(objects, listing)
        mirror.objects = objects  # with the settings that the environment has now
        return mirror

    def fetch(self, keys: Iterable[str]) -> None:
        """Download the content of objects; skip what is there, and keys that are not listed."""
        missing = [key for key in keys if key in self.listing and key not in self._fetched]
        for key in in_threads(self._download, missing) if missing else ():
            self._fetched.add(key)

    def fetch_below(self, prefix: str) -> None:
        """Download the objects whose keys start with `prefix`."""
        self.fetch(key for key in self.listing if key.startswith(prefix))

    def release(self, keys: Iterable[str]) -> None:
        """Remove the content of objects again, so that the folder stays small."""
        for key in keys:
            if key in self._fetched:
                self._fetched.remove(key)
                (self.folder / key).unlink()
                self._blank(key, self.listing[key].size)

    def errors(self) -> AbstractContextManager[None]:
        """Replace the local folder by the URL in messages of errors, and advice that needs a local store."""
        return errors_at(
            self.url, self.folder, functools.partial(_REPAIR.sub, "Copy the store again with `mgc store copy`")
        )

    def _download(self, key: str) -> str:
        data = self.objects.get(key)
        if len(data) != self.listing[key].size:
            raise StoreCorruptError(f"{self.url}/{key}: changed since it was listed. Open the store again.")
        draft = self.folder / f".{len(self._fetched)}.{abs(hash(key))}.partial"
        draft.write_bytes(data)
        draft.replace(self.folder / key)
        return key

    def _blank(self, key: str, size: int) -> None:
        path = inside(self.folder, key)
        make_folders(self.folder, key)
        with path.open("xb") as file:
            file.truncate(size)


def _installed(objects: ObjectFolder, listing: dict[str, Listed]) -> dict[str, Listed]:
    """Return a listing without staging, and without the records of an extraction that are not rolled forward yet.

    A list is no snapshot: objects may be installed after it has passed their keys, and before it reaches their staging.
    Reading such an object raises an error, never gives a value.
    """
    visible = {key: listed for key, listed in listing.items() if not key.startswith(f"{STAGING}/")}
    staged = labels_to_keys(key.split("/")[1] for key in listing.keys() - visible.keys())
    for record_key in sorted(staged & visible.keys()):
        keys = {item["key"] for item in unseal_bytes(objects.get(record_key), f"{objects.url}/{record_key}")["objects"]}
        if not keys <= visible.keys():
            for key in (record_key, *keys):
                visible.pop(key, None)
    return visible
