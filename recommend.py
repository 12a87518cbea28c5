"""Recommendations of a trained run.

    python recommend.py --logdir run/mine --user 42 --top 10         # beside the items that the user rated highest
    python recommend.py --logdir run/mine --similar "Toy Story"
    python recommend.py --logdir run/mine --rated "Toy Story=5" "Heat=2"     # to a user who is not in the ratings
    python recommend.py --logdir run/mine --quartiles                        # test metrics by activity and popularity
    python recommend.py --logdir run/mine --all --out recommendations.csv
    python recommend.py --logdir run/mine --export vectors                   # for a nearest-neighbour index

A run notes where its ratings are. Users and items are given by the IDs of the ratings; items also by their titles.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import argparse
import contextlib
import io
import shlex
import sys
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from cli.arguments import Parser, add_options, check_at_least, given
from cli.files import check_folder, write_whole
from datasets.source import FILES, DataSource, folder_of_runs
from serving import export
from serving.recommender import Recommender
from tracking import run_data
from training.settings import folder_name

FORMATS = (".csv", ".parquet")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser("Recommend items with a trained run.")
    flag = parser.add_argument
    run = folder_name(True, 0.99, 0.01)
    flag("--logdir", type=Path, metavar="DIR",
         help=f"folder of the run (default: run/{run}; with --ratings FILE run/FILE/{run})")  # fmt: skip
    answer = parser.add_argument_group("one of these is required").add_mutually_exclusive_group(required=True)
    answer.add_argument("--user", nargs="+", metavar="ID", help="recommend to these users")
    answer.add_argument("--all", action="store_true", help="recommend to all users; needs --out")
    answer.add_argument("--similar", metavar="ITEM", help="find items similar to this one, given by title or ID")
    answer.add_argument(
        "--rated",
        nargs="+",
        metavar="ITEM=RATING",
        help="recommend to a new user with these ratings; ITEM alone for a run without ratings",
    )
    answer.add_argument("--quartiles", action="store_true", help="show test metrics by activity and by popularity")
    answer.add_argument(
        "--export", type=Path, metavar="DIR", help="write vectors of users and items, whose inner product is p"
    )
    flag("--top", type=int, default=10, metavar="N", help="number of items (default: %(default)s)")
    flag("--include_seen", action="store_true", help="recommend also items that the user rated or watched")
    flag("--out", type=Path, metavar="FILE", help="write a table, .csv or .parquet, instead of printing it")
    names = [each.name for each in fields(DataSource) if each.name != "dataset"]
    add_options(parser, DataSource, names, default_help="that of the run")
    options = parser.parse_args(arguments)
    options.logdir = options.logdir or folder_of_runs(options.ratings) / run
    options.given = given(parser, arguments, DataSource)
    return options


def check(options: argparse.Namespace) -> None:
    """Raise ValueError or OSError if flags do not go together or the file cannot be written."""
    check_at_least(options, top=1)
    if options.all and options.out is None:
        raise ValueError("--all is for a table of all users: give --out FILE, a .csv or .parquet")
    if options.include_seen and not (options.user or options.all):
        raise ValueError("--include_seen is for --user and --all")
    if options.export is not None:
        if options.out is not None:
            raise ValueError("--export writes several files: leave out --out")
        check_folder(options.export)
    if options.out is not None:
        if options.out.suffix not in FORMATS:
            raise ValueError(f"out is {options.out}: expected a file that ends in {' or '.join(FORMATS)}")
        if not options.out.parent.is_dir() or options.out.is_dir():
            raise ValueError(f"{options.out} cannot be written: expected a file in a folder that exists")
        check_folder(options.out.parent)
        check_overwritten(options)


def check_overwritten(options: argparse.Namespace) -> None:
    """Raise ValueError if the table would overwrite a file of the run or of its data."""
    out = options.out.resolve()
    if out.parent == options.logdir.resolve():
        raise ValueError(f"out is {options.out}, in the folder of the run: expected a file in another folder")
    sources: list[Any] = [options]
    with contextlib.suppress(ValueError, OSError):  # loading the run reports them
        sources.append(run_data.read(options.logdir).source)
    read = {getattr(source, name) for source in sources for name in FILES}
    if out in {path.resolve() for path in read if path is not None}:
        raise ValueError(f"out is {options.out}, which holds the data of the run: expected another file")


def ratings_of(pairs: list[str]) -> dict[int | str, float | None]:
    """Read ratings written ITEM=RATING, or ITEM for an item without one.

    Raises:
        ValueError: an item is given twice.
    """
    found: dict[int | str, float | None] = {}
    for pair in pairs:
        item, _, number = pair.rpartition("=")
        try:
            rating = float(number) if item else None
        except ValueError:  # a title with "="
            rating = None
        item = pair if rating is None else item
        if item in found:
            raise ValueError(f"{item} is given twice: expected each item once")
        found[item] = rating
    return found


def load(options: argparse.Namespace) -> Recommender:
    """Load the run, and print its last epoch and the changes of its ratings on stderr."""
    recommender = Recommender.load(options.logdir, options.given)
    if recommender.epochs:  # of a run, not of a saved recommender
        print(f"{options.logdir} after epoch {recommender.epochs - 1}", file=sys.stderr)
    if recommender.changes:
        remedy = f"train on with main.py --warm_start {shlex.quote(str(options.logdir))} --logdir NEW and its flags"
        print(f"{recommender.changes}; {remedy}", file=sys.stderr)
    if recommender.notice:
        print(recommender.notice, file=sys.stderr)
    return recommender


def distinct(recommender: Recommender, users: list[str]) -> list[str]:
    """Return each user once, although 42 and 042 may both be given."""
    return list({recommender.user(user): user for user in users}.values())


def table_of(recommender: Recommender, options: argparse.Namespace) -> pd.DataFrame:
    """Compute the table that the flags ask for."""
    if options.quartiles:
        return recommender.quartiles(options.top)
    if options.similar is not None:
        return recommender.similar(options.similar, options.top)
    if options.rated is not None:
        rated = ratings_of(options.rated)
        if None in rated.values() and recommender.new_users.need_ratings:
            missing = next(item for item, rating in rated.items() if rating is None)
            raise ValueError(f"rated is {missing!r}: expected ITEM=RATING, for instance 'Toy Story=5'")
        return recommender.recommend_new(rated, options.top)
    users = None if options.all else distinct(recommender, options.user)
    return recommender.recommend(users, options.top, options.include_seen)


def text_of(frame: pd.DataFrame, if_empty: str = "nothing is left to recommend") -> str:
    """Format a table with whole titles, to the left, and two decimals."""
    if len(frame) == 0:
        return if_empty
    columns = {}
    for name, column in frame.items():
        is_text = isinstance(column.iloc[0], str)
        width = max(len(str(name)), int(column.str.len().max())) if is_text else 0
        columns[f"{name:{width}}"] = column.str.ljust(width) if is_text else column
    return pd.DataFrame(columns).to_string(index=False, float_format="{:.2f}".format, na_rep="")


def beside(left: str, right: str) -> str:
    """Put the lines of two strings next to each other."""
    lines = list(zip_longest(left.splitlines(), right.splitlines(), fillvalue=""))
    width = max(len(line) for line, _ in lines)
    return "\n".join(f"{one:{width}}   {other}".rstrip() for one, other in lines)


def show(recommender: Recommender, frame: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print a table; that of each user beside the items that the user rated highest, or watched last."""
    if options.user is None:
        print(text_of(frame))
        return
    rows = frame["user"].map(recommender.user)
    for user in distinct(recommender, options.user):
        recommended = frame[rows == recommender.user(user)].drop(columns="user")
        rated = recommender.rated(user, options.top)
        is_rated = "rating" in rated and bool(rated["rating"].notna().any())
        heading = "rated highest" if is_rated else "watched last"
        needless = (["item"] if "title" in rated else []) + ([] if is_rated else ["rating"])
        rated = rated.drop(columns=needless, errors="ignore")
        own = f"{heading}\n{text_of(rated, 'nothing in these ratings')}"
        print(f"user {user}", beside(text_of(recommended), own), "", sep="\n")


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV or Parquet.

    Raises:
        ValueError: pyarrow is missing, which writes Parquet.
        OSError: it cannot be written.
    """
    if path.suffix == ".csv":
        write_whole(frame.to_csv(index=False).encode(), path)
        return
    try:
        import pyarrow  # noqa: F401, with which pandas writes Parquet
    except ImportError:
        raise ValueError(f"{path} needs pyarrow: pip install pyarrow, or give a .csv") from None
    table = io.BytesIO()
    frame.to_parquet(table, index=False)
    write_whole(table.getvalue(), path)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 2 after one line on stderr with the remedy.
    """
    options = parse_arguments(arguments)
    try:
        check(options)
        recommender = load(options)
        if options.export is not None:
            print(export.write(recommender, options.export))
            return 0
        frame = table_of(recommender, options)
        if options.out is not None:
            write(frame, options.out)
    except (ValueError, OSError) as error:
        return command.fail("recommend.py", error)
    if options.out is None:
        show(recommender, frame, options)
    else:
        print(f"{len(frame):,} rows in {options.out}")
    return 0


if __name__ == "__main__":
    command.end(main)
