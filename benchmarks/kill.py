"""Kill a training process again and again, resume it each time, and compare it with one that was left alone.

    python benchmarks/kill.py --kills 100        # about eight minutes

A real ``main.py`` is killed with SIGKILL: at random moments, from its start-up on, and every second time as soon as it
is seen writing a checkpoint. So that the moments fall into every part of its work, it writes a checkpoint after each
epoch rather than every two seconds, and takes 20 ms longer for each. After each kill the checkpoint must load. A run
that reaches its end must have the same weights, optimizer, random numbers, metrics, ``metrics.csv`` and TensorBoard
curves, bit for bit, as the run that was never interrupted.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import random
import subprocess
import tempfile
import time
from dataclasses import dataclass

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cli.arguments import Parser
from tracking import checkpoint
from tracking.checkpoint import CHECKPOINT, METRICS

CHILD = """
import os, sys, time
import main
from tracking import saving
saving.CHECKPOINT_SECONDS = 0
fsync = os.fsync
def slow(file):
    time.sleep(0.01)
    fsync(file)
    time.sleep(0.01)
os.fsync = slow
sys.exit(main.main(sys.argv[1:]))
"""


@dataclass
class Report:
    """What came of it."""

    kills: int = 0
    in_a_checkpoint: int = 0
    corrupt: int = 0
    finished: int = 0
    different: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.in_a_checkpoint} of them while a checkpoint was written; "
            f"{self.corrupt} checkpoints found corrupt; {self.finished} runs brought to their end, "
            f"{self.different} with a different result"
        )


def start(logdir: Path, epochs: int, data_dir: Path, resume: bool) -> "subprocess.Popen[bytes]":
    arguments = [f"--epochs={epochs}", f"--logdir={logdir}", f"--data_dir={data_dir}", "--device=cpu"]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments, *["--resume"] * resume],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def curves(logdir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads in all event files of a folder: tag → (step, value)."""
    events = EventAccumulator(str(logdir), purge_orphaned_data=False)
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def same_result(one: Path, other: Path) -> bool:
    """Whether two finished runs agree in all but when their epochs ended."""
    a, b = checkpoint.load(one), checkpoint.load(other)
    assert a is not None
    assert b is not None
    return (
        (a.settings, a.data, a.history, a.ranking) == (b.settings, b.data, b.history, b.ranking)
        and list(a.tensors) == list(b.tensors)
        and all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
        and (one / METRICS).read_bytes() == (other / METRICS).read_bytes()
        and curves(one) == curves(other)
    )


def writing(logdir: Path) -> set[Path]:
    """The checkpoints in a folder that are not finished."""
    return set(logdir.glob(f".{CHECKPOINT}.*"))


def wait_for_a_moment(process: "subprocess.Popen[bytes]", logdir: Path, in_a_checkpoint: bool, seconds: float) -> bool:
    """Wait so many seconds and then, if asked, until a checkpoint is being written; returns whether one is."""
    left_behind, until = writing(logdir), time.monotonic() + seconds
    while process.poll() is None:
        now = bool(writing(logdir) - left_behind)
        if time.monotonic() > until and (now or not in_a_checkpoint):
            return now
        time.sleep(0.001)
    return False


def campaign(kills: int, folder: Path, data_dir: Path, seed: int = 0, epochs: int = 25) -> Report:
    """Kill until the number is reached; then let the last run end too."""
    choose, report = random.Random(seed), Report()
    reference, number = folder / "reference", 0
    if start(reference, epochs, data_dir, resume=False).wait() != 0:
        raise RuntimeError("the run that was left alone failed")
    while report.kills < kills or number == 0:
        number += 1
        logdir, ended = folder / f"run{number}", False
        while not ended:
            process = start(logdir, epochs, data_dir, resume=True)
            if report.kills < kills:
                caught = wait_for_a_moment(process, logdir, report.kills % 2 == 1, choose.uniform(0.3, 4.5))
                if process.poll() is None:
                    report.in_a_checkpoint += caught
                    process.kill()
                    report.kills += 1
            status = process.wait()
            try:
                checkpoint.load(logdir)
            except ValueError:
                report.corrupt += 1
            if status not in (0, -9):
                raise RuntimeError(f"a resumed run ended with status {status}")
            ended = status == 0
        report.finished += 1
        report.different += not same_result(logdir, reference)
    return report


def command_line() -> int:
    parser = Parser(description="Kill, resume, compare.")
    parser.add_argument("--kills", type=int, default=100, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    parser.add_argument("--epochs", type=int, default=25, help="of each run (%(default)s)")
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data", help="folder for the data (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = campaign(options.kills, Path(folder), options.data_dir.absolute(), options.seed, options.epochs)
    print(report)
    return 1 if report.corrupt or report.different else 0


if __name__ == "__main__":
    command.end(command_line)
