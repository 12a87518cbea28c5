"""The time of training, of scoring and of a whole experiment, as ratios within one run.

    python benchmarks/speed.py                   # about ten minutes
    python benchmarks/speed.py --rounds 1 --epochs 3

Three contenders take turns, round by round, on the same data: the plain procedure (``plain_trainer.py``), this project
with its eager step (``main.py --eager``), and this project by default (``main.py``, "shipped"). Each cell is the median
over the rounds with the smallest and the largest value; the ratio is plain / shipped, round by round.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial

import plain_trainer
import torch
from harness import machine, timed

import data
import metrics
from cli.arguments import Parser, add_options, flags_of, options_of
from datasets.source import DataSource
from training import setup
from training.settings import Settings

CONTENDERS = ("plain", "eager", "shipped")
FULL = 200  # epochs of an experiment
Rows = dict[str, dict[str, list[float]]]  # row → contender → a value for each round


def measure_inside(source: DataSource, sharing: bool, rounds: int) -> Rows:
    """Time an epoch, the MSE and the MRR of each contender in turn."""
    setup.flush_denormals()
    settings = Settings(shared_embeddings=sharing)
    train, _, test = setup.split(data.read(source), settings)
    cpu = torch.device("cpu")
    network = setup.make_network(settings, train.num_users, train.num_items, cpu)
    plain = plain_trainer.PlainTrainer(network, train, settings)
    trainers = {name: setup.make_trainer(settings, train, cpu, eager=name == "eager") for name in ("eager", "shipped")}
    rows: Rows = {}

    def record(row: str, contender: str, function: Callable[[], object]) -> None:
        rows.setdefault(row, {}).setdefault(contender, []).append(timed(function))

    for turn in range(rounds + 1):
        record("training epoch", "plain", plain.fit)
        record("MSE", "plain", partial(plain_trainer.plain_mse, network, test))
        record("MRR", "plain", partial(plain_trainer.plain_mrr, network, test, train))
        for name, trainer in trainers.items():
            with setup.resources_for(trainer.model, trainer.batch_size):
                record("training epoch", name, trainer.run_epoch)
                record("MSE", name, partial(metrics.mse_score, trainer.scorer, test))
                # The eager contender ranks with forward alone, like a network without the homework's names.
                ranked = trainer.model if name == "eager" else trainer.scorer
                record("MRR", name, partial(metrics.mrr_score, ranked, test, train))
        if turn == 0:  # the first round warms up
            rows.clear()
    return rows


def run_process(contender: str, flags: list[str], sharing: bool, epochs: int, threads: int) -> tuple[float, float]:
    """Run a whole experiment as a process; return the seconds from start to exit and the peak memory in MiB."""
    script = ROOT / ("benchmarks/plain_trainer.py" if contender == "plain" else "main.py")
    more = {"plain": [], "eager": ["--device=cpu", "--eager"], "shipped": ["--device=cpu"]}[contender]
    more += ["--no_shared_embeddings"] * (not sharing)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(script), f"--epochs={epochs}", f"--logdir={folder}/run", *flags, *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{script.name} exited with status {process.returncode}")
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure_processes(options: argparse.Namespace, flags: list[str], sharing: bool, threads: int) -> Rows:
    """Time whole experiments of one epoch and of some, and extrapolate the time of all epochs."""
    rows: Rows = {}
    for _ in range(options.rounds):
        for contender in CONTENDERS:
            first, _ = run_process(contender, flags, sharing, 1, threads)
            some, memory = run_process(contender, flags, sharing, options.epochs, threads)
            whole = first + (some - first) * (FULL - 1) / (options.epochs - 1)
            values = {"one epoch, start to exit": first, f"{FULL} epochs, start to exit*": whole, "peak memory": memory}
            for row, value in values.items():
                rows.setdefault(row, {}).setdefault(contender, []).append(value)
    return rows


def cell(row: str, values: list[float]) -> str:
    """Write the median and the range of a contender's values."""
    scale, unit, digits = {"peak memory": (1, "MiB", 0)}.get(row, (1, "s", 2) if max(values) > 0.5 else (1e3, "ms", 1))
    shown = [f"{value * scale:.{digits}f}" for value in (statistics.median(values), min(values), max(values))]
    return f"{shown[0]} {unit} ({shown[1]}–{shown[2]})"


def print_rows(rows: Rows, mode: str, threads: int) -> None:
    """Print a row for each measurement."""
    for row, columns in rows.items():
        ratios = [plain / shipped for plain, shipped in zip(columns["plain"], columns["shipped"], strict=True)]
        ratio = f"**{statistics.median(ratios):.1f}** ({min(ratios):.1f}–{max(ratios):.1f})"
        cells = [cell(row, columns[contender]) for contender in CONTENDERS]
        print(f"| {row} | {mode} | {threads} | {' | '.join(cells)} | {ratio} |", flush=True)


def command_line() -> int:
    """Run the command line; returns the exit status."""
    parser = Parser("Measure speed and memory as ratios within one run.")
    flag = parser.add_argument
    modes = ["shared", "separate"]
    flag("--rounds", type=int, default=5, metavar="N", help="number of measured rounds (default: %(default)s)")
    flag("--epochs", type=int, default=8, metavar="N",
         help=f"epochs from which {FULL} are extrapolated (default: %(default)s)")  # fmt: skip
    flag("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="values of OMP_NUM_THREADS (default: 1 2)")
    flag("--embeddings", nargs="+", choices=modes, default=modes, help="kinds of tables (default: both)")
    flag("--inside", choices=modes, help=argparse.SUPPRESS)
    add_options(parser, DataSource)
    options = parser.parse_args()
    if options.rounds < 1 or options.epochs < 2 or min(options.threads) < 1:
        parser.error("expected at least 1 round, 2 epochs and 1 thread")
    try:
        source = options_of(DataSource, options)
        data.read(source)
    except (ValueError, OSError) as error:
        return command.fail("speed.py", error)
    if options.inside:  # a process of its own, because the number of threads is fixed when it starts
        print(json.dumps(measure_inside(source, options.inside == "shared", options.rounds)))
        return 0

    print(f"{source.name}; {machine()}, {options.rounds} rounds\n")
    print("| | embeddings | threads | plain | eager | shipped | plain / shipped |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    flags = flags_of(source)
    for threads in options.threads:
        for mode in options.embeddings:
            arguments = [sys.executable, __file__, "--inside", mode, "--rounds", str(options.rounds), *flags]
            env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            inside = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, env=env, check=True).stdout
            print_rows(json.loads(inside), mode, threads)
            print_rows(measure_processes(options, flags, mode == "shared", threads), mode, threads)
    print(f"\n* extrapolated from 1 and {options.epochs} epochs")
    return 0


if __name__ == "__main__":
    command.end(command_line)
