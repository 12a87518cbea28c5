"""The flags of an experiment, and those of them that its metrics depend on."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from cli.arguments import Parser
from datasets import choice
from training.recipe import Recipe

INGREDIENTS = tuple(field.name for field in fields(Recipe))
# A run can only be resumed with the same.
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
    *INGREDIENTS,
    "planned_epochs",
    "validation_fraction",
)
# What --preset sets; every flag can still be given.
PRESETS: dict[str, dict[str, Any]] = {
    "homework": {},
    "tuned": {
        "factorization_weight": 0.99,
        "regression_weight": 0.0055,
        "epochs": 50,
        "embedding_dim": 64,
        "batch_size": 1024,
        "learning_rate": 0.008,
        "negatives": 256,
        "unseen_negatives": True,
        "shared_negatives": True,
        "negative_temperature": 4.0,
        "user_balance": 0.25,
        "watched_items": True,
        "temperature": 2.5,
        "weight_decay": 1e-5,
        "lr_schedule": "linear",
        "embedding_dropout": 0.3,
        "dropout": 0.4,
        "average_last": 1 / 3,
        "start_at_mean": True,
        "clamp": True,
        "optimizer": "adam",
    },
}


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
    flag("--validation_fraction", type=float, default=0.0, help="share of the training ratings to choose by (none)")
    flag("--patience", type=int, default=0, help="epochs without a better one to stop after (%(default)s: never)")
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
    flag("--eager", action="store_true", help="train with the plain step, the definition: the same numbers, slower")
    flag("--data_dir", type=Path, default=Path("data"), help="folder for the data (%(default)s)")
    flag("--preset", choices=PRESETS, default="homework", help="values of the flags that are not given (homework)")
    _add_ingredients(parser)
    choice.add_flags(parser)
    parser.set_defaults(**PRESETS[parser.parse_args(arguments).preset])
    options = parser.parse_args(arguments)
    if options.layer_sizes is None:
        options.layer_sizes = [3 * options.embedding_dim, 64]
    if options.logdir is None:
        weights = options.factorization_weight, options.regression_weight
        tuned = "" if options.preset == "homework" else f"{options.preset}_"
        options.logdir = Path("run") / f"{tuned}{folder_name(options.shared_embeddings, *weights)}"
    needs_epochs = options.lr_schedule != "constant" or options.average_last > 0
    options.planned_epochs = options.epochs if needs_epochs else 0
    return options


def _add_ingredients(parser: Parser) -> None:
    """The flags of ``Recipe``; each is the homework's by default."""
    flag = parser.add_argument
    flag("--negatives", type=int, default=1, help="items drawn a negative, the highest p_ij is taken (%(default)s)")
    flag("--unseen_negatives", action=argparse.BooleanOptionalAction, default=False, help="none that the user rated")
    flag("--shared_negatives", action=argparse.BooleanOptionalAction, default=False, help="the same for a batch")
    flag("--negative_temperature", type=float, default=0.0, help="above 0: all drawn, by softmax(p/τ) (%(default)s)")
    flag("--user_balance", type=float, default=0.0, help="β: a rating weighs n^-β in L_F (%(default)s)")
    flag("--watched_items", action=argparse.BooleanOptionalAction, default=False, help="add what a user rated to u_i")
    flag("--temperature", type=float, default=1.0, help="T of 1 − σ((p⁺ − p⁻)/T) (%(default)s)")
    flag("--weight_decay", type=float, default=0.0, help="of the embeddings and item biases (%(default)s)")
    flag("--lr_schedule", default="constant", help="constant, or linear: down to 0 (%(default)s)")
    flag("--embedding_dropout", type=float, default=0.0, help="of u_i in the ranking head (%(default)s)")
    flag("--dropout", type=float, default=0.0, help="after each ReLU of the MLP (%(default)s)")
    flag("--average_last", type=float, default=0.0, help="share of the epochs whose weights are averaged (%(default)s)")
    flag("--start_at_mean", action=argparse.BooleanOptionalAction, default=False, help="start at the mean rating")
    flag("--clamp", action=argparse.BooleanOptionalAction, default=False, help="cut predicted ratings to their range")


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The ingredients of the flags.

    Raises:
        ValueError: one of them is out of range.
    """
    return Recipe(**{name: getattr(options, name) for name in INGREDIENTS})


def folder_name(shared: bool, factorization_weight: float, regression_weight: float) -> str:
    """What the folder of an experiment is called, as in the homework."""
    return f"shared={shared}_LF={factorization_weight}_LR={regression_weight}"


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the metrics depend on, by name."""
    return {name: getattr(options, name) for name in SETTINGS}
