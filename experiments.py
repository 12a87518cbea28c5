"""The four experiments over several seeds, and the tables and curves of their metrics.

    python experiments.py                        # 20 runs of 200 epochs, as many at a time as there are cores
    python experiments.py --epochs 20 --seeds 2
    python experiments.py --ratings mine.csv --folds 5      # cross-validation on ratings of your own
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
from dataclasses import dataclass, replace
from pathlib import Path

import data
from cli.arguments import Parser, add_options, options_of
from cli.files import check_folder, write_whole
from cli.options import option
from cli.signals import Stopped, stoppable
from datasets.source import DataSource, folder_of_runs
from study import baselines, picture, processes, summary
from study.baselines import BaselineScore
from study.four_experiments import EXPERIMENTS, OF_SPLIT, Experiment, Run
from study.trials import ManyRuns
from tracking.metric_table import EpochMetrics
from training import setup
from training.settings import Settings
from training.splits import check_rule

SEEDS = 5


@dataclass(frozen=True)
class Options(ManyRuns):
    """The options of the command, beside those of the ratings and the split."""

    epochs: int = option(200, "epochs of each run", metavar="N", least=1)
    seeds: int = option(
        SEEDS, "number of seeds: 0, 1, …", metavar="N", least=1, default_help=f"{SEEDS}, or K with --folds K"
    )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser("Run the four experiments over several seeds, and summarize their metrics.")
    add_options(parser, Options)
    add_options(parser, Settings, OF_SPLIT)
    add_options(parser, DataSource)
    parser.set_defaults(logdir=None, seeds=None)
    options = parser.parse_args(arguments)
    options.logdir = options.logdir or folder_of_runs(options.ratings)
    if options.seeds is None:
        options.seeds = options.folds or SEEDS
    return options


def report(
    histories: summary.Histories, scores: Mapping[int, Sequence[BaselineScore]], logdir: Path, sets: str = ""
) -> None:
    """Print the tables, and write them and the picture.

    Args:
        sets: a note on the test sets of the seeds.

    Raises:
        OSError: a file cannot be written.
    """
    rows = summary.summarize(histories, scores)
    tables = summary.markdown(rows, sets)
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


def note_on_sets(fingerprints: Mapping[int, str], folds: int) -> str:
    """Say how the test sets of the seeds are related, or return "" if each seed draws its own."""
    if folds > 0:
        return "The test set of each seed is a fold. The training sets overlap, so the intervals are approximate."
    same = len(fingerprints) > 1 and len(set(fingerprints.values())) == 1
    return "All seeds have the same test set, so the intervals are those of training alone." if same else ""


def run(flags: argparse.Namespace) -> int:
    """Load the data, run the experiments and summarize them; returns the exit status."""
    try:
        options, source = options_of(Options, flags), options_of(DataSource, flags)
        rule = Settings(**{name: getattr(flags, name) for name in OF_SPLIT})
        check_rule(source, rule)
        check_folder(options.logdir)
        interactions = data.read(source)  # before the runs, so that it is fetched only once
        setup.use_one_thread()
        seeds = range(options.seeds)
        splits = {seed: setup.split(interactions, replace(rule, seed=seed)) for seed in seeds}
    except (ValueError, OSError) as error:
        return command.fail("experiments.py", error)
    if not interactions.rated.any():
        print("no interaction has a rating: the experiments train the ranking alone", file=sys.stderr)
    fingerprints = {seed: split.fingerprint for seed, split in splits.items()}
    name = "fold" if rule.folds else "seed"
    # Seed by seed, so that an interrupted command leaves experiments that can be compared.
    every = [
        Run(experiment, seed, options.logdir / experiment.folder / f"{name}={seed}", options.epochs, source, rule)
        for seed in seeds
        for experiment in EXPERIMENTS
    ]
    unfinished = [run for run in every if run.history(fingerprints[run.seed]) is None]
    found = [(each.folder, each.differences(fingerprints[each.seed])) for each in every]
    there = [(folder, differences) for folder, differences in found if differences is not None]
    if there and all(differences for _, differences in there):
        folder, differences = there[0]
        said = f"{folder} holds a run with other settings: {'; '.join(differences or [])}"
        return command.fail("experiments.py", ValueError(f"{said}: give another logdir, or the same settings"))
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
            report(histories, scores, options.logdir, note_on_sets(fingerprints, rule.folds))
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
