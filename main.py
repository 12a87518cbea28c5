"""One experiment: train both tasks on ratings, MovieLens 100K by default, and watch it in TensorBoard.

    python main.py                                              # shared embeddings, λ_F = 0.99, λ_R = 0.01
    python main.py --no_shared_embeddings --factorization_weight 0.5 --regression_weight 0.5
    tensorboard --logdir run

The data is fetched on the first run. Same seed and same machine: the same numbers, bit for bit.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the training began")

import argparse
import contextlib
import functools
import shlex
import sys
import time
from contextlib import ExitStack

import data
import train
from cli.arguments import check_at_least
from cli.files import check_folder
from cli.signals import Stopped, stoppable
from datasets import choice
from tracking import projector, resuming
from tracking.checkpoint import CHECKPOINT, Checkpoint
from tracking.folder import RunFolder
from tracking.history import EpochMetrics, best_epoch, best_line, check_metrics, closing_line, closing_table, counted
from training import devices, parts, seeds
from training.evaluation import SHOWN, Evaluation, check_eval_users
from training.flags import parse_arguments, recipe_of, settings_of
from training.network import network_class, own_traceback
from training.parallel import ALONE, Group, LostProcess
from training.preparation import Sides, make_network, network_settings, split_in_three
from training.settings import Settings
from training.torchrun import join, only_the_first_speaks


def set_up(options: argparse.Namespace, group: Group = ALONE) -> tuple[train.Trainer, Sides]:
    """Check everything that can be wrong, then make what training needs: the trainer and the sides of the ratings.

    Raises:
        ValueError, OSError: a flag, the data or the log directory cannot be used.
    """
    settings = Settings(
        options.factorization_weight,
        options.regression_weight,
        options.batch_size,
        options.learning_rate,
        options.optimizer,
        recipe_of(options),
        options.planned_epochs,
    )
    check_at_least(options, epochs=1, embedding_dim=1, seed=0, eval_every=1, patience=0)
    if not 0 <= options.validation_fraction < 1:
        raise ValueError(f"validation_fraction is {options.validation_fraction}: expected 0, or a share below 1")
    if options.patience > 0 and options.validation_fraction == 0:
        raise ValueError("patience is for a validation side: give --validation_fraction as well, as 0.05")
    if 0 < options.patience < options.eval_every:
        raise ValueError(f"patience is {options.patience}: expected at least eval_every, which is {options.eval_every}")
    check_eval_users(options.eval_users)
    network = network_settings(options)
    network_class()  # so that a mistake that keeps it from being imported comes before the ratings are fetched
    data.check_test_fraction(options.test_fraction)
    device = devices.pick_device(options.device)
    if group.rank == 0:
        check_folder(options.logdir)

    devices.use_one_thread()
    devices.flush_denormals()
    with group.one_after_the_first("data"):
        interactions = data.from_flags(options)
    sides = split_in_three(interactions, options)
    model = make_network(options, interactions, device)
    seed = seeds.spawn(options.seed).trainer
    return train.Trainer(model, sides.train, settings, seed, options.eager, group, network.make), sides


def find_checkpoint(
    options: argparse.Namespace, folder: RunFolder | None, trainer: train.Trainer, test: data.Interactions
) -> Checkpoint | None:
    """Take the trainer to the checkpoint in the folder if that was asked for, or make room there for a new run.

    Of several processes the first, which has the folder, reads the checkpoint for all.

    Raises:
        ValueError, OSError: the checkpoint cannot be resumed, or the old run cannot be moved aside.
    """
    group = trainer.group
    fingerprint = data.fingerprint(trainer.train, test) if options.resume or group.size > 1 else ""
    plan = resuming.Plan(
        settings_of(options), fingerprint, options.epochs, options.eager, trainer.device.type, group.size
    )
    group.check_same(str(plan))
    checkpoint = None
    with group.agreement():
        if folder is not None and options.resume and (checkpoint := resuming.find(folder, plan)) is not None:
            train.restore(trainer, checkpoint)
        if folder is not None and options.resume:
            resuming.announce(folder, plan, checkpoint)
        if folder is not None and checkpoint is None:
            resuming.make_room(folder)
    found: Checkpoint | None = group.from_first(checkpoint)
    return found


def show_items(options: argparse.Namespace, folder: RunFolder, trainer: train.Trainer) -> None:
    """Write the items' embeddings for TensorBoard, with their genres as far as they can be read.

    Raises:
        OSError: they cannot be written.
    """
    try:
        tables = parts.item_tables(trainer.model)
    except LookupError as error:
        print(f"the PROJECTOR tab is left out: {error}", file=sys.stderr)
        return
    try:
        genre_of = choice.genres(options)
    except (ValueError, OSError) as error:
        print(f"the items' genres are not shown: {error}", file=sys.stderr)
        genre_of = {}
    projector.write(folder.path, tables, trainer.train, genre_of)


def fit(
    options: argparse.Namespace,
    folder: RunFolder | None,
    trainer: train.Trainer,
    sides: Sides,
    checkpoint: Checkpoint | None,
) -> list[EpochMetrics]:
    """Train as the flags say; returns the metrics of each epoch."""
    noted = settings_of(options) | {"eager": options.eager, "dataset": choice.name(options)}
    if trainer.group.size > 1:
        noted["processes"] = trainer.group.size
    users, test = check_eval_users(options.eval_users), sides.test.to(trainer.device)
    which = users, options.eval_every, trainer.seed, trainer.group, options.clamp
    evaluation = Evaluation(trainer.recommender, trainer.train, test, *which)
    validation = None
    if sides.validation is not None:
        validation = Evaluation(trainer.recommender, trainer.train, sides.validation.to(trainer.device), *which)
    for line in (*trainer.notices, evaluation.notice):
        if line:
            print(line, file=sys.stderr)
    show = functools.partial(show_items, options, folder, trainer) if folder is not None else None
    return train.fit(
        trainer, test, options.epochs, folder, noted, checkpoint, evaluation, validation, options.patience, show
    )


def run(options: argparse.Namespace, group: Group) -> int:
    """Set up, train and report; returns the exit status."""
    started = time.perf_counter()
    is_new = not options.logdir.exists()
    with ExitStack() as stack:
        try:
            with group.agreement():
                check_metrics(train.MEASURES)
                trainer, sides = set_up(options, group)
                folder = stack.enter_context(RunFolder(options.logdir)) if group.rank == 0 else None
            checkpoint = find_checkpoint(options, folder, trainer, sides.test)
        except (ValueError, OSError) as error:
            if is_new:
                with contextlib.suppress(OSError):
                    options.logdir.rmdir()  # made to see whether it can be, and empty
            return command.fail("main.py", error)
        try:
            history = fit(options, folder, trainer, sides, checkpoint)
        except (FloatingPointError, OSError) as error:
            group.ended(str(error))
            return command.fail("main.py", error)
        except (Stopped, LostProcess) as error:
            return end(options, group, error, began=True)
        except Exception as error:
            if (own := own_traceback(error)) is None:
                raise
            group.ended(own.splitlines()[-1])
            print(own, file=sys.stderr)
            return 1
    last = len(history) - 1
    trained = counted(len(history) - (len(checkpoint.history) if checkpoint else 0), last)
    where = f"{trainer.device}{f' in {group.size} processes' if group.size > 1 else ''}"
    print(closing_table(history))
    if best_epoch(history) is not None:
        print(best_line(history))
    if len(history) < options.epochs:
        print(f"stopped after epoch {last}: none was better for {options.patience} epochs (--patience)")
    chosen_earlier = best_epoch(history) not in (None, last)
    print(("after the last epoch: " if chosen_earlier else "") + closing_line(history[-1], SHOWN))
    print(f"{trained} in {time.perf_counter() - started:.1f} s on {where}; logs in {options.logdir}")
    return 0


def end(options: argparse.Namespace, group: Group, error: Stopped | LostProcess, began: bool) -> int:
    """Say why a run ended early, and how to go on with one that was stopped; returns the exit status."""
    number = group.explain(error)
    if number == 0:
        return 1
    if not began:
        print("stopped before the training began", file=sys.stderr)
    elif not (options.logdir / CHECKPOINT).exists():
        print("stopped; no epoch was over yet", file=sys.stderr)
    else:
        again = shlex.join([*group.launcher, *sys.argv, *["--resume"] * (not options.resume)])
        print(f"stopped; go on with: {again}", file=sys.stderr)
    return 128 + number


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 2 after one line on stderr that says what to change; 1 after one that says which of several
        processes was lost, or after the traceback of an error that models.py raised in training; 130 or 143 after
        Ctrl-C or SIGTERM.
    """
    group = ALONE
    with only_the_first_speaks():
        options = parse_arguments(arguments)
        try:
            with stoppable():
                try:
                    group = join()
                    return run(options, group)
                except LostProcess as error:
                    return end(options, group, error, began=False)
        except Stopped as error:
            return end(options, group, error, began=False)


if __name__ == "__main__":
    command.end(main)
