"""The warden: the process that has the machine surveyed, then runs one session after the other.

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

from grading.inside import processes
from grading.inside.survey import survey
from grading.inside.system_calls import SUBREAPER, prctl
from grading.inside.walls import Confinement, allowance
from grading.inside.worker import Submission, answer_questions

LOOK_EVERY = 0.05  # seconds between looks at a session's memory
SHARE, LONGEST_PAUSE = 10, 0.5  # a look takes a tenth of one processor's time, or there are two looks in a second
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


def main(control: socket.socket, outside: socket.socket, settings: dict[str, Any]) -> None:
    """Run a session for each message, which is a job in JSON with the two file descriptors for its worker.

    Args:
        control: receives the jobs, and sends the survey's result and a report on each session.
        outside: contains the paths that the survey tries. They are not read here (``survey.py``).
    """
    root = settings["root"]
    prctl(SUBREAPER, 1)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    (torch.zeros(8, 8).half() @ torch.zeros(8, 8).half()).float()  # reads /proc/cpuinfo, which workers cannot
    sys.path.pop(0)  # this package's: it is loaded already, and a submission's imports find nothing here
    del sys.argv[1:]  # a submission that parses its arguments finds none
    readable = installation()
    gc.collect()
    gc.freeze()
    confined = survey(settings["walls"], outside, readable, Path(root))
    outside.close()
    with contextlib.suppress(ConnectionError):  # the grader was killed meanwhile
        control.send(json.dumps(asdict(confined)).encode())
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
            if not message or not supervise(control, json.loads(message), confined, readable, *descriptors):
                break
    subprocess.Popen(["rm", "-rf", "--", root], stderr=subprocess.DEVNULL)  # the grader may have been killed


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
        looked = time.thread_time()
        if "limits" in walls and not reason:
            reason = processes.exceeded_limit(leader, own, scratch)
            if reason:
                os.killpg(leader, signal.SIGKILL)
        pause = max(LOOK_EVERY, min(LONGEST_PAUSE, SHARE * (time.thread_time() - looked)))
    connected = False
    with contextlib.suppress(ConnectionError):  # the grader was killed
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
