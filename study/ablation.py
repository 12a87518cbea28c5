"""The tuned preset on fresh splits: without each of its ingredients, with one task alone, and beside EASE.

    python -m study.ablation                                    # five splits of each; 20 minutes
    python -m study.ablation --seeds 2 --epochs 1               # a look
    python -m study.ablation --preset_only --first_seed 15 --seeds 20      # the preset and EASE alone; four minutes
    python -m study.ablation --variants study/variants.json --validation_fraction 0.05 --first_seed 100    # a search

The differences are taken split by split, with 95 % intervals (Student's t). No setting was chosen on a split of the
seeds from FIRST_SEED to 99. The tables go to LOGDIR/ablation.md.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the first run")

import json
import math
import statistics
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.options import option
from datasets.source import DataSource
from study import trials
from study.baselines import ease, ease_bytes
from study.summary import half_interval, spread, table
from study.trials import Scores, SplitSettings
from training import setup
from training.settings import Settings, preset

FIRST_SEED = 5
LARGEST_EASE = 4 * 2**30  # bytes
PRESET, EASE = "the preset", "EASE, λ = 200"
ONE_NEGATIVE = {"negatives": 1, "unseen_negatives": False}
VARIANTS: dict[str, dict[str, Any]] = {
    PRESET: {},
    "one negative, the homework's loss": ONE_NEGATIVE | {"ranking_loss": "bounded"},
    "one negative, the logistic loss": ONE_NEGATIVE | {"ranking_loss": "logistic"},
    "the logistic loss of all negatives": {"ranking_loss": "logistic"},
    "negatives that the user may have rated": {"unseen_negatives": False},
    "users weighted by their ratings": {"user_balance": 0.0},
    "no sums of neighbours": {"watched_items": False},
    "no weight decay": {"weight_decay": 0.0},
    "constant learning rate": {"lr_schedule": "constant"},
    "no dropout of u": {"embedding_dropout": 0.0},
    "no dropout in the MLP": {"dropout": 0.0},
    "ratings without a baseline": {"rating_baseline": False},
    "a baseline of biases alone": {"rating_factors": 0},
    "no pseudo-ratings": {"pseudo_ratings": 0},
    "ratings in stars": {"rating_unit": "star"},
    "ranking alone, λ_R = 0": {"regression_weight": 0.0},
    "rating alone, λ_F = 0": {"factorization_weight": 0.0},
    "separate tables": {"shared_embeddings": False},
}
Found = dict[str, dict[int, Scores]]  # of each variant and seed


@dataclass(frozen=True)
class Options(trials.Options):
    """The options of the command."""

    first_seed: int = option(FIRST_SEED, "the first seed", metavar="N", least=0)
    preset_only: bool = option(False, "train only the preset, beside EASE")
    variants: Path | None = option(
        None, "JSON file of variants in place of the ingredients: changed settings by name", metavar="FILE", parse=Path
    )
    validation_fraction: float = option(
        0.0, "score on a validation set of this share of the training ratings; 0: on the test set", metavar="SHARE",
        least=0, below=1,
    )  # fmt: skip


def settings_of(changes: dict[str, Any], seed: int, split: SplitSettings, epochs: int = 0) -> Settings:
    """Return the settings of a variant; ``epochs`` other than 0 replace the variant's."""
    last = split | {"seed": seed, "eval_users": "all"} | ({"epochs": epochs} if epochs else {})
    return Settings(**preset("tuned") | changes | last)


def variants_of(options: Options) -> dict[str, dict[str, Any]]:
    """Return the changes of each variant of the preset, which is the first.

    Raises:
        ValueError, OSError: the file cannot be read, or a variant has a wrong setting.
    """
    if options.preset_only:
        return {PRESET: {}}
    if options.variants is None:
        return VARIANTS
    try:
        variants = json.loads(options.variants.read_text("utf-8"))
        found = {PRESET: {}} | {name: dict(changes) for name, changes in variants.items()}
        for changes in found.values():
            settings_of(changes, 0, {})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"variants {options.variants}: {error}; expected settings by name for each variant") from None
    return found


def make_tables(options: Options, source: DataSource, split: SplitSettings) -> str:
    """Train all variants, and fit EASE, on each split, and write the tables."""
    setup.use_one_thread()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    interactions = trials.read(source)
    variants = variants_of(options)
    if not interactions.rated.any():  # then a network that only rates learns nothing
        variants = {name: changes for name, changes in variants.items() if changes.get("factorization_weight") != 0}
    split = split | {"validation_fraction": options.validation_fraction}
    found: Found = {name: {} for name in variants}
    if (needed := ease_bytes(interactions)) > LARGEST_EASE:
        print(f"{EASE} is left out: it needs {needed / 2**30:.0f} GiB", file=sys.stderr)
    else:
        found[EASE] = {
            seed: trials.fit_and_score(ease, setup.split(interactions, settings_of({}, seed, split))) for seed in seeds
        }
    work = {
        (name, seed): (settings_of(changes, seed, split, options.epochs), source)
        for seed in seeds
        for name, changes in variants.items()
    }
    with closing(trials.results(trials.train_and_score, work, options.jobs)) as done:
        for (name, seed), scores in done:
            found[name][seed] = scores
    return tables(found)


def interval(differences: Sequence[float], digits: int) -> str:
    """Write the mean of differences [95 % interval]."""
    if any(map(math.isnan, differences)):
        return "–"
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return f"{mean:+.{digits}f}"
    half = half_interval(differences)
    return f"{mean:+.{digits}f} [{mean - half:+.{digits}f}, {mean + half:+.{digits}f}]"


def tables(found: Found) -> str:
    """Write two tables in Markdown: the scores of the preset and EASE, and the differences to the preset."""
    presets = found[PRESET]
    splits = f"{len(presets)} split{'s' * (len(presets) > 1)}"
    rows = []
    for name in [each for each in (PRESET, EASE) if each in found]:
        mrr, mse, seconds = zip(*found[name].values(), strict=True)
        rows.append([name, spread(mrr, 4), spread(mse, 3), spread(seconds, 1)])
    differences = []
    for name in list(found)[1:]:
        mrr_minus = [scores.mrr - presets[seed].mrr for seed, scores in found[name].items()]
        mse_minus = [scores.mse - presets[seed].mse for seed, scores in found[name].items()]
        differences.append([name, interval(mrr_minus, 4), interval(mse_minus, 3)])
    levels = table([splits, "MRR", "MSE", "seconds"], rows)
    return f"{levels}\n\n{table([f'{splits}, minus the preset', 'MRR', 'MSE'], differences)}"


def main() -> int:
    """Run the command line; returns the exit status."""
    description = "Train the tuned preset on fresh splits, with and without each of its ingredients."
    return trials.write_tables("study.ablation", description, Options, make_tables, "ablation.md")


if __name__ == "__main__":
    command.end(main)
