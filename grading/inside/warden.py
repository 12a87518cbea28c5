"""The warden: the process that surveys the machine's walls, then runs one session after the other.

``sandbox.py`` starts it on a copy of this folder with a clean environment. The reference network, the equations and the
ratings are never imported here. The warden loads torch once. For each check it forks the processes of a session
(``processes.py``), whose worker answers questions about a models.py.
"""

import contextlib
import functools
import gc
import io
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grading.inside import landlock, processes
from grading.inside.system_calls import SUBREAPER, prctl
from grading.inside.walls import MEMORY, WALLS, Allowance, Confinement, reached
from grading.inside.worker import Submission, answer_questions

LOOK_EVERY = 0.05  # seconds between looks at a session's memory; ten times the length of a look if that is longer
START = 20.0  # seconds for walls to be put up
TASKS = 64  # processes and threads of a session
USERS = range(60600, 61184)  # IDs that Linux distributions leave unused
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


def main(settings: dict[str, Any]) -> None:
    """Run a session for each message, which is a job in JSON with the two file descriptors for its worker."""
    control, root = socket.socket(fileno=settings["control"]), settings["root"]
    prctl(SUBREAPER, 1)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    (torch.zeros(8, 8).half() @ torch.zeros(8, 8).half()).float()  # reads /proc/cpuinfo, which workers cannot
    sys.path.pop(0)  # this package's: it is loaded already, and a submission's imports find nothing here
    del sys.argv[1:], sys.orig_argv[1:]
    readable = installation()
    gc.collect()
    gc.freeze()
    wanted, outside = settings["walls"], settings["outside"]
    settings.clear()  # workers inherit it in __main__
    confined = survey(wanted, outside, readable, Path(root))
    del outside
    with contextlib.suppress(BrokenPipeError):  # the grader has been killed meanwhile; the loop ends, too
        control.send(json.dumps(asdict(confined)).encode())
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not message or not supervise(control, json.loads(message), confined, readable, *descriptors):
            break
    subprocess.run(["rm", "-rf", "--", root], stderr=subprocess.DEVNULL, check=False)  # the grader may have been killed


def survey(wanted: Sequence[str], outside: Sequence[str], readable: Sequence[str], folder: Path) -> Confinement:
    """Find out which walls this machine has by putting them up, and the gaps that they leave to files outside.

    The folders of a session are made in a folder for the time being.
    """
    code, scratch = folder / "code", folder / "scratch"
    code.mkdir()
    scratch.mkdir()
    job = {"code": str(code), "scratch": str(scratch), "seconds": 10}
    missing: dict[str, str] = {}
    user = os.getuid()
    if "user" in wanted:
        if user == 0:
            user = _unused_user()
            os.chown(scratch, user, user)
        else:
            missing["user"] = "the grader is not root"
    if "landlock" in wanted and not landlock.version():
        missing["landlock"] = "this kernel has none"
    while True:
        walls = [wall for wall in WALLS if wall in wanted and wall not in missing]
        found = _put_up(walls, allowance(job, walls, user, readable), outside)
        if "wall" not in found:
            break
        missing[found["wall"]] = found["reason"]
    code.rmdir()
    scratch.rmdir()
    gaps = found.get("gaps", ["everything: the process within the walls gave no report"])
    user = user if "user" in walls else os.getuid()
    return Confinement(walls, landlock.version() if "landlock" in walls else 0, user, gaps, missing)


def _put_up(walls: Sequence[str], allowance: Allowance, outside: Sequence[str]) -> dict[str, Any]:
    """Put walls up around a session that tries to reach things outside; return its reports."""
    warden = os.getpid()

    def try_to_reach(report: int) -> None:
        processes.write_report(report, {"gaps": reached(outside, warden)})

    null = os.open(os.devnull, os.O_RDWR)
    leader, report = processes.start(walls, allowance, null, null, try_to_reach)
    os.close(null)
    found: dict[str, Any] = {}
    while not {"status", "wall"} & found.keys() and select.select([report], [], [], START)[0]:
        if not (news := processes.read_reports(report)):
            break
        found |= news
    os.close(report)
    processes.end(leader)
    return found


