"""Mutate stores and models and update their checksums."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import random
from pathlib import Path
from typing import Any

import google_crc32c
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mgc.cache.durable import fingerprint, seal

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 127, 2**16, 2**31, 2**40, 2**63, 2**80, 0.5, -0.0, 1e308, 1e-300),
    *(
        "",
        "x",
        "../../etc/passwd",
        "/etc/passwd",
        "mel",
        "\x00",
        "a" * 5000,
        "١",
        "0",
        "text",
        "float16",
        "status",
        "\x1b[2J",
    ),
    *([], {}, [[]], [None], {"a": None}, [1] * 50, ["x"] * 50, {str(i): i for i in range(200)}),
)
"""Replacements for any value of a document."""


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [deep for key, item in items for deep in ((*path, key), *paths(item, (*path, key)))]


def mutate_json(document: dict[str, Any], rng: random.Random) -> None:
    """Change one to three values, keys or list items of a document in place."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        candidates = paths(document)
        if not candidates:
            return
        # By depth first, since lists of objects have most of the paths but few kinds of values.
        depth = rng.choice(sorted({len(path) for path in candidates}))
        path = rng.choice([path for path in candidates if len(path) == depth])
        parent: Any = document
        for step in path[:-1]:
            parent = parent[step]
        _mutate_value(parent, path[-1], document, rng)


def _mutate_value(parent: Any, key: Any, document: Any, rng: random.Random) -> None:
    value, kind = parent[key], rng.randrange(8)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice(("more", "sha", "", "mel", "0", "é"))] = copy.deepcopy(rng.choice(VALUES))
    elif kind == 2 and isinstance(parent, list):
        parent.extend(copy.deepcopy(parent) * rng.choice((1, 20)))
    elif kind == 3:
        other: Any = document
        for step in rng.choice(paths(document)):
            other = other[step]
        parent[key] = copy.deepcopy(other)
    elif kind == 4 and isinstance(value, int | float) and not isinstance(value, bool):
        parent[key] = rng.choice((value + 1, value - 1, -value, value * 2, value * 1000, float(value), str(value)))
    elif kind == 5 and isinstance(value, str):
        parent[key] = rng.choice((value[:-1], value + "x", value.upper(), value[::-1], value * 2, [value]))
    elif kind == 6:
        nested: Any = value
        for _ in range(rng.choice((1, 5, 120))):
            nested = [nested] if rng.random() < 0.5 else {"a": nested}
        parent[key] = nested
    else:
        parent[key] = copy.deepcopy(rng.choice(VALUES))


def link_hashes(records: dict[str, Any]) -> None:
    """Update the hashes by which records refer to each other, as far as their contents allow."""

    def put(key: str, name: str, value: str) -> None:
        with contextlib.suppress(TypeError, KeyError):
            if name in records[key]:
                records[key][name] = value

    def digest(key: str) -> None:
        with contextlib.suppress(TypeError, KeyError):
            records[key]["digest"] = fingerprint(records[key]["objects"])

    plan, previous = fingerprint(records["plan.json"]), None
    for key in sorted(key for key in records if key.startswith("generations/")):
        put(key, "plan", plan)
        if previous is not None:
            put(key, "previous", previous)
        digest(key)
        previous = fingerprint(records[key])
    for key in (key for key in records if key.startswith("features/")):
        put(key, "plan", plan)
        digest(key)
    generations = [fingerprint(records[key]) for key in sorted(records) if key.startswith("generations/")]
    for key in (key for key in records if key.startswith("commits/")):
        part = int(key.rpartition("/")[2].partition(".")[0])
        put(key, "generation", generations[0 if part < 3 else 1])
        if key.count("/") == 2:
            put(key, "feature_set", fingerprint(records[f"features/{key.split('/')[1]}.json"]))
        digest(key)


def list_object(records: dict[str, Any], key: str, data: bytes) -> None:
    """Update size and hash of an object in every record that lists it."""
    for record in records.values():
        for item in record.get("objects", []) if isinstance(record, dict) else ():
            if item["key"] == key:
                item.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def mutate_table(data: bytes, rng: random.Random) -> bytes:
    """Change bytes, columns, types, rows, nulls or texts of a Parquet table."""
    kind = rng.randrange(8)
    if kind < 2:  # bytes, mostly of the footer
        changed = bytearray(data)
        start = len(data) - 8 - int.from_bytes(data[-8:-4], "little") if rng.random() < 0.7 else 0
        for _ in range(rng.choice((1, 1, 3, 10))):
            changed[rng.randrange(max(0, start), len(data))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    table = pq.read_table(io.BytesIO(data))
    i = rng.randrange(table.num_columns)
    name = table.column_names[i]
    n = table.num_rows
    if kind == 2:
        table = table.drop_columns([name])
    elif kind == 3:
        table = table.append_column(rng.choice(("more", name)), table.column(i))
    elif kind == 4:
        table = rng.choice((table.slice(1), pa.concat_tables([table] * rng.choice((2, 1000))), table.slice(0, 0)))
    elif kind == 5:
        values: Any = rng.choice(
            (pa.nulls(n), pa.array([b"\xff\xfe"] * n), pa.array([2**62] * n), pa.array([-1.5] * n))
        )
        table = table.set_column(i, name, values)
    elif kind == 6:
        rows = table.to_pylist()
        if rows:
            rows[rng.randrange(n)][name] = rng.choice((None, 0, 3, 255, 2**31 - 1, -1, "", "x" * 100, [None], ["a"]))
        with contextlib.suppress(pa.ArrowException, TypeError, OverflowError):
            nullable = pa.schema([field.with_nullable(True) for field in table.schema])
            table = pa.Table.from_pylist(rows, schema=nullable)
    else:
        table = table.take(pa.array(rng.sample(range(n), n))) if n else table
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=rng.choice(("zstd", "snappy", "none")), store_schema=rng.random() < 0.3)
    return sink.getvalue()


