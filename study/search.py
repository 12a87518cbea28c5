"""Random search for the settings of a preset, scored on validation sets of one data set or several.

    python -m study.search                                  # 40 draws on one split, the best 8 on three; 25 minutes
    python -m study.search --sources ml-100k ml-1m          # one preset for two data sets
    python -m study.search --draws 4 --again 2 --epochs 1   # a look

A draw takes a value at random for each setting in SPACE; the other settings are those of the preset that the search
starts from, which is the first draw itself. The score of a draw is its validation MRR / MSE: one percent of the one is
worth one percent of the other. Over several splits and data sets it is the geometric mean, so that no data set counts
for more because its MRR is high. The splits are those of the seeds from FIRST_SEED on, which no reported result uses;
their test sets are not looked at. Each result is written to LOGDIR/search.csv when it arrives.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the first draw")

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.arguments import Parser, add_options, available_cores, name_or_path, options_of
from cli.files import check_folder, write_whole
from cli.options import check_options, option
from cli.signals import Stopped, stoppable
from datasets.source import DataSource
from study.trials import read, results, train_and_score
from training.settings import Settings, preset

FIRST_SEED = 100
VALIDATION_FRACTION = 0.05
SPACE: dict[str, Sequence[Any]] = {
    "negatives": (64, 128, 256),
    "negative_temperature": (2.5, 4.0, 6.0),
    "user_balance": (0.25, 0.4, 0.5),
    "temperature": (1.5, 2.5, 4.0),
    "learning_rate": (0.005, 0.007, 0.01, 0.014),
    "weight_decay": (5e-6, 1e-5, 2e-5),
    "embedding_dropout": (0.1, 0.2, 0.3, 0.4),
    "dropout": (0.3, 0.4, 0.5),
    "embedding_dim": (48, 64, 96),
    "batch_size": (1024, 2048),
    "epochs": (40, 60, 80),
    "regression_weight": (0.003, 0.0055, 0.01),
}


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    sources: tuple[str, ...] = option(
        ("ml-100k",), "data sets: names of MovieLens releases, and files of ratings", metavar="NAME|FILE",
        parse=name_or_path, several=True, default_help="ml-100k",
    )  # fmt: skip
    data_dir: Path = option(Path("data"), "folder for the data", metavar="DIR", parse=Path)
    preset: str = option("tuned", "preset that the search starts from", metavar="NAME|FILE", parse=name_or_path)
    draws: int = option(40, "number of draws", metavar="N", least=1)
    again: int = option(8, "number of the best draws that are trained on further splits", metavar="N", least=1)
    splits: int = option(3, "number of splits of each data set for these, the first included", metavar="N", least=1)
    epochs: int = option(0, "epochs of all draws, for a look; 0: those drawn", metavar="N", least=0)
    jobs: int = option(available_cores(), "runs at a time", metavar="N", least=1)
    logdir: Path = option(Path("run"), "folder for search.csv", metavar="DIR", parse=Path)

    def __post_init__(self) -> None:
        check_options(self)


def source_of(name: str, data_dir: Path) -> DataSource:
    """Return the data set with this name: a file of ratings if there is one, else a release of MovieLens."""
    path = Path(name)
    return DataSource(ratings=path, data_dir=data_dir) if path.is_file() else DataSource(name, data_dir=data_dir)


def draw(space: dict[str, Sequence[Any]], number: int) -> dict[str, Any]:
    """Return the changed settings of the draw with this number; draw 0 changes nothing."""
    if number == 0:
        return {}
    rng = np.random.default_rng(number)
    return {name: values[int(rng.integers(len(values)))] for name, values in space.items()}


def score_draws(options: Options, numbers: Sequence[int], seeds: Sequence[int], log: list[dict[str, Any]]) -> None:
    """Train and score draws on all data sets, split with each of these seeds; add the results to the log."""
    fixed = preset(options.preset) | {"eval_users": "all", "validation_fraction": VALIDATION_FRACTION}
    epochs = {"epochs": options.epochs} if options.epochs else {}
    changes = {number: draw(SPACE, number) | epochs for number in numbers}
    work = {
        (number, name, seed): (Settings(**fixed | changes[number] | {"seed": seed}), source_of(name, options.data_dir))
        for number in numbers
        for seed in seeds
        for name in options.sources
    }
    with closing(results(train_and_score, work, options.jobs)) as done:
        for (number, name, seed), scores in done:
            log.append({"draw": number, "source": name, "seed": seed} | changes[number] | scores._asdict())
            write_whole(pd.DataFrame(log).to_csv(index=False).encode(), options.logdir / "search.csv")


def ranked(log: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the draws that were scored on most splits, the best first, with their means and changed settings."""
    rows = pd.DataFrame(log).fillna({"mrr": 0.0, "mse": np.inf})  # NaN where a loss stopped being finite
    with np.errstate(divide="ignore"):
        rows["score"] = np.log(rows["mrr"] / rows["mse"])
    by_draw = rows.groupby("draw")
    means = by_draw[["mrr", "mse", "score"]].mean().assign(splits=by_draw.size())
    means["score"] = np.exp(means["score"])
    settings = by_draw[[name for name in SPACE if name in rows]].first()
    best = means[means["splits"] == means["splits"].max()].join(settings)
    ordered: pd.DataFrame = best.sort_values("score", ascending=False)
    return ordered


def main() -> int:
    """Run the search, and print the draws that were scored on all splits, the best first; returns the exit status."""
    parser = Parser("Search the settings of a preset on validation sets.")
    add_options(parser, Options)
    flags = parser.parse_args()
    log: list[dict[str, Any]] = []
    try:
        options = options_of(Options, flags)
        check_folder(options.logdir)
        for name in options.sources:
            read(source_of(name, options.data_dir))
        with stoppable():
            score_draws(options, range(options.draws), [FIRST_SEED], log)
            best = ranked(log).index[: options.again].tolist()
            score_draws(options, best, range(FIRST_SEED + 1, FIRST_SEED + options.splits), log)
    except (ValueError, OSError) as error:
        return command.fail("study.search", error)
    except Stopped as stopped:
        print(f"stopped; the results so far are in {flags.logdir / 'search.csv'}", file=sys.stderr)
        return 128 + stopped.signal_number
    print(ranked(log).to_string())
    return 0


if __name__ == "__main__":
    command.end(main)
