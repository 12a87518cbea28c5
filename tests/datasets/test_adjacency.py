"""Adjacency lists: their pairs are read, and only files that can be nothing else are recognized as lists."""

import random
from pathlib import Path

import pytest
from test_ratings import load, triples

from datasets import textfile

LISTS = "0 5 6 7 8\n1 6\n3 5 8\n"


def written(folder: Path, content: str, name: str = "train.txt") -> Path:
    file = folder / name
    file.write_text(content)
    return file


@pytest.mark.parametrize("separator", [" ", "\t", "  "])
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
    lists[next(iter(lists))] = list(range(7, 14))  # the longest line is in the first block of each size
    lists[301] = list(range(3, 60))
    rows = [separator.join(map(str, [user, *items])) for user, items in lists.items()]
    found = load(written(tmp_path, end.join(rows)))
    pairs = [(user, item) for user, items in lists.items() for item in items]
    assert [row[:2] for row in triples(found)] == pairs
    assert not found.rated.any()
    assert "train.txt: each line is read as a user and the items of the user\n" in capfd.readouterr().err


def test_a_wrong_item_is_named_with_its_line(tmp_path: Path) -> None:
    content = LISTS + "".join(f"{user} 5 6\n" for user in range(10, 200)) + "\n200 5 x6 7\n"
    problem = r"train.txt, line 195: 'x6' in a list of items: expected whole numbers with blanks between them"
    with pytest.raises(ValueError, match=problem):
        load(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("0 5 4\n1 6\n2 5 3\n", "line 2: has 2 columns: expected 3"),  # a rating is missing
        (LISTS + "0 9\n", "line 1: no header"),  # the same user twice
        (LISTS.replace("6", "six"), "line 1: no header"),
        (LISTS.replace(" ", ","), "line 1: no header"),
        ("3 5 8 9 1\n2 6 7 5 2\n1 4 5 6 3\n", "line 1: no header"),  # a table of five columns
    ],
)
def test_other_files_are_no_lists(content: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=problem):
        load(written(tmp_path, content))


def test_chosen_columns_are_those_of_a_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 2: has 2 columns: expected 5"):
        load(written(tmp_path, LISTS), columns="1,2")
