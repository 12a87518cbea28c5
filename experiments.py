"""The four experiments over several seeds, at once, and what comes of them.

    python experiments.py                        # 20 runs of 200 epochs, as many at a time as there are cores
    python experiments.py --epochs 20 --seeds 2
    tensorboard --logdir run

Each run is a ``main.py --resume`` of its own in LOGDIR/EXPERIMENT/seed=SEED. Runs that are finished are skipped and
others go on where they were, so that the same command continues after whatever stopped it. At the end the tables of
``summary.py`` are printed and written to LOGDIR/summary.md and summary.csv, the curves to LOGDIR/summary.png.
"""

import os
import signal


def stop_at_once(number: int, _: object) -> None:
    """Until a run was started, there is nothing to stop."""
    os.write(2, b"stopped before the first run began\n")
    os._exit(128 + number)


if __name__ == "__main__":  # before the imports that take a second
    signal.signal(signal.SIGINT, stop_at_once)
    signal.signal(signal.SIGTERM, stop_at_once)

import argparse
import ctypes
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import torch
from tqdm import tqdm

import baselines
import data
import download
import main
import picture
import runs
import summary
import train

PATIENCE = 30.0  # seconds that a run is given to write its checkpoint when it is stopped
LOOK = 0.25  # seconds between two looks at the runs


class Run(NamedTuple):
    """One experiment with one seed."""

    experiment: summary.Experiment
    seed: int
    folder: Path

    def arguments(self, options: argparse.Namespace) -> list[str]:
        """What ``main.py`` is called with."""
        return [
            f"--factorization_weight={self.experiment.factorization_weight}",
            f"--regression_weight={self.experiment.regression_weight}",
            *["--no_shared_embeddings"] * (not self.experiment.shared),
            f"--seed={self.seed}",
            f"--epochs={options.epochs}",
            f"--logdir={self.folder}",
            f"--data_dir={options.data_dir}",
            "--resume",
        ]

    def epochs_written(self) -> int:
        """How many epochs its ``metrics.csv`` has."""
        try:
            return max(0, (self.folder / runs.METRICS).read_bytes().count(b"\n") - 1)
        except OSError:  # not there yet, or no folder for us to read: the run itself says why
            return 0

    def history(self, options: argparse.Namespace, fingerprint: str) -> list[train.Figures] | None:
        """The figures of the epochs asked for, or None where the run is not finished or is of other settings."""
        if self.epochs_written() < options.epochs:
            return None
        asked = main.parse_arguments(self.arguments(options))
        settings = {name: getattr(asked, name) for name in main.SETTINGS}
        try:
            checkpoint = runs.load(self.folder)
        except (ValueError, OSError):
            return None
        if checkpoint is None or len(checkpoint.history) < options.epochs:
            return None
        if runs.differences(checkpoint, settings, fingerprint):
            return None
        return [train.Figures(*figures) for figures in checkpoint.history[: options.epochs]]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = main.Parser(description="Run the four experiments over several seeds.", allow_abbrev=False)
    flag = parser.add_argument
    flag("--epochs", type=int, default=200, help="of each run (%(default)s)")
    flag("--seeds", type=int, default=5, help="how many: 0, 1, … (%(default)s)")
    flag("--jobs", type=int, default=cores(), help="runs at a time (as many as there are cores: %(default)s)")
    flag("--logdir", type=Path, default=Path("run"), help="folder for the runs and the summary (%(default)s)")
    flag("--data_dir", type=Path, default=Path("data"), help="folder for the data (%(default)s)")
    return parser.parse_args(arguments)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Child:
    """A ``main.py`` that runs by itself: not reached by the terminal's Ctrl-C, and not living longer than we do.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, open as long as the process lives
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("main.py")), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )

    def failure(self) -> str | None:
        """Why it failed, in a line, or None; once it has ended."""
        status = self.process.returncode
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        last = lines[-1].removeprefix("main.py: error: ") if lines else ""
        if status < 0:
            return f"killed by {signal.Signals(-status).name}" + f"; its last words: {last}" * bool(last)
        return (last or f"exit status {status}") if status else None


LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent is gone, even by SIGKILL."""
    assert LIBC is not None
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_all(unfinished: Sequence[Run], options: argparse.Namespace, total: int) -> dict[Run, str]:
    """Run what is not finished, ``options.jobs`` at a time, with one bar for the epochs of all.

    Args:
        unfinished: the runs to start or to go on with.
        options: the flags.
        total: how many runs there are, with those that are finished.

    Returns:
        Why runs failed, in a line each.

    Raises:
        Stopped: a signal asked for it; by then no run is left running.
    """
    waiting, running, failures = deque(unfinished), dict[Run, Child](), dict[Run, str]()
    written = {run: min(run.epochs_written(), options.epochs) for run in unfinished}
    before = options.epochs * (total - len(unfinished))
    columns, lines = shutil.get_terminal_size()
    with tqdm(
        total=options.epochs * total, initial=before + sum(written.values()), disable=None, ncols=columns, nrows=lines,
        bar_format=train.BAR, smoothing=0,
    ) as bar:  # fmt: skip
        try:
            while waiting or running:
                while waiting and len(running) < options.jobs:
                    run = waiting.popleft()
                    try:
                        running[run] = Child(run.arguments(options))
                    except OSError as error:
                        failures[run] = f"cannot be started: {error.strerror}"
                time.sleep(LOOK)
                for run, child in list(running.items()):
                    ended = child.process.poll() is not None
                    written[run] = min(run.epochs_written(), options.epochs)
                    if ended and (failure := child.failure()):
                        failures[run] = failure
                    if ended:
                        del running[run]
                bar.set_postfix_str(f"{total - len(waiting) - len(running)} of {total} runs done", refresh=False)
                bar.update(before + sum(written.values()) - bar.n)
        finally:
            stop(list(running.values()))
    return failures


