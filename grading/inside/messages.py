"""Messages between the grader and a submission's process: questions there, plain arrays back.

A message is two lengths (bytes of JSON, bytes of arrays; uint32 big-endian), JSON {"value": …, "arrays": [[dtype,
shape], …]} in which {"array": k} stands for the k-th array, and the arrays' bytes in C order. A question is [token,
method, arguments]; its answer is {"token": token, "answer": …} or {"token": token, "error": string}.

A submission can send any bytes. Reading a message executes none of them, and ``session.Answer`` checks the form of
each value before the grader uses it.
"""

import builtins
import json
import math
import socket
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The submission's process uses this module, too, and can replace functions in these libraries: bind ours before that.
globals()["__builtins__"] = dict(vars(builtins))
dumps, ascontiguousarray = json.dumps, np.ascontiguousarray

LENGTHS = struct.Struct(">II")
LARGEST_JSON, LARGEST_ARRAYS = 2**22, 2**27  # bytes
DTYPES = ("float32", "float64", "int64", "int32", "int16")


def pack(value: Any) -> bytes:
    """Write a message of dicts, lists, strings, numbers and numpy arrays."""
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
    """Read the two lengths at the beginning of a message, or raise ValueError if one exceeds its maximum."""
    text, payload = LENGTHS.unpack(header)
    if text > LARGEST_JSON or payload > LARGEST_ARRAYS:
        raise ValueError(f"a message of {text} + {payload} bytes")
    return text, payload


def unpack(text: bytes, payload: bytes) -> Any:
    """Read the value of an untrusted message from its JSON and its arrays' bytes, or raise ValueError."""
    try:
        message = json.loads(text)
        arrays, start = {}, 0
        for place, (dtype, shape) in enumerate(message["arrays"]):
            if dtype not in DTYPES or not all(type(size) is int and 0 <= size <= LARGEST_ARRAYS for size in shape):
                raise ValueError(f"an array of type {dtype!r} and shape {shape!r}")
            end = start + math.prod(shape) * np.dtype(dtype).itemsize
            if end > len(payload):
                raise ValueError("an array is longer than the message")
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
    """Read the next message; return None when the other process has closed the channel."""

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
