"""Messages between the grader and a submission's process: questions there, plain arrays back.

A message is two lengths (bytes of JSON, bytes of arrays; uint32 big-endian), JSON {"arrays": {name: [dtype, shape], …},
"values": {name: value, …}, …}, and the content of the arrays in this order, each in C order. A question has also its
"token" and the name of its "method", whose arguments are the values and the arrays. The answer has the same token, and
the values and arrays that the method returns, or an "error".
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
Values = dict[str, Any]  # numpy arrays, and values that JSON can write


def pack(values: Values, **more: str) -> bytes:
    """Write a message of numpy arrays and other values by name."""
    arrays = {name: each for name, each in values.items() if isinstance(each, np.ndarray)}
    message = {
        "arrays": {name: [array.dtype.name, array.shape] for name, array in arrays.items()},
        "values": {name: each for name, each in values.items() if name not in arrays},
    }
    text = dumps(message | more).encode()
    content = b"".join(ascontiguousarray(array).tobytes() for array in arrays.values())
    return LENGTHS.pack(len(text), len(content)) + text + content


def receive(channel: socket.socket) -> tuple[dict[str, Any], Values] | None:
    """Read the grader's next message and its values; return None when the grader has closed the channel."""

    def exactly(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count and (part := channel.recv(min(count - len(parts), 2**20))):
            parts += part
        return bytes(parts)

    header = exactly(LENGTHS.size)
    if len(header) < LENGTHS.size:
        return None
    length, _ = LENGTHS.unpack(header)
    message = json.loads(exactly(length))
    arrays: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape) in message["arrays"].items():
        size = math.prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(exactly(size), dtype).reshape(shape)
    return message, message["values"] | arrays
