"""How long training, scoring and a whole experiment take, as ratios within one run.

    python benchmarks/speed.py                   # about ten minutes
    python benchmarks/speed.py --rounds 1 --epochs 3

Three contenders take turns, round by round, on the same data: the plain procedure (``plain_trainer.py``), this project
with its eager step (``main.py --eager``), and this project as shipped (``main.py``). Each cell is the median over the
rounds with the smallest and the largest; the ratio is plain / shipped, round by round. MovieLens 100K where it is at
hand, synthetic ratings of the same shape where it is not.
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
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial

import plain_trainer
import torch

import data
import metrics
import train
from cli.arguments import Parser
from datasets.releases import RELEASES
from models import MultiTaskNet
from training.devices import flush_denormals, threads_for
from training.settings import Settings

CONTENDERS = ("plain", "eager", "shipped")
FULL = 200  # epochs of an experiment


def synthetic_ratings(data_dir: Path, asked: int | None) -> int | None:
    """How many synthetic ratings to measure with; None for MovieLens 100K. Only looks; fetches nothing."""
    there = [data_dir / name for name in ("ml-100k", *(each.filename for each in RELEASES["ml-100k"]))]
    return asked or (None if any(path.exists() for path in there) else 100_000)


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure_inside(options: argparse.Namespace, sharing: bool) -> dict[str, dict[str, list[float]]]:
    """Seconds of an epoch, of MSE and of MRR, each contender in turn: row → contender → rounds."""
    made = options.synthetic
    ratings = data.synthetic(num_interactions=made) if made else data.load(options.data_dir)
    train_side, test = data.random_train_test_split(ratings, 0.05, torch.Generator().manual_seed(0))
    flush_denormals()

    def network() -> MultiTaskNet:
        torch.manual_seed(0)
        return MultiTaskNet(ratings.num_users, ratings.num_items, embedding_sharing=sharing)

    baseline = plain_trainer.PlainTrainer(network(), train_side, 0.99, 0.01)
    eager = train.Trainer(network(), train_side, Settings(), seed=0, eager=True)
    shipped = train.Trainer(network(), train_side, Settings(), seed=0)
    rows: dict[str, dict[str, list[float]]] = {}

    def record(row: str, contender: str, function: Callable[[], object]) -> None:
        rows.setdefault(row, {}).setdefault(contender, []).append(timed(function))

    for step in range(options.rounds + 1):
        record("training epoch", "plain", baseline.fit)
        record("MSE", "plain", lambda: plain_trainer.plain_mse(baseline.net, test))
        record("MRR", "plain", lambda: plain_trainer.plain_mrr(baseline.net, test, train_side))
        for name, trainer in (("eager", eager), ("shipped", shipped)):
            with threads_for(trainer.model, trainer.batch_size):
                record("training epoch", name, trainer.run_epoch)
                record("MSE", name, partial(metrics.mse_score, trainer.recommender, test))
                # The eager one by forward alone, as for a network without the homework's names.
                ranked = trainer.model if name == "eager" else trainer.recommender
                record("MRR", name, partial(metrics.mrr_score, ranked, test, train_side))
        if step == 0:  # the first round only warms up
            rows.clear()
    return rows


def run_process(
    contender: str, sharing: bool, epochs: int, threads: int, options: argparse.Namespace
) -> tuple[float, float]:
    """A whole experiment as a process: seconds from start to exit, and its peak memory in MiB."""
    script = ROOT / ("benchmarks/plain_trainer.py" if contender == "plain" else "main.py")
    with tempfile.TemporaryDirectory() as logdir:
        arguments = [f"--epochs={epochs}", f"--logdir={logdir}/run", f"--data_dir={options.data_dir}", "--device=cpu"]
        arguments += ["--no_shared_embeddings"] * (not sharing) + ["--eager"] * (contender == "eager")
        command = [sys.executable, str(script), *arguments]
        if options.synthetic:
            # The same script, its data replaced before it starts.
            prelude = (
                f"import sys, runpy; sys.path[:0] = {[str(ROOT), str(script.parent)]!r}; import data; "
                f"data.load = lambda _: data.synthetic(num_interactions={options.synthetic}); "
                f"sys.argv = {[str(script), *arguments]!r}; "
                f"runpy.run_path({str(script)!r}, run_name='__main__')"
            )
            command = [sys.executable, "-c", prelude]
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure_processes(options: argparse.Namespace, sharing: bool, threads: int) -> dict[str, dict[str, list[float]]]:
    """Whole experiments: one epoch, some epochs, and from the two the time of all of them."""
    rows: dict[str, dict[str, list[float]]] = {}
    for _ in range(options.rounds):
        for contender in CONTENDERS:
            first, _ = run_process(contender, sharing, 1, threads, options)
            some, memory = run_process(contender, sharing, options.epochs, threads, options)
            whole = first + (some - first) * (FULL - 1) / (options.epochs - 1)
            for row, value in (("one epoch, start to exit", first), (f"{FULL} epochs, start to exit*", whole)):
                rows.setdefault(row, {}).setdefault(contender, []).append(value)
            rows.setdefault("peak memory", {}).setdefault(contender, []).append(memory)
    return rows


def cell(row: str, values: list[float]) -> str:
    scale, unit, digits = {"peak memory": (1, "MiB", 0)}.get(row, (1, "s", 2) if max(values) > 0.5 else (1e3, "ms", 1))
    middle, low, high = (f"{f(values) * scale:.{digits}f}" for f in (statistics.median, min, max))
    return f"{middle} {unit} ({low}–{high})"


def print_rows(rows: dict[str, dict[str, list[float]]], sharing: bool, threads: int) -> None:
    for row, columns in rows.items():
        ratios = [a / b for a, b in zip(columns["plain"], columns["shipped"], strict=True)]
        ratio = f"**{statistics.median(ratios):.1f}** ({min(ratios):.1f}–{max(ratios):.1f})"
        cells = [cell(row, columns[contender]) for contender in CONTENDERS]
        mode = "shared" if sharing else "separate"
        print(f"| {row} | {mode} | {threads} | {' | '.join(cells)} | {ratio} |", flush=True)


def command_line() -> int:
    parser = Parser(description="Ratios of speed and memory within one run.")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (%(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs that 200 are extrapolated from (%(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="OMP_NUM_THREADS to try (%(default)s)")
    modes = ["shared", "separate"]
    parser.add_argument("--embeddings", nargs="+", choices=modes, default=modes, help="which of the two modes (both)")
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data", help="folder for the data (%(default)s)")
    parser.add_argument("--synthetic", type=int, metavar="N", help="measure with so many synthetic ratings")
    parser.add_argument("--inside", choices=modes, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1 or options.epochs < 2 or min(options.threads) < 1:
        parser.error("expected at least 1 round, 2 epochs and 1 thread")
    if options.inside:  # a process of its own, because the number of threads is fixed when it starts
        print(json.dumps(measure_inside(options, options.inside == "shared")))
        return 0

    options.synthetic = synthetic_ratings(options.data_dir, options.synthetic)
    source = f"synthetic ratings, {options.synthetic:,}" if options.synthetic else "MovieLens 100K"
    print(
        f"{source}; {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {options.rounds} rounds\n"
    )
    print("| | embeddings | threads | plain | eager | shipped | plain / shipped |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for threads in options.threads:
        for mode in options.embeddings:
            sharing = mode == "shared"
            inside = ["--inside", mode, "--rounds", str(options.rounds)]
            inside += ["--synthetic", str(options.synthetic)] if options.synthetic else []
            done = subprocess.run(
                [sys.executable, __file__, *inside, "--data_dir", str(options.data_dir)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                check=True,
            )
            print_rows(json.loads(done.stdout), sharing, threads)
            print_rows(measure_processes(options, sharing, threads), sharing, threads)
    print(f"\n* extrapolated from 1 and {options.epochs} epochs")
    return 0


if __name__ == "__main__":
    command.end(command_line)
