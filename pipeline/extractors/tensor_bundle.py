"""Read tensors of a TensorFlow checkpoint (format V2, "tensor bundle") without TensorFlow.

The index is a sorted string table of LevelDB: blocks of prefix-compressed keys. Each value is a protocol buffer with
type, shape, offset, size and masked CRC-32C of a tensor in the data file. Source of the format: ``tensor_bundle.proto``
and ``table_format.txt`` of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt

from ...cache.errors import ConfigError

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER, _BLOCK_TRAILER = 48, 5
_FLOAT = 1
_MASK_DELTA = 0xA282EAD8


def read_tensors(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Return name -> float32 tensor of the checkpoint in a folder; training variables of Adam are left out.

    Parameters
    ----------
    folder : holds ``.index`` and ``.data-00000-of-00001``.

    Raises
    ------
    ConfigError
        If a file is missing, damaged, or uses a feature of the format that is not read here.
    """
    try:
        index, data = (folder / ".index").read_bytes(), (folder / ".data-00000-of-00001").read_bytes()
        return dict(_tensors(index, data))
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError(f"{folder}: the checkpoint cannot be read ({error}). Install the package again.") from error


def _tensors(index: bytes, data: bytes) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    if index[-8:] != _MAGIC:
        raise ValueError("no sorted string table")
    _, position = _handle(index, len(index) - _FOOTER)
    root, _ = _handle(index, position)
    for _, value in _entries(index, *root):
        handle, _ = _handle(value, 0)
        for key, entry in _entries(index, *handle):
            name = key.decode()
            if name and "/Adam" not in name:
                yield name, _tensor(message_fields(entry), data)


def _tensor(fields: dict[int, list[int | bytes]], data: bytes) -> npt.NDArray[np.float32]:
    kind, first, size, crc = (_number(fields, field) for field in (1, 4, 5, 6))
    if kind != _FLOAT or _number(fields, 3):
        raise ValueError("a tensor that is not float32, or in another data file")
    raw = data[first : first + size]
    if len(raw) != size or _masked_crc(raw) != crc:
        raise ValueError("the data are damaged")
    shape = fields.get(2, [b""])[0]
    if isinstance(shape, int):
        raise ValueError("a tensor without a shape")
    sizes = [_number(message_fields(part), 1) for part in message_fields(shape).get(2, []) if isinstance(part, bytes)]
    return np.frombuffer(raw, "<f4").reshape(sizes)


def _masked_crc(data: bytes) -> int:
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _entries(table: bytes, first: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of a block; a key repeats the first bytes of the one before."""
    block, trailer = table[first : first + size], table[first + size : first + size + _BLOCK_TRAILER]
    if len(trailer) < _BLOCK_TRAILER or trailer[0]:
        raise ValueError("a compressed or truncated block")
    if _masked_crc(block + trailer[:1]) != int.from_bytes(trailer[1:], "little"):
        raise ValueError("the index is damaged")
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")
    position, key = 0, b""
    while position < end:
        shared, position = varint(block, position)
        unshared, position = varint(block, position)
        length, position = varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def message_fields(message: bytes) -> dict[int, list[int | bytes]]:
    """Return field number -> values of a protocol buffer: numbers, and bytes of nested messages."""
    fields: dict[int, list[int | bytes]] = {}
    position = 0
    while position < len(message):
        tag, position = varint(message, position)
        value: int | bytes
        if tag & 7 == 0:
            value, position = varint(message, position)
        elif tag & 7 == 2:
            size, position = varint(message, position)
            value, position = message[position : position + size], position + size
        elif tag & 7 == 5:
            value, position = int.from_bytes(message[position : position + 4], "little"), position + 4
        else:
            raise ValueError("an unknown field")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: dict[int, list[int | bytes]], field: int) -> int:
    value = fields.get(field, [0])[0]
    if isinstance(value, bytes):
        raise ValueError("a field of another type")
    return value


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Read offset and size of a block; also return the position behind them."""
    first, position = varint(data, position)
    size, position = varint(data, position)
    return (first, size), position


def varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
        if shift > 63:
            raise ValueError("a number that is too long")
