"""Write a store in an object store, through a local folder that has its records.

The code of this package works on the folder (the replica) as on a local store. What it publishes goes to the object
store in the same three steps as in :mod:`mgc.cache.writing.publish`:

1. Put the objects at ``staging/<record>~<digest>/``.
2. Put the record on condition that there is none (``If-None-Match: *``). This commits: of several writers one wins.
3. Copy the objects to their keys inside the object store, then delete the staging. Any process may do this, repeatedly.

A record is never deleted, so that no delayed process commits one of the same key again. No decision depends on a list:
a list that lacks new objects costs work that was done already, or leaves staging that the next extraction removes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ..claims import HEARTBEAT_S, is_void, new_claim
from ..durable import make_folders, replace_file, seal
from ..errors import ConfigError, MgcError, RecipeMismatchError, StoreError
from ..format import layout
from ..format.documents import is_record_key, read_record
from ..format.plan import FEATURES, PLAN_FILE, generation_key
from ..format.records import (
    COMMITS,
    STAGING,
    commit_key,
    labels_to_keys,
    makes_rows_visible,
    outcomes_key,
    parse_commit_key,
    read_commit,
    staged_key,
    staging_label,
)
from ..object_folder import ObjectFolder, errors_at, in_threads
from ..places import ObjectPath, place

PROBE = "probe.json"
"""Key in place of that of a record, of the staging entries of :func:`Replica.refuse_without_conditions`."""

_ATTEMPTS = 3
_DROPS = "drops"  # of takedowns.py, which imports this file

_replicas: dict[Path, Replica] = {}


def remote_of(store: Path) -> Replica | None:
    """Return the replica whose folder is `store`; None for a local store."""
    return _replicas.get(store)


def writable_folder(store: Path) -> Path:
    """Return a local folder for the code that writes a store: `store` itself, or the replica of its URL.

    The plan in a replica is brought up to date; :func:`Replica.pull` does the same with the commit records.
    """
    if not isinstance(url := place(store), ObjectPath):
        return store
    replica = next((one for one in _replicas.values() if one.url == url), None)
    if replica is None:
        replica = Replica(url)
        _replicas[replica.folder] = replica
    replica.pull_plan()
    return replica.folder


def address(store: Path) -> Path:
    """Return the URL of a replica; a local store itself."""
    return store if (remote := remote_of(store)) is None else remote.url


class Replica:
    """The records of a store in an object store, in a local folder; the folder is removed at the end of the process.

    Attributes
    ----------
    url, folder : of the store, and of the replica.
    objects : the objects themselves.
    id : random, for names that no other process uses.
    """

    def __init__(self, url: ObjectPath) -> None:
        self.url, self.objects, self.id = url, ObjectFolder(url), uuid.uuid4().hex[:12]
        parent = Path(tempfile.mkdtemp(prefix="mgc-replica-"))
        weakref.finalize(self, shutil.rmtree, parent, ignore_errors=True)
        self.folder = parent / "store"
        self._newest: dict[tuple[int, str | None], int] = {}
        self._staged: set[str] = set()
        self._list_commits()

    def refuse_without_conditions(self) -> None:
        """Check that the service refuses to create an object that exists, before any work depends on it.

        Raises
        ------
        ConfigError
            If it does not.
        """
        for _ in range(2):  # another process may have removed the first probe
            key = f"{STAGING}/{staging_label(PROBE)}~{uuid.uuid4().hex}"
            self.objects.create(key, b"")
            is_refused = not self.objects.create(key, b"")
            self.objects.delete([key])
            if is_refused:
                return
        raise ConfigError(
            f"{self.url}: this service ignores conditional writes (If-None-Match), without which several writers could "
            "damage the store. Extract to a local folder, then copy the store with `mgc store copy`."
        )

    def refuse_other_contents(self) -> None:
        """Raise ConfigError if there are objects, but no store."""
        if (self.folder / PLAN_FILE).exists() or self.objects.find(PLAN_FILE) is not None:
            return
        if others := [key for key in self.objects.listing() if not key.startswith(f"{STAGING}/")]:
            raise ConfigError(f"{self.url}: not empty and not a feature store ({others[0]}). Use another URL.")

    def pull(self) -> None:
        """Bring takedown records and commit records up to date."""
        self._list_commits()
        drops = [key for key in self.objects.listing(_DROPS) if is_record_key(key)]
        keys = [commit_key(part, n, feature_set) for (part, feature_set), n in self._newest.items()]
        missing = [key for key in (*drops, *keys) if not (self.folder / key).exists()]
        for _ in in_threads(self._fetch, missing) if missing else ():
            pass

    def pull_plan(self) -> None:
        """Bring the plan up to date: generations with their tables, and added feature sets."""
        for number in itertools.count():
            key = generation_key(number)
            record = read_record(self.folder, key) if (self.folder / key).exists() else self._fetch_record(key)
            if record is None:
                break
            tables = [item["key"] for item in record["objects"] if _is_table(item["key"])]
            if not all((self.folder / table).exists() or self._fetch(table) for table in tables):
                self._staged.add(key)  # its writer has ended before it installed them
                self.install(key, record)
        if not number:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a creation that was interrupted
            return
        (self.folder / "log").mkdir(exist_ok=True)
        for key in (PLAN_FILE, *self.objects.listing(FEATURES)):
            if is_record_key(key) and not (self.folder / key).exists():
                self._fetch(key)

    def pull_part(self, part: int, feature_set: str | None, *, with_objects: bool = False) -> None:
        """Bring the commit records of a part up to date, without a list; for a feature set, also the store's outcomes.

        Parameters
        ----------
        with_objects : download the objects of the part, too.
        """
        if feature_set is not None:
            self._fetch(outcomes_key(part))
        for n in itertools.count():
            key = commit_key(part, n, feature_set)
            is_there = (self.folder / key).exists() or self._fetch_record(key) is not None
            if not is_there and n > self._newest.get((part, feature_set), -1):
                break
        record = read_commit(self.folder, part, feature_set) if with_objects else None
        for item in () if record is None else record["objects"]:
            self._fetch(item["key"])

    def begin(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Put the plan of a new store, or continue an interrupted creation; return the valid plan.

        Raises
        ------
        RecipeMismatchError
            If the creation of a store with another plan was begun at this URL.
        """
        self.folder.mkdir(exist_ok=True)
        self.objects.create(PLAN_FILE, seal(dict(document)))
        self._fetch(PLAN_FILE)
        begun = read_record(self.folder, PLAN_FILE)
        if {**begun, "library_versions": None} != {**document, "library_versions": None}:
            raise RecipeMismatchError(
                f"{self.url}: an extraction with another recipe or part size has begun here. Use its options, or "
                "another URL."
            )
        return begun

    def commit(self, key: str, record: Mapping[str, Any], built: Path) -> dict[str, Any]:
        """Put the objects of a record from the folder `built`, then the record (steps 1 and 2).

        Returns
        -------
        dict
            The valid record; if another process has committed first, its record.
        """
        staged, valid = staged_key(key, record), self._fetch_record(key)
        if valid is None:
            self._staged.add(key)
            names = [item["key"] for item in record["objects"]]
            for _ in in_threads(lambda name: self.objects.put(f"{staged}/{name}", (built / name).read_bytes()), names):
                pass
        for _ in range(_ATTEMPTS):
            if valid is not None:
                break
            self.objects.create(key, seal(dict(record)))
            valid = self._fetch_record(key)
        if valid is None:
            raise StoreError(f"{self.url}/{key}: could not be written. Run the same command again.")
        if valid != record:
            self._delete_below(f"{staged}/")
        return valid

    def install(self, key: str, record: Mapping[str, Any]) -> None:
        """Copy the staged objects of a record to their keys; idempotent.

        Outcome tables and ``status`` come last, because they make rows visible.

        Raises
        ------
        StoreError
            If an object is not at its key afterwards.
        """
        if key not in self._staged or self._is_replaced(key):
            return
        staged = staged_key(key, record)

        def copy(item: Mapping[str, Any]) -> tuple[str, bool]:
            # Without a source, another process has installed the object and swept.
            self.objects.copy(f"{staged}/{item['key']}", item["key"])
            found = self.objects.find(item["key"])
            return item["key"], found is not None and found.size == item["size"]

        missing = []
        for last in (False, True):
            group = [item for item in record["objects"] if makes_rows_visible(item) == last]
            missing += [name for name, is_there in in_threads(copy, group) if not is_there] if group else []
        if missing and not self._is_replaced(key):
            raise StoreError(
                f"{self.url}/{missing[0]}: missing after its installation. Run the same command again, then "
                "`mgc store verify`."
            )
        for item in record["objects"]:
            if _is_table(item["key"]):
                self._fetch(item["key"])

    def install_metadata(self, documents: Mapping[str, bytes]) -> None:
        """Put every ``zarr.json`` that differs, that of the root last; then bring the plan up to date."""
        for key in sorted(documents, key=lambda key: (key == "zarr.json", key)):
            text = self.objects.get_if_there(key)
            if text is None or not layout.same_document(text, documents[key]):
                self.objects.put(key, documents[key])
        self.pull_plan()

    def sweep(self, key: str) -> None:
        """Delete the staging entries of a record."""
        if key in self._staged:
            self._delete_below(f"{STAGING}/{staging_label(key)}~")
            self._staged.remove(key)

    def staged_records(self) -> set[str]:
        """Return the keys of records that have staging; bring those records, and then the plan, up to date."""
        keys = labels_to_keys(key.split("/")[1] for key in self.objects.listing(STAGING))
        self._staged |= keys
        for key in keys:
            if (parsed := parse_commit_key(key)) is not None:
                self.pull_part(parsed[0], parsed[2])
            elif is_record_key(key):
                self._fetch_record(key)
        self.pull_plan()
        return keys

    @contextmanager
    def hold(self, name: str, *, take_over: bool = False) -> Iterator[bool]:
        """Hold a claim in ``staging/``, as :func:`mgc.cache.claims.hold` does with a file.

        Its age is judged by the clock of the service.
        """
        key, claim = f"{STAGING}/{name}", json.dumps(new_claim()).encode()
        if take_over:
            self.objects.delete([key])
        if not (self.objects.create(key, claim) or self._take(key, claim)):
            yield False
            return
        stop = threading.Event()
        threading.Thread(target=self._touch, args=(key, claim, stop), daemon=True).start()
        try:
            yield True
        finally:
            stop.set()
            with contextlib.suppress(MgcError):
                if self.objects.get_if_there(key) == claim:
                    self.objects.delete([key])

    def n_claims(self) -> int:
        """Return the number of parts that a process has claimed, or had claimed when it ended."""
        return sum(key.endswith("~claim") for key in self.objects.listing(STAGING))

    def save_log(self, name: str) -> None:
        """Put a file of the folder ``log/``, which is not part of the store's content."""
        with contextlib.suppress(MgcError, OSError):
            self.objects.put(f"log/{name}", (self.folder / "log" / name).read_bytes())

    def errors(self) -> AbstractContextManager[None]:
        """Replace the local folder by the URL in messages of errors."""
        return errors_at(self.url, self.folder)

    def _take(self, key: str, claim: bytes) -> bool:
        """Take over the claim of a process that has ended."""
        found, owner = self.objects.find(key), self.objects.get_if_there(key)
        if owner == claim:
            return True
        if found is not None and owner is not None:
            clock = f"{key}-{uuid.uuid4().hex}"
            self.objects.put(clock, b"")
            now = self.objects.find(clock)
            self.objects.delete([clock])
            if now is None or not is_void(owner, (now.changed - found.changed).total_seconds()):
                return False
            self.objects.delete([key])
        return self.objects.create(key, claim) or self.objects.get_if_there(key) == claim

    def _touch(self, key: str, claim: bytes, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_S):
            with contextlib.suppress(MgcError):
                self.objects.put(key, claim)

    def _delete_below(self, start: str) -> None:
        self.objects.delete([key for key in self.objects.listing(STAGING) if key.startswith(start)])

    def _list_commits(self) -> None:
        for key in self.objects.listing(COMMITS):
            if (parsed := parse_commit_key(key)) is not None:
                part, n, feature_set = parsed
                self._newest[part, feature_set] = max(n, self._newest.get((part, feature_set), 0))

    def _is_replaced(self, key: str) -> bool:
        """Return whether there is a newer record of the same part."""
        parsed = parse_commit_key(key)
        return parsed is not None and self._fetch_record(commit_key(parsed[0], parsed[1] + 1, parsed[2])) is not None

    def _fetch_record(self, key: str) -> dict[str, Any] | None:
        """Download a record; return None if there is none."""
        return read_record(self.folder, key) if self._fetch(key) else None

    def _fetch(self, key: str) -> bool:
        """Download an object into the folder; return False if there is none."""
        data = self.objects.get_if_there(key)
        if data is not None:
            self.folder.mkdir(exist_ok=True)
            make_folders(self.folder, key)
            replace_file(self.folder / key, data)
        return data is not None


def _is_table(key: str) -> bool:
    return key.startswith(("tracks/", "genres/"))
