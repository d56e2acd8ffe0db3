"""Evaluate a graph that TensorFlow 1 has saved, node by node in NumPy: a second way to compute what a network gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mgc.pipeline.extractors.tensor_bundle import message_fields, varint

Array = npt.NDArray[Any]
_DTYPES = {1: np.dtype("<f4"), 3: np.dtype("<i4"), 10: np.dtype(bool)}


class DeadError(Exception):
    """A tensor of the branch of a condition that is not taken."""


class Graph:
    """The graph of a ``.meta`` file, with values of its variables and placeholders by name."""

    def __init__(self, meta: Path, values: Mapping[str, Array]) -> None:
        (graph,) = message_fields(meta.read_bytes())[2]
        self.nodes = {}
        for node in message_fields(graph)[1]:
            fields = message_fields(node)
            inputs = [name.decode() for name in fields.get(3, []) if not name.startswith(b"^")]
            pairs = [message_fields(pair) for pair in fields.get(5, [])]
            attributes = {pair[1][0].decode(): message_fields(pair[2][0]) for pair in pairs if pair[2][0]}
            self.nodes[fields[1][0].decode()] = (fields[2][0].decode(), inputs, attributes)
        self.known: dict[str, Array] = dict(values)

    def value(self, name: str) -> Array:
        """Return the first output of a node."""
        node, _, output = name.partition(":")
        operation, inputs, attributes = self.nodes[node]
        if operation == "Switch":
            if bool(self.value(inputs[1])) != (output == "1"):
                raise DeadError(name)
            return self.value(inputs[0])
        if node not in self.known:
            if operation == "Merge":
                self.known[node] = self._alive(inputs)
            else:
                self.known[node] = getattr(self, f"_{operation}")(attributes, *map(self.value, inputs))
        return self.known[node]

    def _alive(self, inputs: list[str]) -> Array:
        for name in inputs:
            try:
                return self.value(name)
            except DeadError:
                pass
        raise DeadError(inputs)

    def _Const(self, attributes):
        tensor = message_fields(attributes["value"][8][0])
        dtype = _DTYPES[tensor[1][0]]
        shape = [message_fields(d).get(1, [0])[0] for d in message_fields((tensor.get(2) or [b""])[0]).get(2, [])]
        if 4 in tensor:
            return np.frombuffer(tensor[4][0], dtype).reshape(shape)
        (number,) = tensor.get({1: 5, 3: 7, 10: 11}[tensor[1][0]], [0])
        if isinstance(number, bytes):  # packed
            number = np.frombuffer(number, "<f4")[0] if dtype.kind == "f" else varint(number, 0)[0]
        return np.full(shape, number - 2**64 if number >= 2**63 else number, dtype)

    def _Identity(self, attributes, x):
        return x

    def _Placeholder(self, attributes):
        raise KeyError("a placeholder without a value")

    def _Conv2D(self, attributes, x, kernel):
        assert strings(attributes, "data_format") in ("", "NHWC")
        if strings(attributes, "padding") == "SAME":
            before = [((size - 1) // 2, size // 2) for size in kernel.shape[:2]]
            x = np.pad(x, [(0, 0), *before, (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
        return np.tensordot(windows, kernel, axes=((3, 4, 5), (2, 0, 1)))

    def _BiasAdd(self, attributes, x, bias):
        return x + bias

    def _Relu(self, attributes, x):
        return np.maximum(x, 0)

    def _FusedBatchNorm(self, attributes, x, gamma, beta, mean, variance):
        assert attributes["is_training"].get(5, [0]) == [0]
        epsilon = np.frombuffer(attributes["epsilon"][4][0].to_bytes(4, "little"), "<f4")[0]
        return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta

    def _MaxPool(self, attributes, x):
        _, height, width, _ = numbers(attributes, "ksize")
        assert (height, width) == (1, x.shape[2])
        return x.max(axis=2, keepdims=True)

    def _Squeeze(self, attributes, x):
        return np.squeeze(x, tuple(numbers(attributes, "squeeze_dims")))

    def _ExpandDims(self, attributes, x, axis):
        return np.expand_dims(x, int(axis))

    def _Pad(self, attributes, x, padding):
        return np.pad(x, padding)

    def _Transpose(self, attributes, x, order):
        return np.transpose(x, order)

    def _ConcatV2(self, attributes, *arguments):
        return np.concatenate(arguments[:-1], axis=int(arguments[-1]))

    def _Add(self, attributes, a, b):
        return a + b

    def _Sub(self, attributes, a, b):
        return a - b

    def _Mul(self, attributes, a, b):
        return a * b

    def _Rsqrt(self, attributes, x):
        return 1 / np.sqrt(x)

    def _MatMul(self, attributes, a, b):
        return a @ b

    def _Sigmoid(self, attributes, x):
        return 1 / (1 + np.exp(-x))

    def _Max(self, attributes, x, axes):
        return x.max(axis=tuple(np.atleast_1d(axes)), keepdims=attributes["keep_dims"].get(5, [0]) == [1])

    def _Mean(self, attributes, x, axes):
        return x.mean(axis=tuple(np.atleast_1d(axes)), keepdims=attributes["keep_dims"].get(5, [0]) == [1])

    def _Shape(self, attributes, x):
        return np.array(x.shape)

    def _StridedSlice(self, attributes, x, first, stop, step):
        (part,) = x[int(first[0]) : int(stop[0]) : int(step[0])]
        return part

    def _Pack(self, attributes, *parts):
        return np.stack(parts)

    def _Reshape(self, attributes, x, shape):
        return x.reshape(shape)


def strings(attributes: Mapping[str, Any], name: str) -> str:
    return attributes[name][2][0].decode() if name in attributes else ""


def numbers(attributes: Mapping[str, Any], name: str) -> list[int]:
    """Return a list attribute of numbers, packed or not."""
    packed = message_fields(attributes[name][1][0])[3]
    found = [*packed[0]] if isinstance(packed[0], bytes) else packed
    return [number - 2**64 if number >= 2**63 else number for number in found]
