"""One experiment: train both tasks on MovieLens 100K and watch it in TensorBoard.

    python main.py                                              # shared embeddings, λ_F = 0.99, λ_R = 0.01
    python main.py --no_shared_embeddings --factorization_weight 0.5 --regression_weight 0.5
    tensorboard --logdir run

The data is fetched on the first run. Same seed and same machine: the same numbers, bit for bit.
"""

import argparse
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn


def stop_at_once(number: int, _: object) -> None:
    """Until the training can be stopped in an orderly way, there is nothing to keep."""
    os.write(2, b"stopped before the training began\n")
    os._exit(128 + number)


if __name__ == "__main__":  # before the imports that take a second
    signal.signal(signal.SIGINT, stop_at_once)
    signal.signal(signal.SIGTERM, stop_at_once)

import numpy as np
import torch

import data
import download
import runs
import train
from models import MultiTaskNet, check_sizes


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the flags, and fill in those whose default depends on others."""
    parser = Parser(description="Train MultiTaskNet on MovieLens 100K.", allow_abbrev=False)
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
        ValueError, OSError: an option, the data or the log directory cannot be used.
    """
    settings = train.Settings(
        options.factorization_weight, options.regression_weight, options.batch_size, options.learning_rate
    )
    for name, least in {"epochs": 1, "embedding_dim": 1, "seed": 0}.items():
        if getattr(options, name) < least:
            raise ValueError(f"{name} is {getattr(options, name)}: expected at least {least}")
    data.check_test_fraction(options.test_fraction)
    torch.set_num_threads(1)  # see train.threads_for, which decides for the training
    # A ReLU unit that no rating activates any more has no gradient: Adam's first moments of its weights shrink by a
    # tenth a step, until after some 800 steps they are denormal numbers, on which processors can be many times slower.
    torch.set_flush_denormal(True)
    device = pick_device(options.device)
    check_sizes(options.embedding_dim, options.layer_sizes)
    download.check_folder(options.logdir)
    interactions = data.load(options.data_dir)
    training_side, test_side = split(interactions, options.test_fraction, options.seed)
    _, model_seed, trainer_seed = streams(options.seed)
    torch.manual_seed(model_seed)
    try:
        model = MultiTaskNet(
            interactions.num_users,
            interactions.num_items,
            options.embedding_dim,
            options.layer_sizes,
            options.shared_embeddings,
        ).to(device)
    except RuntimeError as error:
        raise ValueError(f"the network does not fit into memory: {str(error).splitlines()[0]}") from error
    return train.Trainer(model, training_side, settings, trainer_seed, options.eager), test_side


def streams(seed: int) -> tuple[int, int, int]:
    """Seeds of the split, the weights and the training, so that none of them moves when another draws more."""
    split_seed, model_seed, trainer_seed = np.random.SeedSequence(seed).generate_state(3, np.uint64).tolist()
    return split_seed, model_seed, trainer_seed


def split(
    interactions: data.Interactions, test_fraction: float, seed: int
) -> tuple[data.Interactions, data.Interactions]:
    """The training and the test side of a run with this seed."""
    return data.random_train_test_split(interactions, test_fraction, torch.Generator().manual_seed(streams(seed)[0]))


def pick_device(name: str) -> torch.device:
    """The device of that name; for ``auto`` the first of cuda, mps and cpu that this machine has."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.partition(":")[0] not in ("cuda", "mps", "cpu"):
        raise ValueError(f"device {name} cannot be used: expected cuda, mps, cpu or auto")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name} cannot be used: {str(error).splitlines()[0]}") from error
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with fixed buffers
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def summary(history: list[train.Figures]) -> str:
    """A table of the figures after the last epoch and at their best, with the epochs."""
    last = len(history) - 1
    rows = [f"{'':13}{f'last (epoch {last})':18}best"]
    for title, name, best_of in train.JUDGED:
        values = [getattr(figures, name) for figures in history]
        best = values.index(best_of(values))
        rows.append(f"{title:13}{f'{values[last]:.4f}':18}{values[best]:.4f} (epoch {best})")
    return "\n".join(rows)


# What a run's figures depend on; a run can only be resumed with the same.
SETTINGS = (
    "factorization_weight",
    "regression_weight",
    "shared_embeddings",
    "test_fraction",
    "embedding_dim",
    "layer_sizes",
    "batch_size",
    "learning_rate",
    "seed",
)


def open_run(
    options: argparse.Namespace, folder: runs.Folder, trainer: train.Trainer, fingerprint: str
) -> runs.Checkpoint | None:
    """Go back to the checkpoint in a locked folder, or make room there for a new run, and say which.

    Raises:
        ValueError: the checkpoint is damaged, or of a run with other settings or data.
        OSError: the old run cannot be moved aside.
    """
    checkpoint = runs.load(folder.path) if options.resume else None
    if checkpoint is not None:
        settings = {name: getattr(options, name) for name in SETTINGS}
        if differing := runs.differences(checkpoint, settings, fingerprint):
            raise ValueError(f"{folder.path} holds a run with other settings: {'; '.join(differing)}")
        trainer.restore(checkpoint)
        epochs = len(checkpoint.history)
        ended = f"; it has the {options.epochs} epochs asked for" if epochs >= options.epochs else ""
        same = (checkpoint.device, checkpoint.settings.get("eager")) == (trainer.device.type, options.eager)
        bits = "" if same else "; not to the bit, because the device or the kind of step is another one"
        print(f"resuming {folder.path} after epoch {epochs - 1}{ended}{bits}", file=sys.stderr)
        return checkpoint
    if options.resume:
        print(f"nothing to resume in {folder.path}: starting", file=sys.stderr)
    if runs.holds_run(folder.path):
        print(f"{folder.path} holds a run: moved to {folder.move_aside()}", file=sys.stderr)
    return None


def run(options: argparse.Namespace) -> int:
    """Set up, train and report; returns the exit status."""
    started = time.perf_counter()
    try:
        trainer, test = set_up(options)
        folder = runs.Folder(options.logdir)
    except (ValueError, OSError) as error:
        return fail(error)
    with folder:
        try:
            checkpoint = open_run(options, folder, trainer, train.data_of(trainer.train, test))
        except (ValueError, OSError) as error:
            return fail(error)
        settings = {name: getattr(options, name) for name in (*SETTINGS, "eager")}
        try:
            history = train.fit(trainer, test, options.epochs, folder, settings, checkpoint)
        except (FloatingPointError, OSError) as error:
            return fail(error)
        except runs.Stopped as stopped:
            again = shlex.join(["python", *sys.argv, *["--resume"] * (not options.resume)])
            kept = (options.logdir / runs.CHECKPOINT).exists()
            print(f"stopped; {f'go on with: {again}' if kept else 'no epoch was over yet'}", file=sys.stderr)
            return 128 + stopped.signal_number
    print(summary(history))
    done = len(history) - (len(checkpoint.history) if checkpoint else 0)
    print(f"{done} epochs in {time.perf_counter() - started:.1f} s on {trainer.device}; logs in {options.logdir}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 2 after one line on stderr that says what to change; 130 or 143 after Ctrl-C or SIGTERM.
    """
    options = parse_arguments(arguments)
    try:
        with runs.stoppable():
            return run(options)
    except runs.Stopped as stopped:
        print("stopped before the training began", file=sys.stderr)
        return 128 + stopped.signal_number


def fail(error: Exception) -> int:
    """Report what a person can mend, without a traceback."""
    print(f"main.py: error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
