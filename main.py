"""One experiment: train both tasks on MovieLens 100K and watch it in TensorBoard.

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
from pathlib import Path

import torch

import data
import train
from cli.arguments import Parser, check_at_least
from cli.files import check_folder
from cli.signals import Stopped, stoppable
from models import MultiTaskNet, check_sizes
from tracking import resuming
from tracking.checkpoint import CHECKPOINT, Checkpoint
from tracking.folder import RunFolder
from tracking.history import closing_table
from training import devices, seeds
from training.evaluation import Evaluation, check_eval_users
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
    parser = Parser(description="Train MultiTaskNet on MovieLens 100K.")
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
    options = parser.parse_args(arguments)
    if options.layer_sizes is None:
        options.layer_sizes = [3 * options.embedding_dim, 64]
    if options.logdir is None:
        weights = f"LF={options.factorization_weight}_LR={options.regression_weight}"
        options.logdir = Path("run") / f"shared={options.shared_embeddings}_{weights}"
    return options


def set_up(options: argparse.Namespace) -> tuple[train.Trainer, data.Interactions]:
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
    check_folder(options.logdir)

    devices.use_one_thread()
    devices.flush_denormals()
    interactions = data.load(options.data_dir)
    training_side, test_side = split(interactions, options.test_fraction, options.seed)
    model = make_network(options, interactions, device)
    trainer = train.Trainer(model, training_side, settings, seeds.spawn(options.seed).trainer, options.eager)
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
    options: argparse.Namespace, folder: RunFolder, trainer: train.Trainer, test: data.Interactions
) -> Checkpoint | None:
    """Take the trainer to the checkpoint in the folder if that was asked for, or make room there for a new run.

    Raises:
        ValueError, OSError: the checkpoint cannot be resumed, or the old run cannot be moved aside.
    """
    checkpoint = None
    if options.resume:
        settings = {name: getattr(options, name) for name in SETTINGS}
        fingerprint = data.fingerprint(trainer.train, test)
        plan = resuming.Plan(settings, fingerprint, options.epochs, options.eager, trainer.device.type)
        if (checkpoint := resuming.find(folder, plan)) is not None:
            trainer.restore(checkpoint)
        resuming.announce(folder, plan, checkpoint)
    if checkpoint is None:
        resuming.make_room(folder)
    return checkpoint


def run(options: argparse.Namespace) -> int:
    """Set up, train and report; returns the exit status."""
    started = time.perf_counter()
    try:
        trainer, test = set_up(options)
        folder = RunFolder(options.logdir)
    except (ValueError, OSError) as error:
        return command.fail("main.py", error)
    with folder:
        try:
            checkpoint = open_run(options, folder, trainer, test)
        except (ValueError, OSError) as error:
            return command.fail("main.py", error)
        settings = {name: getattr(options, name) for name in (*SETTINGS, "eager")}
        try:
            users = check_eval_users(options.eval_users)
            evaluation = Evaluation(
                trainer.model, trainer.train, test.to(trainer.device), users, options.eval_every, trainer.seed
            )
            evaluation.announce()
            history = train.fit(trainer, test, options.epochs, folder, settings, checkpoint, evaluation)
        except (FloatingPointError, OSError) as error:
            return command.fail("main.py", error)
        except Stopped as stopped:
            again = shlex.join(["python", *sys.argv, *["--resume"] * (not options.resume)])
            kept = (options.logdir / CHECKPOINT).exists()
            print(f"stopped; {f'go on with: {again}' if kept else 'no epoch was over yet'}", file=sys.stderr)
            return 128 + stopped.signal_number
    done = len(history) - (len(checkpoint.history) if checkpoint else 0)
    print(closing_table(history))
    print(f"{done} epochs in {time.perf_counter() - started:.1f} s on {trainer.device}; logs in {options.logdir}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 2 after one line on stderr that says what to change; 130 or 143 after Ctrl-C or SIGTERM.
    """
    options = parse_arguments(arguments)
    try:
        with stoppable():
            return run(options)
    except Stopped as stopped:
        print("stopped before the training began", file=sys.stderr)
        return 128 + stopped.signal_number


if __name__ == "__main__":
    command.end(main)
