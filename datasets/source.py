"""The ratings that a command works on: a release of MovieLens, or a file of the user's own."""

import contextlib
import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from cli.options import check_options, option
from datasets import items, reading, releases
from datasets.ratings import Ratings, cached
from datasets.releases import DEFAULT, RELEASES
from datasets.textfile import InputFile

GROUP = "data and split"  # the heading in --help


@dataclass(frozen=True)
class DataSource:
    """The options that choose the ratings.

    Raises:
        ValueError: an option is wrong, or two of them do not go together.
    """

    dataset: str = option(
        DEFAULT, f"release of MovieLens: {', '.join(RELEASES)}", group=GROUP, metavar="NAME", choices=tuple(RELEASES)
    )
    ratings: Path | None = option(None, "file of ratings of your own", group=GROUP, metavar="FILE", parse=Path)
    columns: str | None = option(
        None,
        "columns of --ratings, by name or number from 1; a fourth one is the time",
        group=GROUP,
        metavar="USER,ITEM,RATING",
        parse=str,
    )
    titles: Path | None = option(
        None, "file of the items' titles, for --ratings", group=GROUP, metavar="FILE", parse=Path
    )
    quoting: str = option(
        "auto",
        "quotation marks in --ratings and --titles: auto, as CSV has them, or none, ordinary characters",
        group=GROUP,
        choices=("auto", "none"),
        metavar="STYLE",
    )
    data_dir: Path = option(Path("data"), "folder for the data", group=GROUP, metavar="DIR")

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("columns", "titles"):
            if getattr(self, name) is not None and self.ratings is None:
                raise ValueError(f"{name} is for ratings of your own: give --ratings FILE as well")
        if self.quoting != "auto" and self.ratings is None:
            raise ValueError("quoting is for ratings of your own: give --ratings FILE as well")
        if self.ratings is not None and self.dataset != DEFAULT:
            raise ValueError(f"dataset is {self.dataset} and ratings is {self.ratings}: give one of them")

    @property
    def own(self) -> dict[str, str]:
        """The options of ratings of the user's own that are given, by name; {} for MovieLens."""
        given = {name: getattr(self, name) for name in ("ratings", "columns", "titles", "quoting")}
        return {name: str(value) for name, value in given.items() if value not in (None, "auto")}

    @property
    def name(self) -> str:
        """The name of the ratings in a run's settings: that of the release or of the file."""
        return self.dataset if self.ratings is None else self.ratings.name


def folder_of_runs(ratings: Path | None) -> Path:
    """Return the default folder of runs: ``run``, or a folder in it that is named after the user's file of ratings."""
    if ratings is None:
        return Path("run")
    name = ratings.name
    safe = re.sub(r"[^\w.-]|^\.", "_", name)[:60]
    if safe != name:  # two names may be alike now
        safe += f"_{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return Path("run") / safe


def read_ratings(source: DataSource) -> Ratings:
    """Read the ratings of a source, as ``data.read`` documents."""
    if source.ratings is not None:
        ratings = _read_own(source.ratings, source)
    else:
        ratings = releases.read(source.dataset, source.data_dir)
        if source.dataset == DEFAULT:
            return ratings
    later = f"one with a later {ratings.columns[3]}" if ratings.by_time else "a later one"
    repeated = f"; {ratings.repeated:,} more were of the same user and item as {later}" if ratings.repeated else ""
    print(
        f"{len(ratings.ratings):,} ratings of {len(ratings.items):,} items by {len(ratings.users):,} users, "
        f"{ratings.ratings.min():g} to {ratings.ratings.max():g} stars; column {', '.join(ratings.columns)}{repeated}",
        file=sys.stderr,
    )
    return ratings


def genres(source: DataSource) -> dict[str, str]:
    """Read the genres of each item that has some, by its ID; {} where the source has none. Raise as ``add_titles``."""
    if source.ratings is not None:
        return items.read_genres(InputFile(source.titles), source.quoting) if source.titles is not None else {}
    for place in releases.find(source.dataset, source.data_dir):
        with contextlib.suppress(ValueError, OSError):  # reading the ratings passed over a damaged place as well
            _, titles_file = releases.files_in(place)
            if titles_file is not None:
                return items.read_genres(titles_file)
    return {}


def _read_own(path: Path, source: DataSource) -> Ratings:
    sources = [path] if source.titles is None else [path, source.titles]
    for each in sources:
        if not each.is_file():
            raise FileNotFoundError(f"{each} is {'a folder' if each.is_dir() else 'not there'}: expected a file")
    titles = None if source.titles is None else InputFile(source.titles)

    def read() -> Ratings:
        return items.add_titles(
            reading.read(InputFile(path), source.columns, source.quoting), titles, quoting=source.quoting
        )

    return cached(source.data_dir, sources, f"columns {source.columns}, quoting {source.quoting}", read)
