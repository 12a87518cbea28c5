"""The item that a title means, as people write titles: "toy story", "The Matrix", "Matrix, The (1999)"."""

import re
from collections.abc import Sequence

SHOWN = 5  # titles in an error message
ARTICLE = re.compile(r"^(.*), (the|a|an|les?|la|il|das|der|die)$")


class Titles:
    """Titles of items, to be looked up.

    Args:
        titles: the title of each item, which may end in a year in parentheses.
        ids: what to call items that have one title; by default their rows.
    """

    def __init__(self, titles: Sequence[str], ids: Sequence[int | str] = ()) -> None:
        self.titles, self.ids = titles, ids or range(len(titles))
        self._exact: dict[str, list[int]] = {}
        for item, title in enumerate(titles):
            for form in dict.fromkeys((_plain(title), _plain(title.rstrip()[:-6]) if _has_year(title) else "")):
                if form:
                    self._exact.setdefault(form, []).append(item)

    def exact(self, wanted: str) -> int | None:
        """The only item of this title, with or without its year and whatever its capitals, or None."""
        found = self._exact.get(_plain(wanted), [])
        return found[0] if len(found) == 1 else None

    def find(self, wanted: str) -> int:
        """The item whose title this is, with or without its year and whatever its capitals; or a part of one title.

        Raises:
            ValueError: there is no such title, or several; the message names some.
        """
        plain = _plain(wanted)
        found = self._exact.get(plain, []) if plain else []
        if not found and plain:
            found = [item for item, title in enumerate(self.titles) if plain in _plain(title)]
        if len(found) == 1:
            return found[0]
        if not found:
            near = self._near(plain)
            hint = f"; similar: {near}" if near else ""
            raise ValueError(f"no title is {wanted!r}{hint}. Expected a title of the ratings, or a part of one")
        names = "; ".join(f"{self.titles[item]} (id {self.ids[item]})" for item in found[:SHOWN])
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ValueError(
            f"{wanted!r} is in {len(found)} titles: {names}{more}. Expected one of them, with its year, or its id"
        )

    def _near(self, plain: str) -> str:
        import difflib  # only where a title is wrong

        forms = difflib.get_close_matches(plain, self._exact, n=3, cutoff=0.7)
        items = dict.fromkeys(item for form in forms for item in self._exact[form])
        return "; ".join(self.titles[item] for item in list(items)[:3])


def _has_year(title: str) -> bool:
    return re.search(r"\(\d{4}\)\s*$", title) is not None


def _plain(title: str) -> str:
    """Lower case, one space between words, and an article that was put last put first again."""
    text = " ".join(title.casefold().split())
    year = ""
    if match := re.search(r" \(\d{4}\)$", text):
        text, year = text[: match.start()], match.group()
    return ARTICLE.sub(r"\2 \1", text) + year
