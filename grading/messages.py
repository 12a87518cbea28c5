"""What crosses the border between the grader and a submission's process: questions there, plain arrays back.

A message is two lengths (bytes of JSON, bytes of arrays; uint32 big-endian), JSON {"value": …, "arrays": [[dtype,
shape], …]} in which {"array": k} stands for the k-th array, and the arrays' bytes in C order. A question is [token,
method, arguments]; its answer {"token": token, "answer": …}, or {"token": token, "error": text}.

What comes from a submission's process is only as honest as the submission. Reading a message executes nothing, and
``Answer`` checks the form of whatever is taken out of it.
"""

import builtins
import json
import math
import socket
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

# This is also used in the submission's process: what it replaces in these modules is not used here.
globals()["__builtins__"] = dict(vars(builtins))
dumps, ascontiguousarray = json.dumps, np.ascontiguousarray

LENGTHS = struct.Struct(">II")
LARGEST_JSON, LARGEST_ARRAYS = 2**22, 2**27  # bytes
DTYPES = ("float32", "float64", "int64", "int32", "int16")
NO_ANSWER = "something that is no answer came from the submission's process"


def pack(value: Any) -> bytes:
    """A message of dicts, lists, strings, numbers and numpy arrays."""
    arrays: list[NDArray[Any]] = []

    def without_arrays(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            arrays.append(ascontiguousarray(part).reshape(part.shape))
            return {"array": len(arrays) - 1}
        if isinstance(part, dict):
            return {name: without_arrays(each) for name, each in part.items()}
        if isinstance(part, list | tuple):
            return [without_arrays(each) for each in part]
        return part

    text = dumps({"value": without_arrays(value), "arrays": [[x.dtype.name, x.shape] for x in arrays]}).encode()
    payload = b"".join(x.tobytes() for x in arrays)
    return LENGTHS.pack(len(text), len(payload)) + text + payload


def lengths(header: bytes) -> tuple[int, int]:
    """The two lengths with which a message begins.

    Raises:
        ValueError: they are larger than any message.
    """
    text, payload = LENGTHS.unpack(header)
    if text > LARGEST_JSON or payload > LARGEST_ARRAYS:
        raise ValueError(f"a message of {text} + {payload} bytes")
    return text, payload


def unpack(text: bytes, payload: bytes) -> Any:
    """The value of a message, from its two parts. Nothing in it is trusted.

    Raises:
        ValueError: it is not well-formed.
    """
    try:
        message = json.loads(text)
        arrays, start = {}, 0
        for place, (dtype, shape) in enumerate(message["arrays"]):
            if dtype not in DTYPES or not all(type(size) is int and 0 <= size <= LARGEST_ARRAYS for size in shape):
                raise ValueError(f"an array of type {dtype!r} and shape {shape!r}")
            end = start + math.prod(shape) * np.dtype(dtype).itemsize
            if end > len(payload):
                raise ValueError("an array that is not there")
            arrays[place] = np.frombuffer(payload[start:end], dtype).reshape(shape)
            start = end

        def with_arrays(part: Any) -> Any:
            if isinstance(part, dict):
                if part.keys() == {"array"}:
                    return arrays.pop(part["array"])  # once: a short message stays small
                return {name: with_arrays(each) for name, each in part.items()}
            return [with_arrays(each) for each in part] if isinstance(part, list) else part

        return with_arrays(message["value"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise ValueError(f"not a message: {error}") from error


def receive(channel: socket.socket) -> Any:
    """The next message; None when the other side has closed."""

    def exactly(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count and (part := channel.recv(min(count - len(parts), 2**20))):
            parts += part
        return bytes(parts)

    header = exactly(LENGTHS.size)
    if len(header) < LENGTHS.size:
        return None
    text, payload = lengths(header)
    return unpack(exactly(text), exactly(payload))


class Unanswered(Exception):
    """The submission gave no usable answer; says why, to its author."""


class Answer:
    """An answer whose form is checked when something is taken out of it.

    Raises:
        Unanswered: from every method, where the form is another one.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    def _get(self, name: str) -> Any:
        return _checked(self._value, dict).get(name)

    def __contains__(self, name: str) -> bool:
        return isinstance(self._value, dict) and name in self._value

    def array(self, name: str) -> NDArray[np.float64]:
        """An array, in double precision."""
        return _array(self._get(name))

    def arrays(self, name: str) -> list[NDArray[np.float64]]:
        """A list of arrays."""
        return [_array(each) for each in _checked(self._get(name), list)]

    def named_arrays(self, name: str | None = None) -> dict[str, NDArray[np.float64]]:
        """Arrays by name; the whole answer without one."""
        value = _checked(self._value if name is None else self._get(name), dict)
        return {key: _array(each) for key, each in value.items()}

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        return [_checked(each, str) for each in _checked(self._get(name), list)]

    def text_lists(self, name: str) -> list[list[str]]:
        """A list of lists of strings."""
        lists = _checked(self._get(name), list)
        return [[_checked(text, str) for text in _checked(each, list)] for each in lists]

    def integers(self, name: str) -> list[int]:
        """A list of integers."""
        return [_checked(each, int) for each in _checked(self._get(name), list)]

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """A list of shapes."""
        lists = _checked(self._get(name), list)
        return [tuple(_checked(size, int) for size in _checked(each, list)) for each in lists]


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise Unanswered(NO_ANSWER)
    return value


def _array(value: Any) -> NDArray[np.float64]:
    return np.asarray(_checked(value, np.ndarray), dtype=np.float64)
