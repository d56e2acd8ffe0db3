"""Check the contents of the HDF5 form of a store: only plain datasets of the format, stored in the file itself.

An HDF5 file can refer to other files of the reader's machine (external links, external storage, virtual datasets) and
to code (filters). So everything is compared with the format before any value is read. A declared size is accepted only
if the file stores that many bytes.
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
    """Convert errors of HDF5 on the content of an untrusted file to StoreFormatError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        if isinstance(error, MgcError) or getattr(error, "errno", None) is not None:  # an error of the disk
            raise
        raise StoreFormatError(f"{path}: not an mgc feature store in HDF5 form ({error})") from error


def foreign_contents(file: h5py.File) -> Iterator[tuple[str, str]]:
    """Yield name and fault of every link or dataset outside the file, filter, and unknown record."""
    for name, kind in _links(file):
        if kind != h5py.h5l.TYPE_HARD:
            yield name, "is a soft or external link, which a store cannot have"
        elif fault := _object_fault(file, name):
            yield name, fault


def _links(file: h5py.File) -> list[tuple[str, int]]:
    """Return the name and kind of every link; follow hard links only."""
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
        return "is neither a group nor a dataset"
    if name.startswith(f"{RECORDS}/") and not is_record_key(name.removeprefix(f"{RECORDS}/")):
        return "is not the name of a record"
    return _file_fault(item)


def _file_fault(item: h5py.h5d.DatasetID) -> str | None:
    plist = item.get_create_plist()
    if plist.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED) or plist.get_external_count():
        return "has values in another file (external storage or a virtual dataset)"
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if not filters <= {h5py.h5z.FILTER_FLETCHER32}:
        return "has filters, which a store cannot have"
    return None


def array_fault(file: h5py.File, spec: ArraySpec, n_rows: int) -> str | None:
    """Return why a dataset is not the array `spec` with `n_rows` rows; None if it is."""
    dataset = file.get(spec.name)
    if not isinstance(dataset, h5py.Dataset):
        return "is missing"
    if dataset.shape != (n_rows, *spec.tail) or dataset.dtype != np.dtype(spec.dtype):
        return f"is {dataset.dtype} {dataset.shape} instead of {spec.dtype} {(n_rows, *spec.tail)}"
    if n_rows and dataset.chunks != (spec.inner or (min(n_rows, ROW_CHUNK), *spec.tail)):
        return f"has chunks {dataset.chunks}"
    return None


def column_fault(file: h5py.File, name: str, dtype: str | None, length: int | None) -> str | None:
    """Return why a dataset is not a column of a table; None if it is.

    Parameters
    ----------
    dtype : dtype of the values; None for text.
    length : required length; None accepts any length that the file stores.
    """
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        return "is missing"
    if dtype is None:
        text = h5py.check_string_dtype(dataset.dtype)
        has_dtype = text is not None and text.encoding == "utf-8" and text.length is None
    else:
        has_dtype = dataset.dtype == np.dtype(dtype)
    if not has_dtype or dataset.ndim != 1 or (length is not None and len(dataset) != length):
        return f"is {dataset.dtype} {dataset.shape}, not a column of this table"
    return storage_fault(dataset)


def storage_fault(dataset: h5py.Dataset) -> str | None:
    """Return that a dataset declares more bytes than the file stores; None if it does not."""
    n_bytes = math.prod(dataset.shape) * dataset.dtype.itemsize
    return (
        None if dataset.id.get_storage_size() >= n_bytes else f"declares {n_bytes:.3g} bytes that are not in the file"
    )


def unknown_names(file: h5py.File, datasets: set[str]) -> list[str]:
    """Return the names in a file that are neither `datasets`, nor their groups, nor records."""
    groups = {name[:i] for name in datasets for i, char in enumerate(name) if char == "/"}
    names = (name for name, _ in _links(file))
    return [name for name in names if name not in datasets | groups and name.partition("/")[0] != RECORDS]


def dtype_of(field: pa.Field) -> str | None:
    """Return the dtype of a table column in HDF5; None for text, also used for lists."""
    is_text = pa.types.is_string(field.type) or pa.types.is_list(field.type)
    return None if is_text else str(np.dtype(field.type.to_pandas_dtype()))
