"""The distance of a right solution from the limits of the grader's bands: checks 2-2 and 2-3 for many initializations.

    python benchmarks/rubric_bands.py                # models.py, 20 seeds of weights, shuffles and negative items

The grader uses one of these seeds, the same for all. However, a submission that creates its layers in a different order
starts from different weights.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import itertools
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

import grader
from cli.arguments import Parser
from grading.checks import SEPARATE, SHARED, Split, import_models
from grading.sandbox import Sandbox
from grading.submissions import read_submission
from grading.trained_metrics import FORWARD, train_and_score

TIMEOUT = 120.0  # seconds for one training


def test_metrics(
    names: tuple[str, ...], seeds: range, split: Split, path: Path, ended: threading.Event
) -> list[tuple[float, float]]:
    """Return test MRR and MSE of each seed, or of the first ones when the command is stopped."""
    with Sandbox() as sandbox:
        found = []
        for seed in itertools.takewhile(lambda _: not ended.is_set(), seeds):
            with sandbox.session(read_submission(path).files, TIMEOUT, trains=True) as session:
                import_models(session.ask)
                found.append(train_and_score(session.ask, split, names, seed)[FORWARD])
        return found


def main() -> int:
    """Print a table; returns the exit status."""
    parser = Parser("Train as checks 2-2 and 2-3 do, from many initializations.")
    flag = parser.add_argument
    flag("--seeds", type=int, default=20, metavar="N", help="number of initializations (default: %(default)s)")
    flag("--submission", type=Path, default=ROOT / "models.py", metavar="PATH", help="submission (default: models.py)")
    options = parser.parse_args()
    split = grader.course_split(ROOT / "data")
    torch.set_num_threads(1)
    ended = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        try:
            shared, separate = threads.map(
                lambda names: test_metrics(names, range(options.seeds), split, options.submission, ended),
                (SHARED, SEPARATE),
            )
        finally:
            ended.set()
    print(f"| {options.seeds} initializations | test MRR | smallest–largest | test MSE | smallest–largest |")
    print("| --- | --- | --- | --- | --- |")
    for title, found in (("shared", shared), ("separate", separate)):
        cells = [
            f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} | {min(values):.3f}–{max(values):.3f}"
            for values in zip(*found, strict=True)
        ]
        print(f"| {title} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    command.end(main)
