"""The ratings that a command works on: a release of MovieLens, or a file of the user's own."""

import contextlib
import hashlib
import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cli.options import check_options, option
from datasets import items, ratings, reading, releases, summary
from datasets.cache import cached
from datasets.columns import FileOptions
from datasets.ratings import TEST, TRAINING, VALIDATION, Ratings
from datasets.releases import DEFAULT, RELEASES
from datasets.textfile import InputFile

GROUP = "data and split"  # the heading in --help
FILES = ("ratings", "titles", "test", "validation")  # the options that are files
# The options of ratings of the user's own.
OWN = ("ratings", "columns", "titles", "quoting", "unrated", "counts", "test", "validation")


@dataclass(frozen=True)
class DataSource:
    """The options that choose the ratings; paths may be strings.

    Raises:
        ValueError: an option is wrong, or two of them do not go together.
    """

    dataset: str = option(
        DEFAULT, f"release of MovieLens: {', '.join(RELEASES)}", group=GROUP, metavar="NAME", choices=tuple(RELEASES)
    )
    ratings: Path | None = option(None, "file of ratings of your own", group=GROUP, metavar="FILE", parse=Path)
    columns: str | None = option(
        None,
        "columns of --ratings, by name or number from 1: USER,ITEM[,RATING[,TIME]] or USER,ITEM,,TIME",
        group=GROUP,
        metavar="COLUMNS",
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
    unrated: tuple[float, ...] = option(
        (),
        "numbers in place of a missing rating, as -1",
        group=GROUP,
        metavar="VALUE",
        parse=float,
        several=True,
        default_help="",
    )
    counts: bool = option(
        False, "the third column holds counts, as of plays, and not ratings; a count of 0 is left out", group=GROUP
    )
    test: Path | None = option(
        None, "file of the test set, like --ratings, which is then the training set", group=GROUP, metavar="FILE",
        parse=Path,
    )  # fmt: skip
    validation: Path | None = option(
        None, "file of the validation set, like --ratings", group=GROUP, metavar="FILE", parse=Path
    )

    def __post_init__(self) -> None:
        check_options(self)
        for name in (*FILES, "data_dir"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        if not isinstance(self.unrated, list | tuple):
            raise ValueError(f"unrated is {self.unrated}: expected a list of numbers")
        object.__setattr__(self, "unrated", tuple(map(float, self.unrated)))
        for name in OWN[1:]:
            if self._is_given(name) and self.ratings is None:
                raise ValueError(f"{name} is for ratings of your own: give option ratings as well")
        if self.ratings is not None and self.dataset != DEFAULT:
            raise ValueError(f"dataset is {self.dataset} and ratings is {self.ratings}: give one of them")
        if not all(map(math.isfinite, self.unrated)):
            raise ValueError(f"unrated is {' '.join(map(str, self.unrated))}: expected finite numbers")
        if self.unrated and self.counts:
            raise ValueError("unrated and counts are given: give one of them, because counts are not ratings")

    def _is_given(self, name: str) -> bool:
        return getattr(self, name) not in (None, "auto", False, ())

    @property
    def own(self) -> dict[str, str]:
        """The options of ratings of the user's own that are given, by name, as strings; {} for MovieLens."""
        given = {name: getattr(self, name) for name in OWN if self._is_given(name)}
        return {
            name: " ".join(map(repr, value)) if isinstance(value, tuple) else str(value)
            for name, value in given.items()
        }

    @property
    def file_options(self) -> FileOptions:
        """The options for reading one file."""
        return FileOptions(self.columns, self.quoting, self.unrated, self.counts)

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
        found = _read_own(source.ratings, source)
    else:
        found = releases.read(source.dataset, source.data_dir)
        if source.dataset == DEFAULT:
            return found
    for line in (*found.doubts, summary.describe(found)):
        print(line, file=sys.stderr)
    return found


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
    files = {"ratings": path, "validation": source.validation, "test": source.test, "titles": source.titles}
    given = {name: each for name, each in files.items() if each is not None}
    for each in given.values():
        if not each.is_file():
            raise FileNotFoundError(f"{each} is {'a folder' if each.is_dir() else 'not there'}: expected a file")
    titles = None if source.titles is None else InputFile(source.titles)

    def read() -> Ratings:
        return items.add_titles(_read_files(path, source), titles, quoting=source.quoting)

    return cached(source.data_dir, list(given.values()), f"{[*given]} {source.file_options}", read)


def _read_files(path: Path, source: DataSource) -> Ratings:
    """Read the ratings, with those of the validation and the test set if they are in other files."""
    parts = {VALIDATION: source.validation, TEST: source.test}
    others = {part: file for part, file in parts.items() if file is not None}
    files = [InputFile(each) for each in (path, *others.values())]
    lists = source.columns is None and any(map(reading.are_lists, files))  # one is enough: some have few items a line
    found = [reading.read(file, source.file_options, lists) for file in files]
    if others:
        names = " and ".join(map(str, others.values()))
        found[0] = _as_part(found[0], TRAINING, path)._replace(split_by=names)
        for place, (part, file) in enumerate(others.items(), 1):
            found[place] = _as_part(found[place], part, file)
    whole = ratings.each_pair_once(ratings.unite(found))
    for part, file in others.items():
        if not (whole.parts == part).any():
            raise ValueError(
                f"{file}: all its pairs of a user and an item are in the test set as well: expected others"
            )
    _check(whole, path)
    return whole


def _as_part(found: Ratings, part: int, file: Path) -> Ratings:
    """Return the interactions of a file as one part; raise ValueError where the file has parts of its own."""
    if len(found.parts):
        raise ValueError(
            f"{file}: {found.split_by} gives a split, and so do options test and validation: give one of them"
        )
    notes = tuple(f"{file.name}: {note}" for note in found.notes)
    return found._replace(parts=np.full(len(found.ratings), part, dtype=np.int8), notes=notes)


def _check(found: Ratings, path: Path) -> None:
    """Raise ValueError unless there are at least two ratings, users and items."""
    if len(found.ratings) < 2:
        raise ValueError(f"{path}: has a single interaction: expected at least two, one to train on and one to test on")
    for kind, ids, name in zip(("user", "item"), (found.users, found.items), found.columns, strict=False):
        if len(ids) == 1:
            raise ValueError(
                f"{path}: column {name} has the {kind} '{ids[0]}' in every line: expected at least two {kind}s; "
                f"if the {kind} is in another column, name it with option columns"
            )
