"""One network of this project in a published protocol, beside the published metrics of several models.

    python benchmarks/published.py                          # five splits; two minutes
    python benchmarks/published.py --seeds 1 --epochs 1     # a look

The protocol is that of microsoft/recommenders' "Algorithm Comparison": MovieLens 100K, a quarter of each user's ratings
at random as the test set, and the first ten items. Its models were trained for 15 epochs with values from the
literature. Those that rank do not rate, except SAR, and those that rate rank badly; here one network does both. Their
splits differ from these, and are as random. MAP is left out, because that table divides by n and not by min(n, 10).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import argparse
import math

import torch
from harness import machine

import data
import train
from cli.arguments import Parser, check_at_least, name_or_path, path_of
from datasets.source import DataSource
from study.summary import spread, table
from training import setup
from training.settings import Settings, preset

SOURCE = "https://github.com/recommenders-team/recommenders#algorithm-comparison"
METRICS = {"precision@10": "precision@10", "recall@10": "recall@10", "ndcg@10": "NDCG@10", "test_rmse": "RMSE",
           "test_mae": "MAE"}  # fmt: skip
NONE = math.nan
PUBLISHED = {
    "BiVAE": (0.411771, 0.219145, 0.475077, NONE, NONE),
    "BPR": (0.388229, 0.212522, 0.441997, NONE, NONE),
    "LightGCN": (0.379626, 0.144336, 0.419846, NONE, NONE),
    "NCF": (0.347296, 0.180775, 0.396118, NONE, NONE),
    "SAR": (0.330753, 0.176385, 0.382461, 1.253805, 1.048484),
    "FastAI": (0.130329, 0.053824, 0.147866, 0.943084, 0.744337),
    "SVD": (0.091198, 0.032783, 0.095930, 0.938681, 0.742690),
    "ALS": (0.048462, 0.017796, 0.044239, 0.965038, 0.753001),
}


def settings_of(name: str, seed: int, epochs: int | None) -> Settings:
    """Return the settings of a preset in the protocol; ``epochs``, if given, replace the preset's."""
    values = preset(name) | ({} if epochs is None else {"epochs": epochs})
    protocol = {"split": "user", "test_fraction": 0.25, "topk": (10,), "eval_users": "all", "seed": seed}
    return Settings(**values | protocol | {"eval_every": values.get("epochs", Settings.epochs)})


def closing_metrics(interactions: data.Interactions, settings: Settings) -> dict[str, float]:
    """Train a network, and return the metrics of the end on the test set."""
    split = setup.split(interactions, settings)
    trainer = setup.make_trainer(settings, split.train, torch.device("cpu"))
    return train.fit(trainer, split.test).closing


def compare(options: argparse.Namespace) -> None:
    """Train on each split, and print the table.

    Raises:
        ValueError, OSError: the ratings or the preset cannot be read.
    """
    setup.use_one_thread()
    setup.flush_denormals()
    interactions = data.read(DataSource(data_dir=options.data_dir))
    every = [settings_of(options.preset, seed, options.epochs) for seed in range(options.seeds)]
    found = [closing_metrics(interactions, settings) for settings in every]
    means = [spread([each[name] for each in found], 3) for name in METRICS]
    own = f"this project, --preset {options.preset}, {options.seeds} split{'s' * (options.seeds > 1)}"
    rows = [[own, *means]]
    rows += [[name, *(spread([value], 3) for value in values)] for name, values in PUBLISHED.items()]
    print(f"MovieLens 100K, 75/25 per user; {machine()}; published: {SOURCE}\n")
    print(table(["", *METRICS.values()], rows))


def command_line() -> int:
    """Run the command line; returns the exit status."""
    parser = Parser("Compare a preset with published metrics, in their protocol.")
    flag = parser.add_argument
    flag("--seeds", type=int, default=5, metavar="N", help="number of splits (default: %(default)s)")
    flag("--preset", type=name_or_path, default="tuned", metavar="NAME|FILE",
         help="settings of this project (default: %(default)s)")  # fmt: skip
    flag("--epochs", type=int, metavar="N", help="epochs of this project (default: the preset's)")
    flag("--data_dir", type=path_of, default=ROOT / "data", metavar="DIR", help="folder of the ratings")
    options = parser.parse_args()
    try:
        check_at_least(options, seeds=1)
        compare(options)
    except (ValueError, OSError) as error:
        return command.fail("published.py", error)
    return 0


if __name__ == "__main__":
    command.end(command_line)
