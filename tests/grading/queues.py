"""The queues and the semaphore of a user, which attacks read, change and remove.

Python has no module for System V's, and none for POSIX's queues, so this makes the system calls by their numbers.
"""

import contextlib
import os

from grading.inside.system_calls import call_denied

KEY = 0x6D6F7669  # of the System V queue that an attack leaves
MESSAGE = (1).to_bytes(8, "little") + b"a secret"  # a message's type, and its text


class Queues:
    """A System V queue with a message, a semaphore and a POSIX queue, open to all users."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.names = {"mqueue": f"walls-{os.getpid()}", "left": f"walls-{os.getpid()}-left"}

    def renew(self) -> dict[str, object]:
        """Make all of them anew, and return their numbers and names for attacks."""
        self.remove()
        self.numbers["queue"] = call_denied("msgget", 0, 0o666)
        self.numbers["semaphore"] = call_denied("semget", 0, 1, 0o666)
        call_denied("msgsnd", self.numbers["queue"], MESSAGE, 8, 0)
        opened = call_denied("mq_open", self.names["mqueue"].encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
        os.fchmod(opened, 0o666)  # without the mask of new files
        os.close(opened)
        return {**self.numbers, **self.names, "key": KEY}

    def left(self) -> bool:
        """Remove the queues that an attack has left for the next session, and tell whether there was one."""
        found = False
        with contextlib.suppress(FileNotFoundError):
            call_denied("msgctl", call_denied("msgget", KEY, 0), 0, None)
            found = True
        with contextlib.suppress(FileNotFoundError):
            call_denied("mq_unlink", self.names["left"].encode())
            found = True
        return found

    def remove(self) -> None:
        with contextlib.suppress(KeyError, OSError):  # it is not made yet, or an attack has removed it
            call_denied("msgctl", self.numbers["queue"], 0, None)
        with contextlib.suppress(KeyError, OSError):
            call_denied("semctl", self.numbers["semaphore"], 0, 0, None)
        with contextlib.suppress(FileNotFoundError):
            call_denied("mq_unlink", self.names["mqueue"].encode())
        self.left()
