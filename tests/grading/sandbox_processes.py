"""The processes of a sandbox, found by its folder in their environment."""

import contextlib
import os
from pathlib import Path


def processes_of(sandbox_folder: Path) -> list[str]:
    """Return the IDs of the processes with a folder in their environment, for instance as HOME or TMPDIR."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found += [path.parent.name] if os.fsencode(sandbox_folder) in path.read_bytes() else []
    return found
