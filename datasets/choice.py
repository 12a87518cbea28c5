"""Which ratings a command is to use: the flags for it, and the ratings that they mean."""

import argparse
import contextlib
import sys
from pathlib import Path

from datasets import cache, movielens, releases
from datasets.blocks import Source
from datasets.source import CodedRatings

DEFAULT = "ml-100k"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that choose the ratings."""
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--dataset",
        choices=(DEFAULT, *releases.RELEASES),
        default=DEFAULT,
        metavar="NAME",
        help=f"release of MovieLens: {', '.join((DEFAULT, *releases.RELEASES))} (%(default)s)",
    )
    add_own_flags(parser, one)


def add_own_flags(parser: argparse.ArgumentParser, one: argparse._MutuallyExclusiveGroup | None = None) -> None:
    """The flags for ratings of one's own, --ratings among those of which only one may be given."""
    (one or parser).add_argument(
        "--ratings", type=Path, metavar="FILE", help="ratings of your own instead: see docs/data.md"
    )
    parser.add_argument("--columns", metavar="USER,ITEM,RATING", help="columns of --ratings, by name or number from 1")
    parser.add_argument("--titles", type=Path, metavar="FILE", help="the items' titles, for --ratings")


def check(options: argparse.Namespace) -> None:
    """Raise ValueError where flags do not go together."""
    for name in ("columns", "titles"):
        if getattr(options, name) is not None and options.ratings is None:
            raise ValueError(f"{name} is for ratings of your own: give --ratings FILE as well")


def name(options: argparse.Namespace) -> str:
    """What to call the ratings in a run's settings."""
    return str(options.ratings.name if options.ratings is not None else options.dataset)


def own(ratings: Path, columns: str | None, titles: Path | None, data_dir: Path) -> CodedRatings:
    """Ratings from a file of the user's own.

    Raises:
        ValueError: something in it is wrong.
        OSError: it cannot be read.
    """
    for path in (ratings, titles):
        if path is not None and not path.is_file():
            raise FileNotFoundError(
                f"{path} is {'a folder' if path.is_dir() else 'not there'}: expected a file of ratings"
            )

    def make() -> CodedRatings:
        from datasets import reading  # pandas, whose import takes longer than all of the cache's

        made = reading.read(Source(ratings), columns)
        return _with_titles(made, Source(titles) if titles else None)

    sources = [ratings] if titles is None else [ratings, titles]
    return _said(cache.through(data_dir, sources, f"columns {columns}", make))


def release(dataset: str, data_dir: Path) -> CodedRatings:
    """A release of MovieLens, fetched where it is not there.

    Raises:
        ValueError: it is damaged.
        OSError: it is not there, and cannot be fetched.
    """
    place = releases.find(dataset, data_dir) or releases.fetch(dataset, data_dir)

    def make() -> CodedRatings:
        from datasets import reading

        ratings, titles = releases.files(dataset, place)
        made = reading.read(ratings)
        return _with_titles(made, titles, releases.RELEASES[dataset].encoding)

    sources = [place]
    if place.is_dir():
        ending = releases.RELEASES[dataset].ending
        sources = [path for path in (place / f"ratings.{ending}", place / f"movies.{ending}") if path.exists()]
    return _said(cache.through(data_dir, sources, dataset, make))


def genres(options: argparse.Namespace) -> dict[str, str]:
    """The genres of each item that has some, by its id as text; {} where the ratings' source has none.

    Raises:
        ValueError, OSError: their file cannot be read.
    """
    from datasets import titles

    sources: list[Source | None] = [None]
    if options.ratings is not None:
        sources = [Source(options.titles) if options.titles is not None else None]
    elif options.dataset == DEFAULT:
        sources = [*movielens.titles_files(options.data_dir), None]
    elif (place := releases.find(options.dataset, options.data_dir)) is not None:
        sources = [releases.titles_file(options.dataset, place)]
    for source in sources[:-1]:
        with contextlib.suppress(ValueError, OSError):  # its ratings were passed over as well
            return titles.genres(source) if source is not None else {}
    return titles.genres(sources[-1]) if sources[-1] is not None else {}


def _with_titles(ratings: CodedRatings, titles: Source | None, encoding: str = "utf-8") -> CodedRatings:
    if titles is None:
        return ratings
    from datasets import titles as titles_file

    return ratings._replace(titles=titles_file.read(titles, ratings.items, encoding))


def _said(ratings: CodedRatings) -> CodedRatings:
    """Say on stderr what was understood."""
    least, most = ratings.ratings.min(), ratings.ratings.max()
    repeated = f"; {ratings.repeated:,} more were of the same user and item as a later one" if ratings.repeated else ""
    print(
        f"{len(ratings.ratings):,} ratings of {len(ratings.items):,} items by {len(ratings.users):,} users, "
        f"{least:g} to {most:g} stars; column {', '.join(ratings.names)}{repeated}",
        file=sys.stderr,
    )
    return ratings
