"""Training processes that are killed repeatedly, resumed each time, and compared with an uninterrupted run."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import runs

from tracking.checkpoint import CHECKPOINT, load_checkpoint

ROOT = Path(__file__).parent.parent.parent
# Each epoch has a checkpoint, which takes 20 ms longer, so that kills come in every part of a run.
SLOW_WRITER = """
import os, sys, time
import main
from tracking import record
record.CHECKPOINT_SECONDS = 0
fsync = os.fsync
def slow(file):
    time.sleep(0.01)
    fsync(file)
    time.sleep(0.01)
os.fsync = slow
sys.exit(main.main(sys.argv[1:]))
"""


def start(logdir: Path, data_dir: Path) -> "subprocess.Popen[bytes]":
    arguments = ["--epochs=20", f"--logdir={logdir}", f"--data_dir={data_dir}", "--device=cpu", "--resume"]
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITER, *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def unfinished_checkpoints(logdir: Path) -> set[Path]:
    return set(logdir.glob(f".{CHECKPOINT}.*"))


def wait_for_a_moment(process: "subprocess.Popen[bytes]", logdir: Path, in_a_checkpoint: bool, seconds: float) -> bool:
    """Wait this long, then for a checkpoint in progress if wanted; return whether one is being written."""
    left_behind = unfinished_checkpoints(logdir)
    until = time.monotonic() + seconds
    while process.poll() is None:
        writes = bool(unfinished_checkpoints(logdir) - left_behind)
        if time.monotonic() > until and (writes or not in_a_checkpoint):
            return writes
        time.sleep(0.001)
    return False


@pytest.mark.parametrize(
    "kills", [pytest.param(8, marks=pytest.mark.long), pytest.param(100, marks=pytest.mark.exhaustive)]
)
def test_killed_runs_are_bit_identical_after_resuming(kills: int, tmp_path: Path, data_dir: Path) -> None:
    """Every second kill hits a run that is writing a checkpoint. The others come at random moments."""
    choose = random.Random(0)
    whole = tmp_path / "whole"
    assert start(whole, data_dir.absolute()).wait() == 0
    killed = in_a_checkpoint = finished = 0
    while killed < kills:
        logdir = tmp_path / f"run{finished}"
        status = None
        while status != 0:
            process = start(logdir, data_dir.absolute())
            if killed < kills:
                writes = wait_for_a_moment(process, logdir, killed % 2 == 1, choose.uniform(0.3, 4.5))
                if process.poll() is None:
                    process.kill()
                    killed += 1
                    in_a_checkpoint += writes
            status = process.wait()
            assert status in (0, -9)
            load_checkpoint(logdir)  # raises ValueError if it is damaged
        assert runs.same_result(logdir, whole)
        finished += 1
    assert in_a_checkpoint >= kills // 4
