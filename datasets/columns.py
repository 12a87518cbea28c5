"""The columns of a table of ratings: the places of the user, the item, the rating, the time and the set."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from datasets import parts, times

KINDS = ("user", "item", "rating")
# The usual names of each kind of column, in lower case and without anything but letters and digits.
USUAL = (
    {"user", "userid", "uid", "users", "reviewer", "reviewerid", "customer", "customerid", "member", "memberid"},
    {"item", "itemid", "iid", "items", "movie", "movieid", "product", "productid", "asin", "isbn", "book", "bookid"},
    {"rating", "ratings", "score", "scores", "star", "stars", "starrating", "overall", "bookrating"},
)
# Names for a user or an item where no column has one of the usual ones.
FURTHER = (
    {"visitor", "visitorid", "client", "clientid", "profile", "profileid", "account", "accountid"},
    {
        "artist", "artistid", "track", "trackid", "song", "songid", "business", "businessid", "anime", "animeid",
        "game", "gameid", "recipe", "recipeid", "beer", "beerid", "venue", "venueid", "place", "placeid", "article",
        "articleid", "news", "newsid", "restaurant", "restaurantid", "course", "courseid", "joke", "jokeid", "app",
        "appid", "show", "showid", "location", "locationid", "poi", "poiid",
        "parentasin", "video", "videoid", "hotel", "hotelid",
    },
    set[str](),
)  # fmt: skip
COUNTS = {
    "count", "counts", "plays", "playcount", "playcounts", "numplays", "nplays", "clicks", "clickcount", "views",
    "viewcount", "listens", "listencount", "freq", "frequency", "quantity", "qty", "visits", "purchases", "weight",
    "click", "clicked", "label",
}  # fmt: skip
OTHERS = frozenset({*times.NAMES, *parts.NAMES})
ALL_USUAL = OTHERS | frozenset.union(*map(frozenset, (*USUAL, *FURTHER, COUNTS)))
ASK = "name the columns with option columns: USER,ITEM[,RATING[,TIME]], each by name or number"
CHOICE = "expected USER,ITEM[,RATING[,TIME]] or USER,ITEM,,TIME, by name or by number from 1"


class FileOptions(NamedTuple):
    """The options for the reading of a file of ratings, see ``source.DataSource``."""

    columns: str | None = None
    quoting: str = "auto"
    unrated: tuple[float, ...] = ()
    counts: bool = False

    @property
    def choose_time(self) -> bool:
        """Whether the columns name that of the times."""
        return self.columns is not None and self.columns.count(",") == 3


DEFAULT = FileOptions()


class Places(NamedTuple):
    """The positions of the columns, from 0; None for one that the file does not have."""

    user: int
    item: int
    rating: int | None = None  # of the counts, where these take the place of ratings
    time: int | None = None
    part: int | None = None

    def find_others(self, header: list[str]) -> "Places":
        """Return the places with those of the time, unless there is one, and of the set, by their usual names."""
        names = [plain(name) for name in header]
        found = [place for place in self if place is not None]
        time = times.find(names, found) if self.time is None else self.time
        return self._replace(time=time, part=parts.find(names, [*found, -1 if time is None else time]))


def plain(name: str) -> str:
    """Return a column's name for comparisons: RecBole's ``user_id:token`` and ``User ID`` are both ``userid``."""
    return re.sub(r"[\W_]+", "", untyped(name.strip()).lower())


def untyped(name: str) -> str:
    """Return a column's name without the type that RecBole writes behind it."""
    return re.sub(r":(token|float)(_seq)?$", "", name)


def usual(header: list[str], counts: bool, where: str) -> Places:
    """Return the places of the user, the item and the rating, if there is one, by the usual names.

    Raises:
        ValueError: there is no user or item, or a kind of column is there twice.
    """
    user, item, rating = (called(kind, header) for kind in KINDS)
    if counts:
        rating += _called(COUNTS, header)
    needed = (user, item, rating) if counts else (user, item)
    kinds = ("user", "item", "count" if counts else "rating")
    for kind, places in zip(kinds, (user, item, rating), strict=True):
        if not places and any(places is each for each in needed):
            raise ValueError(f"{where}: no column for the {kind} in {', '.join(header)}: {ASK}")
        if len(places) > 1:
            found = " and ".join(header[place] for place in places)
            raise ValueError(f"{where}: {found} could each be the {kind}: {ASK}")
    return Places(user[0], item[0], rating[0] if rating else None)


def called(kind: str, header: Sequence[str]) -> list[int]:
    """Return the places of the columns with the usual names of a kind, or with further ones if there are none."""
    place = KINDS.index(kind)
    return _called(USUAL[place], header) or _called(FURTHER[place], header)


def _called(names: set[str], header: Sequence[str]) -> list[int]:
    return [place for place, name in enumerate(header) if plain(name) in names]


def chosen(options: FileOptions, first: list[str], where: str) -> tuple[Places, bool]:
    """Return the places of the user, the item, the rating and the time that ``--columns`` chooses.

    Returns:
        the places, and whether they were chosen by name.

    Args:
        first: the first line.

    Raises:
        ValueError: the choice is wrong, or does not fit the line.
    """
    columns = options.columns or ""
    wanted = [each.strip() for each in columns.split(",")]
    given = [each for each in wanted if each]
    is_whole = len(given) == len(wanted) or (len(wanted) == 4 and len(given) == 3 and not wanted[2])
    if not 2 <= len(wanted) <= 4 or len(set(given)) != len(given) or not is_whole:
        raise ValueError(f"columns is '{columns}': {CHOICE}")
    if options.counts and (len(wanted) < 3 or not wanted[2]):
        raise ValueError(f"columns is '{columns}', and counts is given: expected USER,ITEM,COUNT[,TIME]")
    by_number = all(each.isdecimal() for each in given)
    find = _by_number if by_number else _by_name
    places = [find(each, first, columns, where) if each else None for each in wanted]
    user, item, rating, time = (*places, None, None)[:4]
    if user is None or item is None:
        raise ValueError(f"columns is '{columns}': {CHOICE}")
    return Places(user, item, rating, time), not by_number


def _by_number(number: str, first: list[str], columns: str, where: str) -> int:
    if not 1 <= int(number) <= len(first):
        raise ValueError(f"{where}: has {len(first)} columns, and columns is '{columns}'")
    return int(number) - 1


def _by_name(name: str, first: list[str], _: str, where: str) -> int:
    names = [untyped(each) for each in first]
    if name not in names and name not in first:
        listed = ", ".join(first)
        raise ValueError(f"{where}: no column is called '{name}' among {listed}; by number: 1 to {len(first)}")
    return names.index(name) if name in names else first.index(name)


def needed(options: FileOptions, header: list[str], where: str) -> set[str]:
    """Return the names of the columns of the user, the item and the rating in a file with this header."""
    places = chosen(options, header, where)[0] if options.columns is not None else usual(header, options.counts, where)
    return {header[place] for place in places[:3] if place is not None}
