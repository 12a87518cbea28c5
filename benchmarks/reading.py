"""How long ratings take to be read: the first time, and from the cache; and the memory for it and the split.

    python benchmarks/reading.py                       # 32 million ratings of ml-32m's shape: four minutes
    python benchmarks/reading.py --ratings 1000000 --train     # and main.py for one epoch, from start to end

The ratings are synthetic, in the format of ml-32m. Each measurement is a process of its own.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import subprocess
import tempfile
import time

from cli.arguments import Parser
from datasets import synthetic
from datasets.source import SourceRatings

MEASURE = """
import resource, sys, time
import data
from training import preparation
from training.flags import parse_arguments
options = parse_arguments(["--dataset", "ml-32m", "--data_dir", sys.argv[1]])
started = time.perf_counter()
ratings = data.from_flags(options)
seconds, loaded = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
sides = preparation.split(ratings, 0.05, 0)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"{seconds:.1f} s, peak memory {loaded:.1f} GiB; with the split {peak:.1f} GiB")
"""

TRAIN = """
import contextlib, io, resource, sys, time
import main
started = time.perf_counter()
flags = ["--dataset", "ml-32m", "--data_dir", sys.argv[1], "--logdir", sys.argv[1] + "/run", "--epochs", "1"]
with contextlib.redirect_stdout(io.StringIO()):
    assert main.main(flags) == 0
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"{time.perf_counter() - started:.1f} s, peak memory {peak:.1f} GiB")
"""


def write(ratings: SourceRatings, folder: Path) -> None:
    """Write ratings as ml-32m's ``ratings.csv``, its ids from 1 and its lines sorted by user."""
    folder.mkdir(parents=True)
    order = ratings.users.argsort(kind="stable")
    with (folder / "ratings.csv").open("w") as file:
        file.write("userId,movieId,rating,timestamp\n")
        for start in range(0, len(order), 10**6):
            part = order[start : start + 10**6]
            columns = (ratings.users[part] + 1, ratings.items[part] + 1, ratings.ratings[part])
            rows = zip(*(column.tolist() for column in columns), strict=True)
            file.writelines(f"{user},{item},{stars},944249077\n" for user, item, stars in rows)


def command_line() -> int:
    """Draw, write, and measure twice."""
    parser = Parser(description="How long ratings take to be read.")
    parser.add_argument("--ratings", type=int, default=32_000_204, help="how many (%(default)s)")
    parser.add_argument("--train", action="store_true", help="and main.py for one epoch, from start to end")
    options = parser.parse_args()
    wanted = options.ratings
    share = min(1.0, wanted / 32_000_204) ** 0.5
    started = time.perf_counter()
    drawn = synthetic.draw(max(30, round(200_948 * share)), max(30, round(84_432 * share)), wanted, seed=0)
    print(f"drawn: {time.perf_counter() - started:.1f} s", flush=True)
    with tempfile.TemporaryDirectory() as name:
        write(drawn, Path(name) / "ml-32m")
        del drawn
        parts = {"first reading": MEASURE, "second start": MEASURE}
        for which, program in (parts | ({"main.py, one epoch": TRAIN} if options.train else {})).items():
            done = subprocess.run(
                [sys.executable, "-c", program, name], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
            )
            print(f"{which}: {done.stdout.strip()}", flush=True)
    return 0


if __name__ == "__main__":
    command.end(command_line)
