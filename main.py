"""One experiment: train both tasks on ratings, MovieLens 100K by default, and watch it in TensorBoard.

    python main.py                                              # shared embeddings, λ_F = 0.99, λ_R = 0.01
    python main.py --no_shared_embeddings --factorization_weight 0.5 --regression_weight 0.5
    tensorboard --logdir run

The data is fetched on the first run. The same seed on the same machine gives bit-identical metrics.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the training began")

import argparse
import contextlib
import shlex
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import data
import train
from cli.arguments import Parser, add_options, given, name_or_path, options_of
from cli.files import check_folder
from cli.signals import Stopped, stoppable
from cli.text import one_line
from datasets.source import DataSource, folder_of_runs
from tracking import metric_table, projector, report, resuming, run_data, trained
from tracking.checkpoint import CHECKPOINT, Run
from tracking.folder import RunFolder
from tracking.record import Record, RunRecord
from tracking.result import data_of, write_result
from training import setup
from training.distributed import join, note_for_torchrun, only_the_first_speaks
from training.group import ALONE, Group, LostProcess
from training.network import network_class, own_traceback
from training.settings import BEYOND, DATA, EVALUATION, HOMEWORK, Settings, folder_name, preset
from training.splits import check_rule

RUNNING = "running and resuming"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the flags; ``--preset`` changes the defaults of the others."""
    description = "Train MultiTaskNet on MovieLens 100K, another release of MovieLens, or ratings of your own."
    parser = Parser(description, groups=(HOMEWORK, DATA, EVALUATION, RUNNING, BEYOND))
    flag = parser.group(HOMEWORK).add_argument
    flag("--logdir", type=Path, metavar="DIR",
         help="folder of the run (default: run/shared=…_LF=…_LR=…; below run/FILE for --ratings FILE)")  # fmt: skip
    flag = parser.group(BEYOND).add_argument
    flag(
        "--preset",
        type=name_or_path,
        default="homework",
        metavar="NAME|FILE",
        help="values of flags that are not given: homework, tuned, or a JSON file of them (default: homework)",
    )
    flag = parser.group(RUNNING).add_argument
    flag("--resume", action="store_true", help="resume the run in --logdir from its checkpoint")
    flag("--warm_start", type=Path, metavar="RUN",
         help="start a new run from the network of the run in this folder, with its data and the shape of its network "
         "unless they are given; rows of users and items are matched by ID, and Adam starts anew")  # fmt: skip
    flag("--device", default="auto", metavar="NAME", help="cuda, mps, cpu, or auto: the first there is (default: auto)")
    flag("--eager", action="store_true", help="take the plain step, the definition: slower, with the same metrics")
    add_options(parser, Settings)
    add_options(parser, DataSource)
    name = parser.parse_args(arguments).preset
    try:
        parser.set_defaults(**preset(name))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    options = parser.parse_args(arguments)
    if options.warm_start is not None:
        try:
            options = follow(parser, arguments, options)
        except (ValueError, OSError) as error:
            parser.error(str(error))
    if options.logdir is None:
        prefix = "" if options.preset == "homework" else f"{Path(options.preset).stem}_"
        weights = options.factorization_weight, options.regression_weight
        options.logdir = folder_of_runs(options.ratings) / f"{prefix}{folder_name(options.shared_embeddings, *weights)}"
    if options.resume and options.warm_start is None:
        try:
            take_noted_data(parser, arguments, options)
        except (ValueError, OSError) as error:
            parser.error(str(error))
    return options


def take_noted_data(parser: Parser, arguments: list[str] | None, options: argparse.Namespace) -> None:
    """Take the data of the run in --logdir, unless flags choose the ratings, except for the flags that are given.

    Raises:
        ValueError, OSError: the run's note cannot be read, or the flags do not go with it.
    """
    now = given(parser, arguments, DataSource)
    if "ratings" not in now and "dataset" not in now and (options.logdir / run_data.NAME).exists():
        noted = run_data.read(options.logdir).source
        vars(options).update(vars(run_data.replaced(noted, {"data_dir": options.data_dir, **now})))


def follow(parser: Parser, arguments: list[str] | None, options: argparse.Namespace) -> argparse.Namespace:
    """Read the flags again, with the data, the network's shape and sums of the run in --warm_start as defaults.

    A run that is resumed takes them from its own folder, because it has started already.

    Raises:
        ValueError, OSError: the run cannot be read, or the flags do not go with it.
    """
    if options.logdir is None or options.logdir.resolve() == options.warm_start.resolve():
        raise ValueError("warm_start is for a new run: give --logdir, another folder")
    is_resumed = options.resume and (options.logdir / CHECKPOINT).exists()
    run = trained.read(options.logdir if is_resumed else options.warm_start)
    parser.set_defaults(**run.shape)
    options = parser.parse_args(arguments)
    run.check_shape(options_of(Settings, options))
    source = run_data.replaced(run.data.source, given(parser, arguments, DataSource))
    vars(options).update(vars(source))
    options.warm_start = None if is_resumed else options.warm_start
    return options


