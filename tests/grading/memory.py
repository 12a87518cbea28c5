"""A bound on the memory that code takes in this process."""

import contextlib
import tracemalloc
from collections.abc import Iterator


@contextlib.contextmanager
def memory_below(most: int) -> Iterator[None]:
    """Check that code takes at most this many bytes of Python and numpy, whatever was taken before."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= most, f"{peak:,} bytes"
