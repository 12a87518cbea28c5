"""Run a command without the right to make namespaces and mounts, as in a container.

python without_namespaces.py COMMAND …
"""

import errno
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from grading.inside.system_calls import (
    ALLOW,
    DENIED,
    DROP_BOUND,
    EQUAL,
    ERROR,
    LOAD,
    RETURN,
    install,
    prctl,
    processor_column,
)

REFUSED = ("unshare", "setns", "mount", "umount2", "pivot_root", "fsopen", "open_tree", "move_mount", "mount_setattr")
SYS_ADMIN = 21

if __name__ == "__main__":
    program = [(LOAD, 0, 0, 0)]
    for name in REFUSED:
        program += [(EQUAL, 0, 1, DENIED[name][processor_column()]), (RETURN, 0, 0, ERROR | errno.EPERM)]
    install([*program, (RETURN, 0, 0, ALLOW)])  # by root's privilege, without giving up new ones, as containers do
    prctl(DROP_BOUND, SYS_ADMIN)
    os.execvp(sys.argv[1], sys.argv[1:])
