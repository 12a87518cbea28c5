"""The time and memory of reading ratings, the first time and from the cache.

    python benchmarks/reading.py                       # 32 million ratings of ml-32m's shape: four minutes
    python benchmarks/reading.py --dataset ml-10m      # the shape and format of another release
    python benchmarks/reading.py --ratings 1000000 --train     # also main.py for one epoch, from start to end

The ratings are synthetic, in files as the README of the release describes them. Each measurement is a process of its
own.
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

from harness import SIZES

from cli.arguments import Parser
from datasets import synthetic
from datasets.ratings import Ratings
from datasets.releases import RELEASES

MEASURE = """
import pathlib, resource, sys, time
import data
from datasets.source import DataSource
source = DataSource(dataset=sys.argv[2], data_dir=pathlib.Path(sys.argv[1]))
started = time.perf_counter()
ratings = data.read(source)
seconds, loaded = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
train, test = data.random_train_test_split(ratings)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"{seconds:.1f} s, peak memory {loaded:.1f} GiB; with the split {peak:.1f} GiB")
"""

TRAIN = """
import contextlib, io, resource, sys, time
import main
started = time.perf_counter()
flags = ["--dataset", sys.argv[2], "--data_dir", sys.argv[1], "--logdir", sys.argv[1] + "/run", "--epochs", "1"]
with contextlib.redirect_stdout(io.StringIO()):
    assert main.main(flags) == 0
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"{time.perf_counter() - started:.1f} s, peak memory {peak:.1f} GiB")
"""


def write(ratings: Ratings, name: str, folder: Path) -> None:
    """Write ratings and titles as the files of a release, with IDs from 1 and lines sorted by user."""
    archive = RELEASES[name][0]
    is_csv = archive.ratings.endswith(".csv")
    sep, quote, digits = (",", '"', ".1f") if is_csv else ("::", "", "g")
    folder.mkdir(parents=True)
    with (folder / archive.titles).open("w", encoding=archive.encoding) as file:
        if is_csv:
            file.write("movieId,title,genres\n")
        for item in range(1, int(ratings.item_ids.max()) + 2):
            file.write(f"{item}{sep}{quote}Movie {item}, The (1999){quote}{sep}Comedy|Drama\n")
    order = ratings.user_ids.argsort(kind="stable")
    with (folder / archive.ratings).open("w") as file:
        if is_csv:
            file.write("userId,movieId,rating,timestamp\n")
        for start in range(0, len(order), 10**6):
            part = order[start : start + 10**6]
            columns = (ratings.user_ids[part] + 1, ratings.item_ids[part] + 1, ratings.ratings[part])
            rows = zip(*(column.tolist() for column in columns), strict=True)
            file.writelines(f"{u}{sep}{i}{sep}{stars:{digits}}{sep}944249077\n" for u, i, stars in rows)


def command_line() -> int:
    """Draw and write ratings, and measure twice."""
    parser = Parser(description="Measure the time and memory of reading ratings.")
    flag = parser.add_argument
    releases = [name for name in SIZES if name != "ml-100k"]
    flag("--dataset", choices=releases, default="ml-32m", help="release with this shape and format (%(default)s)")
    flag("--ratings", type=int, help="number of ratings (that of the release)")
    flag("--train", action="store_true", help="also run main.py for one epoch, from start to end")
    options = parser.parse_args()
    shape = SIZES[options.dataset]
    wanted = shape.ratings if options.ratings is None else options.ratings
    share = min(1.0, wanted / shape.ratings) ** 0.5
    started = time.perf_counter()
    drawn = synthetic.draw(max(30, round(shape.users * share)), max(30, round(shape.items * share)), wanted, seed=0)
    print(f"drawn: {time.perf_counter() - started:.1f} s", flush=True)
    with tempfile.TemporaryDirectory() as name:
        write(drawn, options.dataset, Path(name) / options.dataset)
        del drawn
        parts = {"first reading": MEASURE, "second start": MEASURE}
        for part, program in (parts | ({"main.py, one epoch": TRAIN} if options.train else {})).items():
            arguments = [sys.executable, "-c", program, name, options.dataset]
            output = subprocess.run(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
            print(f"{part}: {output.strip()}", flush=True)
    return 0


if __name__ == "__main__":
    command.end(command_line)