def allowance(job: dict[str, Any], walls: Sequence[str], user: int, readable: Sequence[str]) -> Allowance:
    """Set the rights of a session within these walls."""
    shares_user = not {"user", "namespaces"} & {*walls}
    return Allowance(
        readable=[*readable, job["code"]],
        scratch=job["scratch"],
        user=user,
        addresses=_mapped() + 2 * MEMORY,
        tasks=TASKS + (_tasks_of_user() if shares_user else 0),
        seconds=job["seconds"],
    )


def installation() -> list[str]:
    """List the files and folders of Python, torch and numpy, which a submission may read."""
    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    folders += [str(Path(str(package.__file__)).parent.parent) for package in (torch, np)]
    with contextlib.suppress(OSError):
        mapped = Path("/proc/self/maps").read_text().splitlines()
        folders += [line.split(maxsplit=5)[5] for line in mapped if ".so" in line]
    found: list[str] = []
    for path in sorted({*LIBRARIES, *folders}):
        if os.path.exists(path) and not any(path.startswith(f"{each}/") for each in found):
            found.append(path)
    return found


def _unused_user() -> int:
    """Reserve a user ID that no other warden has, by a socket name that is freed when this process ends."""
    for user in USERS:
        with contextlib.suppress(OSError):
            lock = socket.socket(socket.AF_UNIX)
            lock.bind(f"\0models.py grader, user {user}")
            _locks.append(lock)
            return user
    raise OSError(f"more than {len(USERS)} sandboxes at a time")


_locks: list[socket.socket] = []


def _mapped() -> int:
    """Count the bytes of addresses that this process has mapped; 2**46 on systems without /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 2**46


def _tasks_of_user() -> int:
    count = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            count += len(os.listdir(entry / "task")) if entry.stat().st_uid == os.getuid() else 0
    return count


def supervise(
    control: socket.socket,
    job: dict[str, Any],
    confined: Confinement,
    readable: Sequence[str],
    answers: int,
    output: int,
) -> bool:
    """Run one session until the grader ends it, and report the worker's exit status and any limit it exceeded.

    Returns:
        False when the grader is gone or processes are left.
    """
    if job["trains"]:
        load_adam()
    walls = confined.walls
    own = processes.resident_memory(os.getpgrp()).get(os.getpid(), 0)
    if "user" in walls:
        os.chown(job["scratch"], confined.user, confined.user)
    rights = allowance(job, walls, confined.user, readable)
    work = functools.partial(answer, job["code"], job["scratch"])
    leader, report = processes.start(walls, rights, answers, output, work)
    os.close(answers)
    os.close(output)
    scratch = None if "namespaces" in walls else job["scratch"]
    reason, pause = "", LOOK_EVERY
    while not select.select([control], [], [], pause)[0]:
        looked = time.monotonic()
        if "limits" in walls and not reason:
            reason = processes.exceeded_limit(leader, own, scratch)
            if reason:
                os.killpg(leader, signal.SIGKILL)
        pause = max(LOOK_EVERY, 10 * (time.monotonic() - looked))
    connected = bool(control.recv(64))
    found = processes.read_reports(report)
    os.close(report)
    gone = processes.end(leader)
    try:
        control.send(json.dumps({"status": None, "reason": reason, "gone": gone} | found).encode())
    except OSError:  # the grader was killed meanwhile
        return False
    return connected and gone


def answer(code: str, scratch: str, report: int) -> None:
    """Answer questions about the models.py in a folder, as the worker."""
    os.close(report)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # keeps the last line if the process is killed
    os.environ["HOME"] = os.environ["TMPDIR"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.tempdir = scratch
    os.chdir(scratch)
    answer_questions(socket.socket(fileno=3), Submission(code))


@functools.cache
def load_adam() -> None:
    """Load the modules that torch imports with the first Adam, which would take each worker a second."""
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], fused=True)
    gc.collect()
    gc.freeze()
