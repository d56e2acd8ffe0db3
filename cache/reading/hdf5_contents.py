"""What may be in the HDF5 form of a store: plain datasets of the file itself, of the names that the format has.

HDF5 can hold the names of other files (external links, external storage, virtual datasets) and of code that decodes it
(filters). Such a file would read other files of its reader's machine. Everything is compared with the format before any
value is read, and no size is believed that the bytes of the file do not bear out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from ..errors import MgcError, StoreFormatError
from ..format.documents import is_record_key
from ..format.schema import ArraySpec

RECORDS, ROW_CHUNK = "records", 4096


@contextmanager
def hdf5_errors(path: Path) -> Iterator[None]:
    """Raise what HDF5 raises about the content of a file, which may come from other people, as an error of mgc.

    Raises
    ------
    StoreFormatError
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        if isinstance(error, MgcError) or getattr(error, "errno", None) is not None:  # of the disk
            raise
        raise StoreFormatError(f"{path}: no mgc feature store in HDF5 form ({error})") from error


def foreign_contents(file: h5py.File) -> Iterator[tuple[str, str]]:
    """Yield name and fault of links and datasets that lead out of a file, of filters, and of undocumented records."""
    for name, kind in _links(file):
        if kind != h5py.h5l.TYPE_HARD:
            yield name, "a soft or external link; a store holds none"
        elif wrong := _object_fault(file, name):
            yield name, wrong


def _links(file: h5py.File) -> list[tuple[str, int]]:
    """Return the name and kind of every link, without following any but hard links."""
    links: list[tuple[str, int]] = []
    file.id.links.visit(
        lambda name, info: links.append((name.decode("utf-8", "surrogateescape"), info.type)), info=True
    )
    return links


def _object_fault(file: h5py.File, name: str) -> str | None:
    item = h5py.h5o.open(file.id, name.encode("utf-8", "surrogateescape"))
    if h5py.h5o.get_info(item).rc != 1:
        return "has more than one name"
    if isinstance(item, h5py.h5g.GroupID):
        return None
    if not isinstance(item, h5py.h5d.DatasetID):
        return "neither a group nor a dataset"
    if name.startswith(f"{RECORDS}/") and not is_record_key(name.removeprefix(f"{RECORDS}/")):
        return "no record of that name is documented"
    return _storage_fault(item)


def _storage_fault(item: h5py.h5d.DatasetID) -> str | None:
    plist = item.get_create_plist()
    if plist.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED) or plist.get_external_count():
        return "its values are in another file (external storage or a virtual dataset)"
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if not filters <= {h5py.h5z.FILTER_FLETCHER32}:
        return "has filters that a store does not use"
    return None


def array_fault(file: h5py.File, spec: ArraySpec, n_rows: int) -> str | None:
    """Return how a dataset is not an array of a store, with `n_rows` rows; None if it is."""
    dataset = file.get(spec.name)
    if not isinstance(dataset, h5py.Dataset):
        return "is missing"
    if dataset.shape != (n_rows, *spec.tail) or dataset.dtype != np.dtype(spec.dtype):
        return f"is {dataset.dtype} {dataset.shape} instead of {spec.dtype} {(n_rows, *spec.tail)}"
    if n_rows and dataset.chunks != (spec.inner or (min(n_rows, ROW_CHUNK), *spec.tail)):
        return f"has chunks {dataset.chunks}"
    return None


def column_fault(file: h5py.File, name: str, dtype: str | None, length: int | None) -> str | None:
    """Return how a dataset is not a column of a table; None if it is.

    Parameters
    ----------
    dtype : of its values; None for text.
    length : None for any that the bytes of the file bear out.
    """
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        return "is missing"
    if dtype is None:
        text = h5py.check_string_dtype(dataset.dtype)
        same = text is not None and text.encoding == "utf-8" and text.length is None
    else:
        same = dataset.dtype == np.dtype(dtype)
    if not same or dataset.ndim != 1 or (length is not None and len(dataset) != length):
        return f"is {dataset.dtype} {dataset.shape}, which is no such column"
    return unstored(dataset)


def unstored(dataset: h5py.Dataset) -> str | None:
    """Return that a dataset claims more values than are stored; None if it does not."""
    claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
    return None if dataset.id.get_storage_size() >= claimed else f"claims {claimed:.3g} bytes that are not in the file"


def unknown_names(file: h5py.File, datasets: set[str]) -> list[str]:
    """Return the names that are neither `datasets`, nor groups of these, nor records."""
    groups = {name[:i] for name in datasets for i, char in enumerate(name) if char == "/"}
    names = (name for name, _ in _links(file))
    return [name for name in names if name not in datasets | groups and name.partition("/")[0] != RECORDS]


def dtype_of(field: pa.Field) -> str | None:
    """Return the dtype of a column of a table in HDF5; None for text, which lists are written as."""
    is_text = pa.types.is_string(field.type) or pa.types.is_list(field.type)
    return None if is_text else str(np.dtype(field.type.to_pandas_dtype()))