def stop(children: Sequence[Child]) -> None:
    """Ask all at once to write their checkpoints and end, and wait until they have."""
    for child in children:
        child.process.terminate()
    until = time.monotonic() + PATIENCE
    for child in children:
        try:
            child.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def report(histories: summary.Histories, yardsticks: Mapping[int, Sequence[baselines.Yardstick]], logdir: Path) -> None:
    """Print the tables, and write them and the picture.

    Raises:
        OSError: a file cannot be written.
    """
    rows = summary.summarize(histories, yardsticks)
    tables = summary.markdown(rows)
    print(tables)
    download.store(tables.encode(), logdir / "summary.md")
    download.store(summary.tidy(rows).encode(), logdir / "summary.csv")
    written = "summary.md and summary.csv"
    try:
        download.store(picture.draw(histories, yardsticks), logdir / "summary.png")
        written = "summary.md, summary.csv and summary.png"
    except ImportError:
        print("summary.png needs matplotlib: pip install -r requirements-dev.txt, then run this again", file=sys.stderr)
    print(f"{written} are in {logdir}; the curves: tensorboard --logdir {logdir}")


def run(options: argparse.Namespace) -> int:
    """Load the data, run, summarize; returns the exit status."""
    try:
        for name in ("epochs", "seeds", "jobs"):
            if getattr(options, name) < 1:
                raise ValueError(f"{name} is {getattr(options, name)}: expected at least 1")
        download.check_folder(options.logdir)
        interactions = data.load(options.data_dir)  # here, so that the runs need not fetch it, each for itself
    except (ValueError, OSError) as error:
        print(f"experiments.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)  # sums then round in the same way, however many threads there could be
    fraction = main.parse_arguments([]).test_fraction
    sides = {seed: main.split(interactions, fraction, seed) for seed in range(options.seeds)}
    fingerprints = {seed: train.data_of(*both) for seed, both in sides.items()}
    # Seed by seed, so that what is there when it is stopped can be compared.
    every = [
        Run(experiment, seed, options.logdir / experiment.folder / f"seed={seed}")
        for seed in range(options.seeds)
        for experiment in summary.EXPERIMENTS
    ]
    unfinished = [run for run in every if run.history(options, fingerprints[run.seed]) is None]
    if len(unfinished) < len(every):
        print(f"{len(every) - len(unfinished)} of {len(every)} runs are finished already", file=sys.stderr)
    failures = run_all(unfinished, options, len(every))
    histories: dict[summary.Experiment, dict[int, list[train.Figures]]] = {each: {} for each in summary.EXPERIMENTS}
    for each in every:
        history = None if each in failures else each.history(options, fingerprints[each.seed])
        if history is not None:
            histories[each.experiment][each.seed] = history
        else:
            failures.setdefault(each, "ended without the epochs asked for")
    status = 1 if failures else 0
    if len(failures) < len(every):
        try:
            report(histories, {seed: baselines.yardsticks(*both) for seed, both in sides.items()}, options.logdir)
        except OSError as error:
            print(f"experiments.py: error: {error}", file=sys.stderr)
            status = 1
    if failures:
        print(f"{len(failures)} of {len(every)} runs failed:", file=sys.stderr)
        for each, failure in failures.items():
            print(f"  {each.folder}: {failure}", file=sys.stderr)
    return status


def command_line(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 1 when runs failed, after a line for each; 2 after one line on stderr that says what to change;
        130 or 143 after Ctrl-C or SIGTERM.
    """
    options = parse_arguments(arguments)
    try:
        with runs.stoppable():
            return run(options)
    except runs.Stopped as stopped:
        print(f"stopped; go on with: {shlex.join(['python', *sys.argv])}", file=sys.stderr)
        return 128 + stopped.signal_number


if __name__ == "__main__":
    try:
        status = command_line()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
