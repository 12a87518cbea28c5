"""The process beside the grader that starts a submission's processes, limits them, and ends whatever they leave.

``sandbox.py`` starts a copy of a part of this package with clean surroundings; the reference network, the equations and
the ratings are never imported here. The *warden* loads torch once, finds out which walls there are (``survey.py``), and
then, for each check, has a session run (``guard.py``) whose worker answers questions about a models.py.
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
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from grading.confinement import Confinement
from grading.guard import end, fork_guarded, over_limit, read_reports, resident_memory
from grading.kernel import SUBREAPER, prctl
from grading.survey import inside, installation, survey
from grading.worker import Submission, answer_questions

LOOK_EVERY = 0.05  # seconds between looks at a session's memory, or ten times what a look takes


def answer(code: str, scratch: str) -> Callable[[int], None]:
    """The worker's work: answer questions about the models.py in a folder."""

    def work(report: int) -> None:
        os.close(report)
        assert isinstance(sys.stdout, io.TextIOWrapper)
        sys.stdout.reconfigure(line_buffering=True)  # what was printed last is not lost with the process
        os.environ["HOME"] = os.environ["TMPDIR"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.tempdir = scratch
        os.chdir(scratch)
        answer_questions(socket.socket(fileno=3), Submission(code))

    return work


@functools.cache
def load_adam() -> None:
    """Do once what every worker that trains would have to do: with its first Adam torch imports for a second."""
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], fused=True)
    gc.collect()
    gc.freeze()


def supervise(
    control: socket.socket,
    job: dict[str, Any],
    confined: Confinement,
    readable: Sequence[str],
    answers: int,
    output: int,
) -> bool:
    """Run one worker until the other side says so, and report its end: status, and why it was ended.

    Returns:
        False when the other side is gone.
    """
    if job["trains"]:
        load_adam()
    walls, own = confined.walls, resident_memory(os.getpgrp()).get(os.getpid(), 0)
    if "user" in walls:
        os.chown(job["scratch"], confined.user, confined.user)
    what = inside(job, walls, confined.user, readable)
    guard, report = fork_guarded(walls, what, answers, output, answer(job["code"], job["scratch"]))
    os.close(answers)
    os.close(output)
    scratch = None if "namespaces" in walls else job["scratch"]
    reason, pause = "", LOOK_EVERY
    while not select.select([control], [], [], pause)[0]:
        looked = time.monotonic()
        if "limits" in walls and not reason and (reason := over_limit(guard, own, job["memory"], scratch)):
            os.killpg(guard, signal.SIGKILL)
        pause = max(LOOK_EVERY, 10 * (time.monotonic() - looked))
    there = bool(control.recv(64))
    found = read_reports(report)
    os.close(report)
    gone = end(guard)
    try:
        control.send(json.dumps({"status": None, "reason": reason, "gone": gone} | found).encode())
    except OSError:  # the other side is gone without having said so
        return False
    return there and gone


def main(settings: dict[str, Any]) -> None:
    """Be the warden: a job a message, with the two file descriptors for its worker."""
    control, root = socket.socket(fileno=settings["control"]), settings["root"]
    prctl(SUBREAPER, 1)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    (torch.zeros(8, 8).half() @ torch.zeros(8, 8).half()).float()  # looks at /proc/cpuinfo, which workers cannot
    sys.path.pop(0)  # this package's: what is there already stays, and a submission's modules find nothing here
    del sys.argv[1:], sys.orig_argv[1:]
    readable = installation()
    gc.collect()
    gc.freeze()
    wanted, outside = settings["walls"], settings["outside"]
    settings.clear()  # workers have it, too, in __main__
    confined = survey(wanted, outside, readable, Path(root))
    del outside
    with contextlib.suppress(BrokenPipeError):  # the grader has been killed meanwhile, which the loop sees, too
        control.send(json.dumps(asdict(confined)).encode())
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not message or not supervise(control, json.loads(message), confined, readable, *descriptors):
            break
    subprocess.run(["rm", "-rf", "--", root], stderr=subprocess.DEVNULL, check=False)  # the grader may have been killed
