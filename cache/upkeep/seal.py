"""Seal of the HDF5 form: JSON in the first 512 bytes, with the sha256 of all following bytes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import h5py

from ..bounds import problem
from ..errors import StoreError
from ..format.documents import SealDocument
from ..format.schema import FORMAT_VERSION
from ..messages import printable
from ..reading.hdf5_contents import foreign_contents, hdf5_errors
from ..reading.hdf5_reader import SEALED_FORMAT, USER_BLOCK
from ..reading.store import FeatureStore
from .verify import Damage


def verify_sealed(path: Path) -> list[Damage]:
    """Compare the HDF5 form of a store with its seal, and its contents with the format; read every byte.

    A seal detects damage, not manipulation: anyone who can write a file can seal it.
    """
    if fault := seal_problem(path):
        return [Damage(kind="altered", key=path.name, detail=fault)]
    try:
        with hdf5_errors(path), h5py.File(path, "r", locking=False) as file:
            foreign = [
                Damage(kind="foreign", key=printable(key), detail=fault) for key, fault in foreign_contents(file)
            ]
        if not foreign:
            FeatureStore.open(path).close()
    except (StoreError, OSError) as error:
        return [Damage(kind="values", key=path.name, detail=str(error))]
    return foreign


def seal_problem(path: Path) -> str | None:
    """Return the fault of a file's seal, None if there is none; read every byte."""
    with path.open("rb") as file:
        block = file.read(USER_BLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    try:
        seal = json.loads(block.rstrip(b"\0"))
    except (ValueError, RecursionError):
        return "its user block is not the seal of a feature store"
    if problem(seal, SealDocument) or block != _seal_text(seal["sha256"], seal["bytes"]):
        return "its seal was altered"
    if (seal["sha256"], seal["bytes"]) != (digest, size):
        return "its sha256 differs from the seal"
    return None


def _seal_text(sha256: Any, n_bytes: Any) -> bytes:
    seal = {"sealed": SEALED_FORMAT, "format_version": FORMAT_VERSION, "bytes": n_bytes, "sha256": sha256}
    return json.dumps(seal).encode().ljust(USER_BLOCK, b"\0")


def write_seal(path: Path) -> None:
    """Write the seal of a file into its user block."""
    with path.open("r+b") as file:
        file.seek(USER_BLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        file.seek(0)
        file.write(_seal_text(digest, size))
        file.flush()
        os.fsync(file.fileno())
