"""Trainings that are scored and not written down, several at a time in processes of their own.

scores = train_and_score(Settings(**preset("tuned")), DataSource())
"""

import contextlib
import functools
import io
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from tqdm import tqdm

import data
from cli import command
from cli.arguments import Parser, add_options, available_cores, options_of
from cli.files import check_folder, write_whole
from cli.options import check_options, option
from cli.signals import STOPPING, Stopped, stoppable
from datasets.source import DataSource, folder_of_runs
from metrics import Scorer, mrr_score, mse_score
from study.four_experiments import OF_SPLIT
from train import evaluation_of
from training import setup
from training.settings import Settings
from training.splits import check_rule

SplitSettings = dict[str, Any]  # the settings of OF_SPLIT, by name
Key = TypeVar("Key")
Result = TypeVar("Result")


@functools.cache
def read(source: DataSource) -> data.Interactions:
    """Read the ratings of a source, once in each process; only the first one says on stderr how they were read."""
    if multiprocessing.parent_process() is None:
        return data.read(source)
    with contextlib.redirect_stderr(io.StringIO()):
        return data.read(source)


class Scores(NamedTuple):
    """The scores of a model on a held-out set, NaN where there is none, and the seconds of its training."""

    mrr: float
    mse: float
    seconds: float


def held_out(split: setup.Split) -> data.Interactions:
    """Return the validation set of a split, or the test set where there is no validation set."""
    return split.test if split.validation is None else split.validation


def train_and_score(settings: Settings, source: DataSource) -> Scores:
    """Train on one thread, and score the network on the held-out set; NaN where a loss stops being finite."""
    setup.use_one_thread()
    setup.flush_denormals()
    split = setup.split(read(source), settings)
    trainer = setup.make_trainer(settings, split.train, torch.device("cpu"))
    started = time.perf_counter()
    try:
        for _ in range(settings.epochs):
            trainer.run_epoch()
    except FloatingPointError:
        return Scores(torch.nan, torch.nan, torch.nan)
    seconds = time.perf_counter() - started
    with trainer.as_evaluated():
        evaluation = evaluation_of(trainer, held_out(split))
        return Scores(evaluation.mrr(), evaluation.mse(), seconds)


def fit_and_score(fit: Callable[[data.Interactions], Scorer], split: setup.Split) -> Scores:
    """Fit a model on the training set of a split, and score it on the held-out set."""
    started = time.perf_counter()
    model = fit(split.train)
    seconds = time.perf_counter() - started
    test = held_out(split)
    mse = mse_score(model, test) if test.rated.any() else torch.nan
    return Scores(mrr_score(model, test, split.train), mse, seconds)


def results(
    function: Callable[..., Result], work: Mapping[Key, Sequence[Any]], jobs: int
) -> Generator[tuple[Key, Result], None, None]:
    """Call a function with each of these arguments, several at a time in processes, and yield results as they arrive.

    Close the generator, with ``contextlib.closing``: no process is left then, however the loop ended.

    Args:
        function: a function of a module.
        work: the arguments of each call, by a key that comes back with the result.
    """
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_leave_stopping_to_parent)
    try:
        started = {pool.submit(function, *arguments): key for key, arguments in work.items()}
        for ended in tqdm(as_completed(started), total=len(started), disable=None, unit="run"):
            yield started[ended], ended.result()
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _leave_stopping_to_parent() -> None:
    """Ignore a terminal's signals in a worker process, because the parent gets them too and terminates the workers."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_DFL if each == signal.SIGTERM else signal.SIG_IGN)


@dataclass(frozen=True)
class ManyRuns:
    """The options of a command that trains several networks."""

    jobs: int = option(available_cores(), "runs at a time", metavar="N", least=1, default_help="the number of cores")
    logdir: Path = option(Path("run"), "folder for the results", metavar="DIR", parse=Path,
                          default_help="run; with --ratings FILE run/FILE")  # fmt: skip

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Options(ManyRuns):
    """The options of a command that trains several networks and writes tables."""

    seeds: int = option(5, "number of seeds, each with a split of its own", metavar="N", least=1)
    epochs: int = option(0, "epochs of all runs; 0: those of their settings", metavar="N", least=0)


AnyOptions = TypeVar("AnyOptions", bound=Options)


def write_tables(
    program: str,
    description: str,
    kind: type[AnyOptions],
    make: Callable[[AnyOptions, DataSource, SplitSettings], str],
    file: str,
) -> int:
    """Run the command line of a program: make tables, print them and write them to a file; returns the exit status.

    Args:
        kind: the dataclass of the options; those of ``DataSource`` and of the split come with them.
        make: trains, and returns Markdown.
        file: the name of the file in ``--logdir``.
    """
    parser = Parser(description)
    add_options(parser, kind)
    add_options(parser, Settings, OF_SPLIT)
    add_options(parser, DataSource)
    parser.set_defaults(logdir=None)
    flags = parser.parse_args()
    flags.logdir = flags.logdir or folder_of_runs(flags.ratings)
    try:
        options, source = options_of(kind, flags), options_of(DataSource, flags)
        split = {name: getattr(flags, name) for name in OF_SPLIT}
        check_rule(source, Settings(**split))
        check_folder(options.logdir)
        setup.split(read(source), Settings(**split))  # before the runs, so that it is fetched only once
        with stoppable():
            tables = make(options, source, split)
            write_whole(f"{tables}\n".encode(), options.logdir / file)
    except (ValueError, OSError) as error:
        return command.fail(program, error)
    except Stopped as stopped:
        print("stopped; nothing is kept", file=sys.stderr)
        return 128 + stopped.signal_number
    print(tables)
    return 0
