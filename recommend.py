"""Recommendations of a trained run.

    python recommend.py --logdir run/mine --user 42 --top 10         # beside what the user rated highest
    python recommend.py --logdir run/mine --similar "Toy Story"
    python recommend.py --logdir run/mine --rated "Toy Story=5" "Heat=2"     # somebody who is not in the ratings
    python recommend.py --logdir run/mine --quartiles                        # for whom it works
    python recommend.py --logdir run/mine --all --out recommendations.csv

Users and items go by the ids of the ratings file; items also by their titles.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import argparse
import io
import sys
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from cli.arguments import Parser, add_options, check_at_least
from cli.files import check_folder, write_whole
from datasets.source import DataSource
from serving.recommender import Recommender
from training.settings import folder_name

FORMATS = (".csv", ".parquet")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(description="Recommend items with a trained run.")
    flag = parser.add_argument
    run = Path("run") / folder_name(True, 0.99, 0.01)
    flag("--logdir", type=Path, default=run, help="the run's folder (%(default)s)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--user", nargs="+", metavar="ID", help="recommend to these users")
    what.add_argument("--all", action="store_true", help="recommend to all users; with --out")
    what.add_argument("--similar", metavar="ITEM", help="items like this one, by title or id")
    what.add_argument("--rated", nargs="+", metavar="ITEM=RATING", help="recommend to somebody who rates so")
    what.add_argument("--quartiles", action="store_true", help="test metrics by activity and by popularity")
    flag("--top", type=int, default=10, help="how many items (%(default)s)")
    flag("--include_seen", action="store_true", help="recommend also what the user rated")
    flag("--out", type=Path, metavar="FILE", help="write a table here, .csv or .parquet, in place of printing it")
    add_options(parser, DataSource, ("data_dir", "ratings", "columns", "titles"))
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> None:
    """Raise ValueError or OSError where the flags cannot be followed."""
    check_at_least(options, top=1)
    if options.ratings is None and (options.columns or options.titles):
        raise ValueError("columns and titles are for ratings of your own: give --ratings FILE as well")
    if options.all and options.out is None:
        raise ValueError("--all is for a table of all users: give --out FILE, a .csv or .parquet")
    if options.include_seen and not (options.user or options.all):
        raise ValueError("--include_seen is for --user and --all")
    if options.out is not None:
        if options.out.suffix not in FORMATS:
            raise ValueError(f"out is {options.out}: expected a file that ends in {' or '.join(FORMATS)}")
        if not options.out.parent.is_dir() or options.out.is_dir():
            raise ValueError(f"{options.out} cannot be written: expected a file in a folder that exists")
        check_folder(options.out.parent)


def rated(pairs: list[str]) -> dict[int | str, float]:
    """ITEM=RATING, several times, by item.

    Raises:
        ValueError: one is written otherwise, or an item is there twice.
    """
    found: dict[int | str, float] = {}
    for pair in pairs:
        item, _, rating = pair.rpartition("=")
        try:
            number = float(rating)
        except ValueError:
            item = ""
        if not item:
            raise ValueError(f"rated is {pair!r}: expected ITEM=RATING, as 'Toy Story=5'")
        if item in found:
            raise ValueError(f"{item} is rated twice: expected each item once")
        found[item] = number
    return found


def ask(recommender: Recommender, options: argparse.Namespace) -> pd.DataFrame:
    """The table that the flags ask for."""
    if options.quartiles:
        return recommender.quartiles(options.top)
    if options.similar is not None:
        return recommender.similar(options.similar, options.top)
    if options.rated is not None:
        return recommender.recommend_new(rated(options.rated), options.top)
    users = options.user and list({recommender.user(user): user for user in options.user}.values())
    return recommender.recommend(users, options.top, options.include_seen)


def text_of(frame: pd.DataFrame) -> str:
    """A table for people: whole titles, two decimals."""
    if len(frame) == 0:
        return "nothing is left to recommend"
    texts = [name for name in frame.columns if isinstance(frame[name].iloc[0], str)]
    widths = {name: max(len(name), int(frame[name].str.len().max())) for name in texts}
    left = {name: f"{{:{width}}}".format for name, width in widths.items()}
    return frame.rename(columns={name: f"{name:{width}}" for name, width in widths.items()}).to_string(
        index=False, float_format="{:.2f}".format, formatters={f"{n:{w}}": left[n] for n, w in widths.items()}
    )


def beside(left: str, right: str) -> str:
    """Two texts next to each other."""
    lines = list(zip_longest(left.splitlines(), right.splitlines(), fillvalue=""))
    width = max(len(line) for line, _ in lines)
    return "\n".join(f"{one:{width}}   {other}".rstrip() for one, other in lines)


def show(recommender: Recommender, frame: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print a table; of users, each user's beside what they rated highest."""
    if options.user is None:
        print(text_of(frame))
        return
    for user in {recommender.user(user): user for user in options.user}.values():
        own = frame[frame["user"].map(recommender.user) == recommender.user(user)].drop(columns="user")
        known = recommender.rated(user, options.top)
        known = known.drop(columns="item") if "title" in known else known
        print(f"user {user}\n{beside(text_of(own), 'rated highest' + chr(10) + text_of(known))}\n")


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV or Parquet.

    Raises:
        ValueError: Parquet is asked for and pyarrow is missing.
        OSError: it cannot be written.
    """
    if path.suffix == ".csv":
        write_whole(frame.to_csv(index=False).encode(), path)
        return
    try:
        import pyarrow  # noqa: F401, what pandas writes Parquet with
    except ImportError:
        raise ValueError(f"{path} needs pyarrow: pip install pyarrow, or ask for a .csv") from None
    table = io.BytesIO()
    frame.to_parquet(table, index=False)
    write_whole(table.getvalue(), path)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 2 after one line on stderr that says what to change.
    """
    options = parse_arguments(arguments)
    try:
        check(options)
        where = options.data_dir, options.ratings, options.columns, options.titles
        recommender = Recommender.load(options.logdir, *where)
        print(f"{options.logdir} after epoch {recommender.epochs - 1}", file=sys.stderr)
        if recommender.notice:
            print(recommender.notice, file=sys.stderr)
        frame = ask(recommender, options)
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
