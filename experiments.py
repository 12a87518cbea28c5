"""The four experiments over several seeds, and the tables and curves of their metrics.

    python experiments.py                        # 20 runs of 200 epochs, as many at a time as there are cores
    python experiments.py --epochs 20 --seeds 2
    tensorboard --logdir run

Each run is a ``main.py --resume`` in LOGDIR/EXPERIMENT/seed=SEED. The same command, given again, skips the runs that
are finished and resumes the others. At the end the tables of ``study/summary.py`` are printed and written to
LOGDIR/summary.md and summary.csv, and the curves to LOGDIR/summary.png.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the first run began")

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import data
from cli.arguments import Parser, available_cores, check_at_least
from cli.files import check_folder, write_whole
from cli.signals import Stopped, stoppable
from study import baselines, picture, processes, summary
from study.baselines import BaselineScore
from study.four_experiments import EXPERIMENTS, Experiment, Run
from tracking.metric_table import EpochMetrics
from training import setup
from training.settings import Settings


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser("Run the four experiments over several seeds, and summarize their metrics.")
    flag = parser.add_argument
    flag("--epochs", type=int, default=200, metavar="N", help="epochs of each run (default: %(default)s)")
    flag("--seeds", type=int, default=5, metavar="N", help="number of seeds: 0, 1, … (default: %(default)s)")
    flag("--jobs", type=int, default=available_cores(), metavar="N",
         help="runs at a time (default: the number of cores, %(default)s)")  # fmt: skip
    flag("--logdir", type=Path, default=Path("run"), metavar="DIR",
         help="folder for the runs and the summary (default: %(default)s)")  # fmt: skip
    flag("--data_dir", type=Path, default=Path("data"), metavar="DIR",
         help="folder for the data (default: %(default)s)")  # fmt: skip
    return parser.parse_args(arguments)


def report(histories: summary.Histories, scores: Mapping[int, Sequence[BaselineScore]], logdir: Path) -> None:
    """Print the tables, and write them and the picture.

    Raises:
        OSError: a file cannot be written.
    """
    rows = summary.summarize(histories, scores)
    tables = summary.markdown(rows)
    write_whole(tables.encode(), logdir / "summary.md")
    write_whole(summary.tidy(rows).encode(), logdir / "summary.csv")
    written = "summary.md and summary.csv"
    try:
        write_whole(picture.draw(histories, scores), logdir / "summary.png")
        written = "summary.md, summary.csv and summary.png"
    except ImportError:
        print("summary.png needs matplotlib: pip install -r requirements-dev.txt, then run this again", file=sys.stderr)
    print(tables)
    print(f"{written} are in {logdir}; the curves: tensorboard --logdir {logdir}")


def run(options: argparse.Namespace) -> int:
    """Load the data, run the experiments and summarize them; returns the exit status."""
    try:
        check_at_least(options, epochs=1, seeds=1, jobs=1)
        check_folder(options.logdir)
        interactions = data.load(options.data_dir)  # before the runs, so that it is fetched only once
    except (ValueError, OSError) as error:
        return command.fail("experiments.py", error)
    setup.use_one_thread()
    splits = {seed: setup.split(interactions, Settings(seed=seed)) for seed in range(options.seeds)}
    fingerprints = {seed: split.fingerprint for seed, split in splits.items()}
    # Seed by seed, so that an interrupted command leaves experiments that can be compared.
    every = [
        Run(experiment, seed, options.logdir / experiment.folder / f"seed={seed}", options.epochs, options.data_dir)
        for seed in range(options.seeds)
        for experiment in EXPERIMENTS
    ]
    unfinished = [run for run in every if run.history(fingerprints[run.seed]) is None]
    if len(unfinished) < len(every):
        print(f"{len(every) - len(unfinished)} of {len(every)} runs are finished already", file=sys.stderr)
    failures = processes.run_all(unfinished, options.jobs, len(every))
    histories: dict[Experiment, dict[int, list[EpochMetrics]]] = {each: {} for each in EXPERIMENTS}
    for each in every:
        history = None if each in failures else each.history(fingerprints[each.seed])
        if history is not None:
            histories[each.experiment][each.seed] = history
        else:
            failures.setdefault(each, "ended without the epochs asked for")
    status = 1 if failures else 0
    if len(failures) < len(every):
        scores = {seed: baselines.scores(split.train, split.test) for seed, split in splits.items()}
        try:
            report(histories, scores, options.logdir)
        except BrokenPipeError:
            raise
        except OSError as error:
            command.fail("experiments.py", error)
            status = 1
    if failures:
        print(f"{len(failures)} of {len(every)} runs failed:", file=sys.stderr)
        for each, failure in failures.items():
            print(f"  {each.folder}: {failure}", file=sys.stderr)
    return status


def command_line(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 1 when runs failed, after a line for each; 2 after one line on stderr with the remedy;
        130, 143 or 129 after Ctrl-C, SIGTERM or SIGHUP.
    """
    options = parse_arguments(arguments)
    try:
        with stoppable():
            return run(options)
    except Stopped as stopped:
        print(f"stopped; resume with: {shlex.join(['python', *sys.argv])}", file=sys.stderr)
        return 128 + stopped.signal_number


if __name__ == "__main__":
    command.end(command_line)
