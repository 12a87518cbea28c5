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

from cli.arguments import Parser, add_options, available_cores, options_of
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
        ("ml-100k",), "data sets: names of MovieLens releases, and files of ratings", metavar="NAME|FILE", parse=str,
        several=True, default_help="ml-100k",
    )  # fmt: skip
    data_dir: Path = option(Path("data"), "folder for the data", metavar="DIR", parse=Path)
    preset: str = option("tuned", "preset that the search starts from", metavar="NAME|FILE")
    draws: int = option(40, "number of draws", metavar="N", least=1)
    again: int = option(8, "number of the best draws that are trained on further splits", metavar="N", least=1)
    splits: int = option(3, "number of splits of each data set for these, the first included", metavar="N", least=1)
    epochs: int = option(0, "epochs of all draws, for a look; 0: those drawn", metavar="N", least=0)
    jobs: int = option(available_cores(), "runs at a time", metavar="N", least=1)
    logdir: Path = option(Path("run"), "folder for search.csv", metavar="DIR", parse=Path)

    def __post_init__(self) -> None:
        check_options(self)

    def data_sources(self) -> dict[str, DataSource]:
        """Return the data sets by their names."""
        files = {name: Path(name) for name in self.sources}
        return {
            name: DataSource(ratings=path, data_dir=self.data_dir)
            if path.is_file()
            else DataSource(dataset=name, data_dir=self.data_dir)
            for name, path in files.items()
        }


def draw(space: dict[str, Sequence[Any]], number: int) -> dict[str, Any]:
    """Return the changed settings of the draw with this number; draw 0 changes nothing."""
    if number == 0:
        return {}
    rng = np.random.default_rng(number)
    return {name: values[int(rng.integers(len(values)))] for name, values in space.items()}


class Search:
    """A random search and its log.

    Args:
        sources: the data sets by their names.
        space: the values of each setting that is searched.
        base: the other settings.
        path: of the log, a CSV file.
        jobs: the number of processes.

    Attributes:
        rows: the log: a row for each draw, data set and seed.
    """

    def __init__(
        self,
        sources: dict[str, DataSource],
        space: dict[str, Sequence[Any]],
        base: dict[str, Any],
        path: Path,
        jobs: int,
    ) -> None:
        self.sources, self.space, self.base, self.path, self.jobs = sources, space, base, path, jobs
        self.rows: list[dict[str, Any]] = []

    def run(self, numbers: Sequence[int], seeds: Sequence[int]) -> None:
        """Score the draws with these numbers on all data sets, each split with each of these seeds.

        Raises:
            Stopped: a signal asked the process to end; no run is left then.
        """
        work = {
            (number, name, seed): (self.settings(number, seed), source)
            for number in numbers
            for seed in seeds
            for name, source in self.sources.items()
        }
        with closing(results(train_and_score, work, self.jobs)) as done:
            for (number, name, seed), scores in done:
                key = {"draw": number, "source": name, "seed": seed}
                self.rows.append(key | draw(self.space, number) | scores._asdict())
                write_whole(pd.DataFrame(self.rows).to_csv(index=False).encode(), self.path)

    def settings(self, number: int, seed: int) -> Settings:
        """Return the settings of a draw on the split of a seed."""
        held_out = {"seed": seed, "eval_users": "all", "validation_fraction": VALIDATION_FRACTION}
        return Settings(**self.base | draw(self.space, number) | held_out)

    def table(self) -> pd.DataFrame:
        """Return the draws with the most splits, the best first: mean MRR and MSE, score and changed settings."""
        log = pd.DataFrame(self.rows).fillna({"mrr": 0.0, "mse": np.inf})  # where a loss stopped being finite
        with np.errstate(divide="ignore"):
            log["score"] = np.log(log["mrr"] / log["mse"])
        grouped = log.groupby("draw")[["mrr", "mse", "score"]]
        means = grouped.mean().assign(splits=grouped.size())
        means["score"] = np.exp(means["score"])
        compared = means[means["splits"] == means["splits"].max()].sort_values("score", ascending=False)
        changed = pd.DataFrame([draw(self.space, number) for number in compared.index], index=compared.index)
        table: pd.DataFrame = pd.concat([compared, changed], axis=1)
        return table


def main() -> int:
    """Run the search, and print the draws that were scored on all splits, the best first; returns the exit status."""
    parser = Parser("Search the settings of a preset on validation sets.")
    add_options(parser, Options)
    flags = parser.parse_args()
    log = flags.logdir / "search.csv"
    try:
        options = options_of(Options, flags)
        sources = options.data_sources()
        base, space = preset(options.preset), dict(SPACE)
        if options.epochs:
            base["epochs"] = options.epochs
            del space["epochs"]
        check_folder(options.logdir)
        for source in sources.values():
            read(source)
        search = Search(sources, space, base, log, options.jobs)
        with stoppable():
            search.run(range(options.draws), [FIRST_SEED])
            best = search.table().index[: options.again].tolist()
            search.run(best, range(FIRST_SEED + 1, FIRST_SEED + options.splits))
    except (ValueError, OSError) as error:
        return command.fail("study.search", error)
    except Stopped as stopped:
        print(f"stopped; the results so far are in {log}", file=sys.stderr)
        return 128 + stopped.signal_number
    print(search.table().to_string())
    return 0


if __name__ == "__main__":
    command.end(main)