def mutate_chunk(data: bytes, rng: random.Random) -> bytes:
    """Change an object of an array, or replace it by a zstd frame of other content; its crc32c is valid."""
    body = bytearray(data[:-4])
    kind = rng.randrange(4)
    if kind == 0 and body:
        for _ in range(rng.choice((1, 4))):
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        body = body[: rng.randrange(len(body) + 1)]
    elif kind == 2:
        body = bytearray(pa.compress(bytes(rng.choice((0, 1, 4096, 2**24))), codec="zstd", asbytes=True))
    else:
        body[5:13] = rng.randbytes(8)  # the content size of a frame, or offsets of a shard
    crc = int(google_crc32c.value(bytes(body))).to_bytes(4, "little")
    return bytes(body) + crc


def mutate_hdf5(path: Path, rng: random.Random) -> None:
    """Change an attribute, dataset, record or link of an HDF5 file, which the caller must seal again."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        tops = [name for name in names if not name.startswith("records/")]
        kind = rng.randrange(6)
        if kind == 0:
            name = rng.choice(list(file.attrs))
            if isinstance(file.attrs[name], str) and rng.random() < 0.8:
                document = {"it": json.loads(file.attrs[name])}
                mutate_json(document, rng)
                file.attrs[name] = json.dumps(document.get("it"))[:60_000]
            else:
                file.attrs[name] = rng.choice((0, -1, 2**40, 1.5, "x", "[" * 3000, np.arange(5)))
        elif kind == 1:  # a record
            name = rng.choice([name for name in names if name.startswith("records/") and name.endswith(".json")])
            document = json.loads(file[name][:].tobytes())
            document.pop("sha256")
            mutate_json(document, rng)
            del file[name]
            file.create_dataset(name, data=np.frombuffer(seal(document), np.uint8), fletcher32=True)
        elif kind == 2:
            name = rng.choice(tops)
            del file[name]
            target = rng.choice(
                (
                    h5py.SoftLink("/tracks/id"),
                    h5py.ExternalLink("other.h5", "mel"),
                    file.get("tracks/row", h5py.SoftLink("/mel")),
                )
            )
            if rng.random() < 0.7:
                file[name] = target
        elif kind == 3:  # another shape, type or storage
            name, old = rng.choice(tops), None
            old = file[name]
            shape = rng.choice((old.shape[:-1], (*old.shape, 1), (2**40, *old.shape[1:]), (0, *old.shape[1:]), ()))
            dtype = rng.choice((old.dtype, "f8", "u1", "S5", "i8", h5py.string_dtype(), h5py.vlen_dtype("i4")))
            del file[name]
            with contextlib.suppress(ValueError, TypeError, OSError):
                chunks = True if shape and 0 not in shape and rng.random() < 0.5 else None
                file.create_dataset(
                    name, shape, dtype, chunks=chunks, compression=rng.choice((None, "gzip")) if chunks else None
                )
        elif kind == 4:
            item = file[rng.choice(tops)]
            if item.ndim == 1 and len(item):
                text = rng.choice(("", "[", "[1]", "null", '["a", null]', "\udcff", "[[[]]]"))
                number = rng.choice((0, 1, 2, 3, 255))
                item[rng.randrange(len(item))] = (
                    text.encode("utf-8", "surrogateescape") if item.dtype == object else number
                )
        else:
            extra = rng.choice(("x", "tracks/x", "records/x", "records/log/x", "added/x/row", "records/rows/7.parquet"))
            with contextlib.suppress(ValueError):
                file.create_dataset(extra, data=[1, 2, 3])


def mutate_tensors(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a safetensors file, or bytes after it."""
    n = int.from_bytes(data[:8], "little")
    header, kind = json.loads(data[8 : 8 + n]), rng.randrange(4)
    if kind == 0:
        mutate_json(header, rng)
    elif kind == 1:
        name = rng.choice([name for name in header if name != "__metadata__"])
        header[rng.choice(("more", name[::-1]))] = header.pop(name)
    elif kind == 2:
        at = rng.randrange(8 + n, len(data) - 4)
        data = data[:at] + rng.choice((b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f", b"\0\0\x80\xff")) + data[at + 4 :]
    else:
        return data[: rng.randrange(len(data))]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + n :]
