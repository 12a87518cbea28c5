"""The labels of submissions, and the table of a class as CSV: nothing is confused, nothing is lost."""

import random
from pathlib import Path

import pytest
from classes import rows_of

from grading.table import LONGEST_LABEL, as_csv, from_csv, label

ODD = [*"=+-@'\"\\,;/ ~abxnu0…é😀\n\r\t\0\x1b\x85\u0301\u200c\ufffd\u202e\udcff"]
HEADER = ["submission", "1a-0-basic", "points", "first cause", "problem"]


def odd_names(count: int) -> list[str]:
    """Make different names from characters that are often confused; a tenth of them are long."""
    draw = random.Random(22)
    lengths = [draw.choice([1, 2, 3, 4, 5, 8, 8, 8, 20, 400]) for _ in range(count)]
    return list(dict.fromkeys("".join(draw.choices(ODD, k=length)) for length in lengths))


@pytest.mark.long
def test_different_names_have_different_labels_that_can_be_shown() -> None:
    names = odd_names(20_000)
    names += [label(name) for name in names]  # the labels as names
    names += [f"{name}x" for name in names if len(name) > LONGEST_LABEL]
    names = list(dict.fromkeys(names))
    labels = [label(name) for name in names]
    assert len(set(labels)) == len(names) > 20_000
    assert all(each.isprintable() and len(each) <= LONGEST_LABEL for each in labels)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a\u200cb.zip", "a\ufffdb.zip"),
        ("a\nb", "a\\nb"),
        ("\udcff", "\\udcff"),
        ("=x", "'=x"),
        ("'=x", "''=x"),
        ("x" * 300, "y" + "x" * 299),
    ],
)
def test_names_that_were_confused_have_rows_of_their_own(one: str, other: str, tmp_path: Path) -> None:
    rows = [[label(name), "1", "1", "", ""] for name in (one, other)]
    (tmp_path / "grades.csv").write_bytes(as_csv([HEADER, *rows]))
    assert from_csv(tmp_path / "grades.csv", HEADER) == {row[0]: row for row in rows}


def test_an_ordinary_name_is_its_own_label() -> None:
    for name in ("class/alice.zip", "ü und ß.py", "موسی.zip", "download.zip/doejane_123_456_models.py", "'=x"):
        assert label(name) == name


def test_a_long_name_keeps_its_end() -> None:
    assert label("folder/" * 50 + "alice.zip").endswith("/folder/alice.zip")


def test_a_table_survives_the_file_and_no_cell_is_computed_by_a_spreadsheet(tmp_path: Path) -> None:
    rows = [[label(name), "0", "0", f"=1+{n}", '\'x, "y"'] for n, name in enumerate(odd_names(3000))]
    path = tmp_path / "grades.csv"
    path.write_bytes(as_csv([HEADER, *rows]))
    assert list(from_csv(path, HEADER).values()) == rows
    cells = [cell for row in rows_of(path) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # as spreadsheet programs write it
    assert list(from_csv(path, HEADER).values()) == rows


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grades.csv"
    row = ["alice.zip", "1", "1", "", ""]
    for content, message in (
        (b"\xff", "no table of grades"),
        (b"", "no table of the same checks"),
        (as_csv([HEADER, row[:-1]]), "no table of the same checks"),
        (as_csv([HEADER, row, row]), "two rows for the same submission"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            from_csv(path, HEADER)
