"""Quotation marks in files of ratings and titles: either the right rows, or one line that names the stray mark."""

import random
import re
from pathlib import Path

import pytest

import data
from data import Interactions
from datasets import textfile
from datasets.source import DataSource

STRAY = "has a stray quotation mark"
SEPARATORS = (",", ";", "\t", "::", "|", " ")
WORDS = ("good", "5 stars", "é", "", "1", "C:\\x", "so-so", "it's", "2,5")


def load(path: Path, **options: str | Path | None) -> Interactions:
    return data.read(DataSource(ratings=path, data_dir=path.parent / "kept", **options))  # type: ignore[arg-type]


def triples(made: Interactions) -> list[tuple[str, str, float]]:
    users, items = (
        source if isinstance(source, tuple) else [str(each) for each in source.tolist()]
        for source in (made.source_user_ids, made.source_item_ids)
    )
    columns = (made.user_ids.tolist(), made.item_ids.tolist(), made.ratings.tolist())
    return [(users[user], items[item], rating) for user, item, rating in zip(*columns, strict=True)]


def refusal(path: Path, **options: str | Path | None) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        load(path, **options)
    return str(caught.value)


class Draft:
    """A file with a text column, drawn at random, and the rows that a reader has to find in it."""

    def __init__(self, draw: random.Random, has_rating: bool = True) -> None:
        self.has_rating = has_rating
        self.separator = draw.choice(SEPARATORS)
        self.quotes = self.separator in ",;"  # elsewhere, a quotation mark is an ordinary character
        self.escape = draw.choice(['""', '\\"'])
        self.place = draw.randrange(4)  # of the text column
        self.share = draw.choice([0, 0, 0.02, 0.1, 0.4])  # of columns with a stray quotation mark
        self.quoted_share = draw.choice([0, 0.1, 1])
        self.rows: list[tuple[str, str, float]] = []  # with -1 for no rating
        self.stray_lines: set[int] = set()  # whose stray mark opens a column
        text = self.separator.join(self._put(["user", "item", "rating"][: 3 if has_rating else 2], "review")) + "\n"
        for number in range(draw.randint(4, 30)):
            if draw.random() < 0.1:
                text += draw.choice(["\n", "  \n"]) if self.separator != " " else "\n"
            row = (f"u{draw.randrange(9)}{number}", str(number + 10), draw.choice([1.0, 2.5, 4.0]))
            self.rows.append(row if has_rating else (*row[:2], -1.0))
            cell, is_stray = self._cell(draw)
            if is_stray:
                self.stray_lines.add(text.count("\n") + 1)
            text += (
                self.separator.join(self._put([row[0], row[1], f"{row[2]:g}"][: 3 if has_rating else 2], cell)) + "\n"
            )
        self.content = text.replace("\n", draw.choice(["\n", "\r\n"])).encode()

    def _put(self, row: list[str], cell: str) -> list[str]:
        place = min(self.place, len(row))
        return [*row[:place], cell, *row[place:]]

    def _cell(self, draw: random.Random) -> tuple[str, bool]:
        """Return a column, and whether it begins with a quotation mark that does not quote it."""
        word = draw.choice(WORDS)
        if not self.quotes:
            word = word.replace(" ", "_") or "_"
            return self._with_stray(draw, word) if draw.random() < self.share else word, False
        if draw.random() < self.share:
            cell = self._with_stray(draw, word.replace(",", ""))
            return cell, cell.lstrip().startswith('"')
        if draw.random() < self.quoted_share or "," in word:
            inner = draw.choice(["", self.separator, "\n", '"', f'"{self.separator}"\n', ' "x" '])
            whole = f"{word}{inner}{draw.choice(WORDS)}.".replace("\\", "/")
            return '"' + whole.replace('"', self.escape) + '"', False
        return word.replace("\\", "/"), False

    @staticmethod
    def _with_stray(draw: random.Random, word: str) -> str:
        place = draw.choice([0, len(word) // 2, len(word)])
        return word[:place] + '"' * draw.choice([1, 1, 1, 3]) + word[place:]


CASES = [*((seed, True) for seed in (*range(400), 1935)), *((seed, False) for seed in range(200))]


@pytest.mark.parametrize(("seed", "has_rating"), CASES)
def test_no_line_is_lost_silently(seed: int, has_rating: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    draft = Draft(draw, has_rating)
    path = tmp_path / draw.choice(["a.csv", "a.txt"])
    path.write_bytes(draft.content)
    monkeypatch.setattr(textfile.blocks, "__defaults__", (draw.choice([40, 200, 2**25]),))
    try:
        made = load(path)
    except ValueError as error:
        message = str(error)
    else:
        found = [(user, item, rating if has_rating else -1.0) for user, item, rating in triples(made)]
        assert bool(made.rated.any()) == has_rating
        assert found == draft.rows
        return
    assert re.fullmatch(rf"{re.escape(str(path))}, line [^\n]*stray[^\n]*option quoting none", message)
    assert draft.stray_lines & set(map(int, re.findall(r"line (\d+)", message)))


def test_the_drafts_have_all_cases() -> None:
    drafts = [Draft(random.Random(seed)) for seed in range(600)]
    assert {draft.separator for draft in drafts} == set(SEPARATORS)
    assert sum(bool(draft.stray_lines) for draft in drafts) > 60
    assert sum(not draft.stray_lines and draft.quotes for draft in drafts) > 60
    assert sum(b'"' in draft.content and not draft.quotes for draft in drafts) > 60


REVIEWS = ["fine", '"Amazing', "ok", '"Never again', 'a 5" pipe', "good"]


@pytest.mark.parametrize("count", [5, 6])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "::"])
def test_a_text_that_begins_with_a_quotation_mark_swallows_nothing(separator: str, count: int, tmp_path: Path) -> None:
    """As in Amazon's reviews and Last.fm's plays, with an even and with an odd number of marks."""
    rows = [(str(number), str(number + 9), 3.0) for number in range(count)]
    lines = [separator.join([user, item, "3", text]) for (user, item, _), text in zip(rows, REVIEWS, strict=False)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([separator.join(["user", "item", "rating", "review"]), *lines]) + "\n")
    if separator in ",;":
        assert f"{path}, line 3: {STRAY}" in refusal(path)
        assert triples(load(path, quoting="none")) == rows
    else:
        assert triples(load(path)) == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('"two\nlines, and ""more"""', 1),
        ('"he said \\"hi, you\\""', 1),
        ('"a" and b', 1),  # text behind a closing mark, with the same number of columns everywhere
        ('"a" and, b', 0),
        ('"never\nclosed', 0),
        ('"closed\n9,8,7,as a row"', 0),  # the second line would be a row
        ('"closed\nin the text" behind', 0),
    ],
)
def test_a_quoted_column_counts_only_if_the_whole_file_fits(text: str, rows: int, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'user,item,rating,review\n1,1,3,x\n"2",2,4,{text}\n3,3,5,"y"\n')
    if rows:
        assert triples(load(path)) == [("1", "1", 3.0), ("2", "2", 4.0), ("3", "3", 5.0)]
    else:
        assert f"{path}, line 3: {STRAY}" in refusal(path)