def set_up(options: argparse.Namespace, source: DataSource, group: Group) -> tuple[train.Trainer, setup.Split]:
    """Check the flags, read the ratings, split them, and make the network and its trainer.

    Raises:
        ValueError, OSError: a flag, the data, models.py or the log directory cannot be used.
    """
    with group.agreement():
        settings = options_of(Settings, options)
        check_rule(source, settings)
        network_class()  # imports models.py: before the ratings are fetched, and before it can change threads or seeds
        device = setup.pick_device(options.device)
        setup.use_one_thread()
        setup.flush_denormals()
        with group.one_after_the_first("data"):
            if group.rank == 0:
                check_folder(options.logdir)
            interactions = data.read(source)
        split = setup.split(interactions, settings)
    trainer = setup.make_trainer(settings, split.train, device, options.eager, group)
    is_random = settings.split == "random" or (settings.split == "auto" and interactions.parts is None)
    trainer.notices += [] if is_random else split.notices
    if options.warm_start is not None:
        trainer.notices.insert(0, trained.start_from(trainer, options.warm_start, split.fingerprint))
    return trainer, split


def describe(options: argparse.Namespace, source: DataSource, trainer: train.Trainer, split: setup.Split) -> Run:
    """Describe the run for its checkpoint."""
    return Run(
        settings=trainer.settings.noted(),
        data=split.fingerprint,
        dataset=source.name,
        own=source.own,
        device=trainer.device.type,
        eager=options.eager,
        processes=trainer.group.size,
    )


def run(options: argparse.Namespace, group: Group) -> int:
    """Set up, train and report; returns the exit status."""
    started = time.perf_counter()
    is_new = not options.logdir.exists()
    with ExitStack() as stack:
        try:
            with group.agreement():
                metric_table.check_metrics(train.MEASURES)
                source = options_of(DataSource, options)
                trainer, split = set_up(options, source, group)
                folder = stack.enter_context(RunFolder(options.logdir)) if group.rank == 0 else None
            description = describe(options, source, trainer, split)
            found = resuming.start(trainer, folder, description, options.resume)
            with group.agreement():
                if folder is not None:
                    run_data.write(folder.path, run_data.of(source, trainer))
        except (ValueError, OSError) as error:
            if is_new:
                with contextlib.suppress(OSError):
                    options.logdir.rmdir()  # made by ``check_folder``
            return fail(error)
        evaluation, validation = train.evaluation_of(trainer, split.test), split.validation
        data_used = data_of(description, split, evaluation.ranked)
        counts = split.train.item_ids.bincount(minlength=split.train.num_items)
        write_items = partial(projector.write_items, options.logdir, counts, trainer.train, source)
        del split  # of several processes, each needs only the part of its users
        for line in filter(None, (*trainer.notices, evaluation.notice)):
            print(line, file=sys.stderr)
        epochs, topk = trainer.settings.epochs, trainer.settings.topk
        done = found.metrics if found is not None else []
        record = Record()
        if folder is not None:
            record = RunRecord(folder, description, epochs, topk, found, write_items, trainer.rates)
        try:
            history = train.fit(trainer, evaluation, validation, history=done, record=record)
            if folder is not None:
                seconds = time.perf_counter() - started
                write_result(folder.path, history, description, trainer, data_used, seconds)
        except (FloatingPointError, OSError) as error:
            group.ended(str(error))
            return fail(error)
        except (Stopped, LostProcess) as error:
            return report_end(options, group, error, began=True)
        except Exception as error:
            if (own := own_traceback(error)) is None:
                raise
            group.ended(own.splitlines()[-1])
            note_for_torchrun(own.splitlines()[-1])
            print(own, file=sys.stderr)
            return 1
    print(report.report(history, epochs, trainer.settings.patience, topk))
    count = report.counted(len(history) - len(done), len(history) - 1)
    where = f"{trainer.device}{f' in {group.size} processes' if group.size > 1 else ''}"
    print(f"{count} in {time.perf_counter() - started:.1f} s on {where}; logs in {options.logdir}")
    return 0


def fail(error: Exception) -> int:
    """Print an error that a user can correct as one line; returns the exit status."""
    note_for_torchrun(f"main.py: error: {one_line(str(error))}")
    return command.fail("main.py", error)


def report_end(options: argparse.Namespace, group: Group, error: Stopped | LostProcess, began: bool) -> int:
    """Say why a run ended early, and how to resume one that was stopped; returns the exit status."""
    number = group.explain(error)
    if number == 0:
        return 1
    if not began:
        line = "stopped before the training began"
    elif not (options.logdir / CHECKPOINT).exists():
        line = "stopped in the first epoch: there is nothing to resume"
    else:
        resume = [] if options.resume else ["--resume"]
        line = f"stopped; resume with: {shlex.join([*group.launcher, *sys.argv, *resume])}"
    note_for_torchrun(line)
    print(line, file=sys.stderr)
    return 128 + number


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 2 after one line on stderr with the remedy; 130, 143 or 129 after Ctrl-C, SIGTERM or
        SIGHUP; 1 after the traceback of an error that models.py raised in training, or after a line that names a lost
        process.
    """
    group = ALONE
    with only_the_first_speaks():
        options = parse_arguments(arguments)
        try:
            with stoppable():
                group = join()
                return run(options, group)
        except (Stopped, LostProcess) as error:
            return report_end(options, group, error, began=False)


if __name__ == "__main__":
    command.end(main)
