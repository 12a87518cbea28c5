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
import shlex
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch

import data
import train
from cli.arguments import Parser, check_at_least
from cli.files import check_folder
from cli.signals import Stopped, stoppable
from datasets import choice
from models import MultiTaskNet, check_sizes
from tracking import resuming
from tracking.checkpoint import CHECKPOINT, Checkpoint
from tracking.folder import RunFolder
from tracking.history import EpochMetrics, closing_table
from training import devices, seeds
from training.evaluation import Evaluation, check_eval_users
from training.parallel import Group, LostProcess, join, only_the_first_speaks, tell
from training.settings import Settings

# The flags that a run's metrics depend on; a run can only be resumed with the same.
SETTINGS = (
    "factorization_weight",
    "regression_weight",
    "shared_embeddings",
    "test_fraction",
    "embedding_dim",
    "layer_sizes",
    "batch_size",
    "learning_rate",
    "optimizer",
    "eval_users",
    "eval_every",
    "seed",
)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the flags, and fill in those whose default depends on others."""
    parser = Parser(description="Train MultiTaskNet on MovieLens 100K, another release, or ratings of your own.")
    flag = parser.add_argument
    flag("--factorization_weight", type=float, default=0.99, help="λ_F, weight of the BPR loss (%(default)s)")
    flag("--regression_weight", type=float, default=0.01, help="λ_R, weight of the MSE (%(default)s)")
    flag("--shared_embeddings", action="store_true", default=True, help="one set of tables for both tasks (default)")
    flag("--no_shared_embeddings", action="store_false", dest="shared_embeddings", help="a set of tables for each task")
    flag("--logdir", type=Path, help="folder for TensorBoard (run/shared=…_LF=…_LR=…, from the settings)")
    flag("--test_fraction", type=float, default=0.05, help="share of the ratings held out (%(default)s)")
    flag("--epochs", type=int, default=200, help="passes over the training ratings (%(default)s)")
    flag("--embedding_dim", type=int, default=32, help="length of the embeddings (%(default)s)")
    flag("--layer_sizes", type=int, nargs="+", help="input width of each MLP layer (3·embedding_dim and 64)")
    flag("--batch_size", type=int, default=256, help="ratings a step (%(default)s)")
    flag("--learning_rate", type=float, default=1e-3, help="Adam's (%(default)s)")
    flag("--optimizer", default="auto", help="adam; lazy_adam, row by row; auto: lazy_adam for large tables (auto)")
    flag("--eval_users", default="auto", help="users to rank: a number, all, or auto: a fifth of the training's time")
    flag("--eval_every", type=int, default=1, help="epochs from one evaluation to the next (%(default)s)")
    flag("--seed", type=int, default=0, help="of the split, the weights, the shuffles and the negatives (%(default)s)")
    flag("--resume", action="store_true", help="go on with the run in the log directory from its checkpoint")
    flag("--device", default="auto", help="cuda, mps, cpu, or auto: the first of these that is there (auto)")
    flag("--eager", action="store_true", help="train with the plain step, by autograd: the same numbers, slower")
    flag("--data_dir", type=Path, default=Path("data"), help="folder for the data (%(default)s)")
    choice.add_flags(parser)
    options = parser.parse_args(arguments)
    if options.layer_sizes is None:
        options.layer_sizes = [3 * options.embedding_dim, 64]
    if options.logdir is None:
        weights = f"LF={options.factorization_weight}_LR={options.regression_weight}"
        options.logdir = Path("run") / f"shared={options.shared_embeddings}_{weights}"
    return options


def set_up(options: argparse.Namespace, group: Group | None = None) -> tuple[train.Trainer, data.Interactions]:
    """Check everything that can be wrong, then make what training needs: the trainer and the test side.

    Raises:
        ValueError, OSError: a flag, the data or the log directory cannot be used.
    """
    settings = Settings(
        options.factorization_weight,
        options.regression_weight,
        options.batch_size,
        options.learning_rate,
        options.optimizer,
    )
    check_at_least(options, epochs=1, embedding_dim=1, seed=0, eval_every=1)
    check_eval_users(options.eval_users)
    check_sizes(options.embedding_dim, options.layer_sizes)
    data.check_test_fraction(options.test_fraction)
    device = devices.pick_device(options.device)
    if group is None or group.rank == 0:
        check_folder(options.logdir)

    devices.use_one_thread()
    devices.flush_denormals()
    with group.one_after_the_first("data") if group else nullcontext():
        interactions = data.from_flags(options)
    training_side, test_side = split(interactions, options.test_fraction, options.seed)
    model = make_network(options, interactions, device)
    trainer = train.Trainer(model, training_side, settings, seeds.spawn(options.seed).trainer, options.eager, group)
    if trainer.optimizer == "lazy_adam":
        print("training with lazy_adam: only the embeddings that a batch looks up (--optimizer)", file=sys.stderr)
    return trainer, test_side


def split(
    interactions: data.Interactions, test_fraction: float, seed: int
) -> tuple[data.Interactions, data.Interactions]:
    """The training and the test side of a run with this seed."""
    generator = torch.Generator().manual_seed(seeds.spawn(seed).split)
    return data.random_train_test_split(interactions, test_fraction, generator)


def make_network(options: argparse.Namespace, interactions: data.Interactions, device: torch.device) -> MultiTaskNet:
    """The network of the flags for these ratings, its initial weights drawn from the seed.

    Raises:
        ValueError: it does not fit into memory.
    """
    torch.manual_seed(seeds.spawn(options.seed).model)
    try:
        return MultiTaskNet(
            interactions.num_users,
            interactions.num_items,
            options.embedding_dim,
            options.layer_sizes,
            options.shared_embeddings,
        ).to(device)
    except RuntimeError as error:
        raise ValueError(f"the network does not fit into memory: {str(error).splitlines()[0]}") from error


def open_run(
    options: argparse.Namespace,
    folder: RunFolder | None,
    trainer: train.Trainer,
    test: data.Interactions,
) -> Checkpoint | None:
    """Take the trainer to the checkpoint in the folder if that was asked for, or make room there for a new run.

    Of several processes the first, which has the folder, reads the checkpoint for all.

    Raises:
        ValueError, OSError: the checkpoint cannot be resumed, or the old run cannot be moved aside.
    """
    checkpoint, failure, group = None, None, trainer.group
    settings = {name: getattr(options, name) for name in SETTINGS}
    fingerprint = data.fingerprint(trainer.train, test) if options.resume or group else ""
    if group is not None:
        group.check_same(f"{settings} {options.epochs} {fingerprint}")
    try:
        if options.resume and folder is not None:
            processes = 1 if group is None else group.size
            plan = resuming.Plan(settings, fingerprint, options.epochs, options.eager, trainer.device.type, processes)
            if (checkpoint := resuming.find(folder, plan)) is not None:
                trainer.restore(checkpoint)
            resuming.announce(folder, plan, checkpoint)
        if checkpoint is None and folder is not None:
            resuming.make_room(folder)
    except (ValueError, OSError) as error:
        failure = error
    if group is not None:
        group.agree(failure)
        checkpoint = group.from_first(checkpoint)
    elif failure is not None:
        raise failure
    return checkpoint


def fit(
    options: argparse.Namespace,
    folder: RunFolder | None,
    trainer: train.Trainer,
    test: data.Interactions,
    checkpoint: Checkpoint | None,
) -> list[EpochMetrics]:
    """Train as the flags say; returns the metrics of each epoch."""
    settings = {name: getattr(options, name) for name in (*SETTINGS, "eager")}
    settings["dataset"] = choice.name(options)
    if trainer.group is not None:
        settings["processes"] = trainer.group.size
    test, users = test.to(trainer.device), check_eval_users(options.eval_users)
    evaluation = Evaluation(trainer.model, trainer.train, test, users, options.eval_every, trainer.seed, trainer.group)
    evaluation.announce()
    return train.fit(trainer, test, options.epochs, folder, settings, checkpoint, evaluation)


def run(options: argparse.Namespace, group: Group | None) -> int:
    """Set up, train and report; returns the exit status."""
    started = time.perf_counter()
    folder, failure = None, None
    try:
        trainer, test = set_up(options, group)
        folder = RunFolder(options.logdir) if group is None or group.rank == 0 else None
    except (ValueError, OSError) as error:
        failure = error
    with folder or nullcontext():
        try:
            if group is not None:
                group.agree(failure)
            elif failure is not None:
                raise failure
            checkpoint = open_run(options, folder, trainer, test)
        except (ValueError, OSError) as error:
            return command.fail("main.py", error)
        try:
            history = fit(options, folder, trainer, test, checkpoint)
        except (FloatingPointError, OSError) as error:
            if group is not None:
                group.ended(str(error))
            return command.fail("main.py", error)
        except (Stopped, LostProcess) as error:
            return end(options, group, error, began=True)
    done = len(history) - (len(checkpoint.history) if checkpoint else 0)
    print(closing_table(history))
    where = f"{trainer.device}{f' in {group.size} processes' if group else ''}"
    print(f"{done} epochs in {time.perf_counter() - started:.1f} s on {where}; logs in {options.logdir}")
    return 0


def end(options: argparse.Namespace, group: Group | None, error: Stopped | LostProcess, began: bool) -> int:
    """Say why a run ended early, and how to go on with one that was stopped; returns the exit status."""
    if group is None and isinstance(error, LostProcess):
        tell(str(error))
        return 1
    number = group.explain(error) if group is not None else getattr(error, "signal_number", 0)
    if number == 0:
        return 1
    if not began:
        print("stopped before the training began", file=sys.stderr)
    else:
        start = ["python"] if group is None else ["torchrun", "--standalone", "--nproc_per_node", str(group.size)]
        again = shlex.join([*start, *sys.argv, *["--resume"] * (not options.resume)])
        kept = (options.logdir / CHECKPOINT).exists()
        print(f"stopped; {f'go on with: {again}' if kept else 'no epoch was over yet'}", file=sys.stderr)
    return 128 + number


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 2 after one line on stderr that says what to change; 1 after one that says which of several
        processes was lost; 130 or 143 after Ctrl-C or SIGTERM.
    """
    group = None
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