def test_a_stray_mark_in_the_first_column_of_a_file_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('"ann,1,5\nbob,2,4\n')
    assert f"{path}, line 1: {STRAY}" in refusal(path)
    assert triples(load(path, quoting="none")) == [('"ann', "1", 5.0), ("bob", "2", 4.0)]


def test_ids_in_quotation_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('"user","item","rating"\n"007","a,b","5"\n"7","say ""x""","4"\n')
    assert triples(load(path)) == [("007", "a,b", 5.0), ("7", 'say "x"', 4.0)]
    path.write_text('"user","item","rating"\n"12","3","5"\n"7","-4","4"\n')
    made = load(path)
    assert not isinstance(made.source_user_ids, tuple)
    assert triples(made) == [("12", "3", 5.0), ("7", "-4", 4.0)]
    path.write_text("user\titem\trating\n\"x\t1\t5\ny'\t2\t4\n")
    assert triples(load(path)) == [('"x', "1", 5.0), ("y'", "2", 4.0)]
    path.write_text('user,item,rating\n1,2,3\n"",2,3\n')
    assert "line 3, column user: the user is missing" in refusal(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "u.item", "movies.dat"])
def test_titles_with_stray_quotation_marks(name: str, tmp_path: Path) -> None:
    separator = {"a.csv": ",", "a.tsv": "\t", "u.item": "|", "movies.dat": "::"}[name]
    titles = ['"Amazing', "Plain", '"Great', 'A 5" pipe']
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("user,item,rating\n" + "".join(f"{n % 2},{n},3\n" for n in range(4)))
    path = tmp_path / name
    path.write_text("".join(f"{n}{separator}{title}\n" for n, title in enumerate(titles)))
    if separator == ",":
        assert f"{path}, line 1: {STRAY}" in refusal(ratings, titles=path)
        assert load(ratings, titles=path, quoting="none").titles == tuple(titles)
    else:
        assert load(ratings, titles=path).titles == tuple(titles)


def test_titles_that_span_lines_and_titles_that_are_missing(tmp_path: Path) -> None:
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("user,item,rating\n1,1,3\n2,2,3\n")
    path = tmp_path / "a.csv"
    path.write_text('item,title\n1,"Hello,\nworld, again"\n2,"B ""b"""\n')
    assert load(ratings, titles=path).titles == ("Hello, world, again", 'B "b"')
    path.write_text('item,title\n1,"A\n2,B"\n')
    assert f"{path}, line 2: {STRAY}" in refusal(ratings, titles=path)
    path.write_text("item,title\n1,A\n2\n")
    assert f"{path}, line 3: has 1 columns: expected an ID and a title" in refusal(ratings, titles=path)


def test_a_carriage_return_within_a_line_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"user,item,rating,text\r\n1,2,3,a\rb\r\n2,3,4,c\r\n2,4,x,d\r\n")
    assert "line 4, column rating: 'x' is not a rating" in refusal(path)
    path.write_bytes(b"user,item,rating,text\r\n1,2,3,a\rb\r\n2,3,4,c\r\n")
    assert triples(load(path)) == [("1", "2", 3.0), ("2", "3", 4.0)]


def test_quoting_is_part_of_the_cache_and_of_own_ratings_only(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('user,item,rating\n"a",1,3\n"b",2,4\n')
    for _ in range(2):
        assert triples(load(path)) == [("a", "1", 3.0), ("b", "2", 4.0)]
        assert triples(load(path, quoting="none")) == [('"a"', "1", 3.0), ('"b"', "2", 4.0)]
    with pytest.raises(ValueError, match="quoting is for ratings of your own"):
        DataSource(quoting="none")
    with pytest.raises(ValueError, match="quoting is maybe: expected auto or none"):
        DataSource(ratings=path, quoting="maybe")
