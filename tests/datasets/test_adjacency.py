"""Adjacency lists: their pairs are read, and tables are not taken for lists."""

import random
from pathlib import Path

import pytest
from test_ratings import load, triples

import data
from data import Interactions
from datasets import textfile
from datasets.source import DataSource

LISTS = "0 5 6 7 8\n1 6\n3 5 8\n"
NOTE = "each line is read as a user and the items of the user"


def written(folder: Path, content: str, name: str = "train.txt") -> Path:
    file = folder / name
    file.write_bytes(content.encode())
    return file


def pairs_of(found: Interactions) -> list[tuple[int, int]]:
    assert not found.rated.any()
    return [(user, item) for user, item, _ in triples(found)]


@pytest.mark.parametrize("separator", [" ", "  "])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n", "\n\n"])
@pytest.mark.parametrize("size", [textfile.SIZE, 200])
def test_lists_are_read_as_pairs(
    separator: str,
    end: str,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(textfile.blocks, "__defaults__", (size,))
    draw = random.Random(size)
    lists = {user: draw.sample(range(3, 60), draw.randrange(8)) for user in draw.sample(range(2, 300), 150)}
    lists[301] = list(range(3, 60))
    rows = [separator.join(map(str, [user, *items])) for user, items in lists.items()]
    found = load(written(tmp_path, end.join(rows)))
    assert pairs_of(found) == [(user, item) for user, items in lists.items() for item in items]
    assert f"train.txt: {NOTE}\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("test", "pairs"),
    [
        ("0 9\n3 6\n", {(0, 9), (3, 6)}),
        ("0 9 10\n3 6 7\n", {(0, 9), (0, 10), (3, 6), (3, 7)}),  # not with a rating
        ("0 9\n3 6 7\n", {(0, 9), (3, 6), (3, 7)}),
        ("user,item\n0,9\n3,6\n", {(0, 9), (3, 6)}),
    ],
)
def test_one_file_of_lists_is_enough(test: str, pairs: set[tuple[int, int]], tmp_path: Path) -> None:
    lists, other = written(tmp_path, LISTS), written(tmp_path, test, "test.txt")
    for ratings, held_out in ((lists, other), (other, lists)):
        found = data.read(DataSource(ratings=ratings, test=held_out, data_dir=tmp_path / "kept"))
        assert set(pairs_of(found)) == pairs | {(0, 5), (0, 6), (0, 7), (0, 8), (1, 6), (3, 5), (3, 8)}


@pytest.mark.parametrize("line", ["200 5 x6 7", "200 5\r6 7", " 200 5 6", "200\t5"])
def test_a_line_that_is_no_list_is_named(line: str, tmp_path: Path) -> None:
    content = LISTS + "".join(f"{user} 5 6{' 7' * (user % 3)}\n" for user in range(10, 200)) + f"\n{line}\n"
    with pytest.raises(ValueError, match=r"train.txt, line 195: '.*' in a list of items: expected whole numbers with"):
        load(written(tmp_path, content))


RATED = "".join(f"{user} {user * 7 % 90} {user % 5} 97830{user:04}\n" for user in range(1, 60))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("0 5 4\n1 6\n2 5 3\n", "line 2: has 2 columns: expected 3"),  # a rating is missing
        (RATED + "70 1 3 978301000 71 2 3 978302000\n", "line 60: has 8 columns: expected 4"),
        (RATED + RATED.replace("\n", " 0\n", 1), "line 60: has 5 columns: expected 4"),
        (" 0 1 2 3\n" + RATED.replace(" ", " 5 ", 1), "line 2: has 5 columns: expected 4"),  # with a header of numbers
        (LISTS + "0 9\n", "line 1: no header"),  # the same user twice
        (LISTS.replace("6", "six"), "line 1: no header"),
        (LISTS.replace(" ", ","), "line 1: no header"),
        ("1\t5\t\t3\t4\t1\n2\t\t2\n3\t4\t4\t3\t\t5\n", "line 1: no header"),  # a matrix of ratings
        (
            "3 5 8 9 1\n2 6 7 5 2\n1 4 5 6 3\n",
            "line 1: no header.*; if it has all items of a user, write a line for each",
        ),
    ],
)
def test_other_files_are_no_lists(content: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=problem):
        load(written(tmp_path, content))


def test_chosen_columns_are_those_of_a_table_and_lists_have_no_counts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 2: has 2 columns: expected 5"):
        load(written(tmp_path, LISTS), columns="1,2")
    with pytest.raises(ValueError, match=f"train.txt: {NOTE}, which has no counts: leave out option counts"):
        data.read(DataSource(ratings=tmp_path / "train.txt", counts=True, data_dir=tmp_path / "kept"))
