"""IDs of every type that a Parquet or text file may hold: the right IDs, or one line that says which are wrong."""

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import data
from datasets.source import DataSource

DAY = datetime.datetime(2020, 1, 1)
HUGE = 2**64 - 1


def users_of(path: Path) -> list[Any]:
    made = data.read(DataSource(ratings=path, data_dir=path.parent / "kept"))
    source = made.source_user_ids
    ids = list(source) if isinstance(source, tuple) else source.tolist()
    return [ids[user] for user in made.user_ids.tolist()]


def write(path: Path, users: list[Any], kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    types = {
        "uint64": pa.uint64(), "uint32": pa.uint32(), "int64": pa.int64(), "bytes": pa.binary(), "bool": pa.bool_(),
        "float": pa.float64(), "half": pa.float32(), "time": pa.timestamp("us"), "date": pa.date32(),
        "list": pa.list_(pa.int64()), "struct": pa.struct([("a", pa.int64())]), "decimal": pa.decimal128(25, 0),
        "string": pa.string(), "large": pa.large_string(), "dictionary": pa.dictionary(pa.int8(), pa.string()),
        "fixed": pa.binary(2), "unsigned dictionary": pa.dictionary(pa.int8(), pa.uint64()),
    }  # fmt: skip
    columns = {"user": pa.array(users, types[kind]), "item": [1, 2, 3], "rating": [3.0, 4.0, 5.0]}
    parquet.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    ("kind", "users", "expected"),
    [
        ("uint64", [HUGE, 5, 5], [str(HUGE), "5", "5"]),
        ("uint64", [2**63, 2**63 - 1, 5], [str(2**63), str(2**63 - 1), "5"]),
        ("uint64", [2**63 - 1, 7, 10], [2**63 - 1, 7, 10]),
        ("uint32", [2**32 - 1, 7, 10], [2**32 - 1, 7, 10]),
        ("int64", [-(2**63), 7, 2**63 - 1], [-(2**63), 7, 2**63 - 1]),
        ("unsigned dictionary", [HUGE, 5, 5], [str(HUGE), "5", "5"]),
        ("bytes", [b"ann", "é".encode(), b"ann"], ["ann", "é", "ann"]),
        ("float", [3.0, 10.0, -2.0], [3, 10, -2]),
        ("half", [3.0, 10.0, 3.0], [3, 10, 3]),
        ("decimal", [Decimal(10**20), Decimal(7), Decimal(7)], [str(10**20), "7", "7"]),
        ("decimal", [Decimal(10), Decimal(7), Decimal(-7)], [10, 7, -7]),
        ("string", ["7", "007", "nan"], ["7", "007", "nan"]),
        ("large", ["7", "a", "7"], ["7", "a", "7"]),
        ("dictionary", ["b", "a", "b"], ["b", "a", "b"]),
    ],
)
def test_ids_in_parquet(kind: str, users: list[Any], expected: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, users, kind)
    for _ in range(2):  # read, then from the cache
        assert users_of(path) == expected


TYPE = "expected IDs that are whole numbers or strings"


@pytest.mark.parametrize(
    ("kind", "users", "message"),
    [
        ("bool", [True, False, True], f"column user: is of bool: {TYPE}"),
        ("time", [DAY, DAY, DAY], f"column user: is of timestamp[us]: {TYPE}"),
        ("date", [DAY.date()] * 3, f"column user: is of date32[day]: {TYPE}"),
        ("list", [[1], [2], [3]], TYPE),
        ("struct", [{"a": 1}, {"a": 2}, {"a": 1}], TYPE),
        ("fixed", [b"ab", b"cd", b"ab"], TYPE),
        ("bytes", [b"a", b"\xff", b"a"], "column user: has bytes that are not UTF-8: expected strings"),
        ("float", [1.0, 1.5, 2.0], "row 2, column user: '1.5' is not an ID: expected whole numbers or strings"),
        ("float", [1.0, 2.0, 2.0**60], "row 3, column user: '1.152921504606847e+18' is not an ID"),
        ("float", [1.0, 2.0, float("inf")], "row 3, column user: 'inf' is not an ID"),
        ("float", [1.0, float("nan"), 2.0], "row 2, column user: the user is missing"),
        ("uint64", [1, None, 2], "row 2, column user: the user is missing"),
        ("string", ["a", "b", ""], "row 3, column user: the user is missing"),
        ("dictionary", ["a", " ", "c"], "row 2, column user: the user is missing"),
    ],
)
def test_ids_in_parquet_that_are_none(kind: str, users: list[Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, users, kind)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        users_of(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["bool", "time", "date", "list", "struct"])
def test_ratings_in_parquet_are_numbers(kind: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    values = {"bool": [True, False], "time": [DAY] * 2, "date": [DAY.date()] * 2, "list": [[1]] * 2}
    ratings = values.get(kind, [{"a": 1}, {"a": 2}])
    parquet.write_table(pa.table({"user": [1, 2], "item": [1, 2], "rating": ratings}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"^[^\n]*column rating: is of [^\n]*: expected numbers$"):
        users_of(tmp_path / "a.parquet")


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize(
    ("users", "are_numbers"),
    [
        ([2**63 - 1, -(2**63), 0], True),
        ([2**63, 7, 7], False),
        ([HUGE, 7, 7], False),
        ([10**400, 7, 7], False),
        ([-(2**63) - 1, 7, 7], False),
    ],
)
def test_whole_numbers_beyond_64_bits_are_strings(
    users: list[int], are_numbers: bool, quote: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{quote}{user}{quote},{item},3\n" for item, user in enumerate(users)]
    path.write_text("user,item,rating\n" + "".join(rows))
    assert users_of(path) == (users if are_numbers else [str(user) for user in users])


@pytest.mark.parametrize("separator", [",", ";", "\t", "::", "|"])
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_id_is_refused(empty: str, separator: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    rows = [("user", "item", "rating"), ("a", "x", "3"), ("b", empty, "3"), ("c", "y", "4")]
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="line 3, column item: the item is missing"):
        users_of(path)


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize(
    "users",
    [
        ["True", "False", "False"], ["true", "false", "true"], ["+7", "7", "7"], ["-0", "0", "0"],
        ["１", "1", "1"], ["٣", "3", "4"], ["a b", "a", "b"],
    ],
)  # fmt: skip
def test_ids_that_look_alike_stay_apart(users: list[str], quote: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{quote}{user}{quote},{item},3\n" for item, user in enumerate(users)]
    path.write_text("user,item,rating\n" + "".join(rows))
    assert users_of(path) == users


@pytest.mark.parametrize("quote", ["", '"'])
def test_ratings_are_the_numbers_that_python_reads(quote: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    cells = ["３", "\u00a04.5", "٢", "1"]
    rows = [f"{user},{user},{quote}{cell}{quote}\n" for user, cell in enumerate(cells)]
    path.write_text("user,item,rating\n" + "".join(rows))
    made = data.read(DataSource(ratings=path, data_dir=tmp_path / "kept"))
    assert made.ratings.tolist() == [float(cell) for cell in cells]
    for word in ("True", "1_0"):
        path.write_text(f"user,item,rating\n1,1,{quote}{word}{quote}\n2,2,{quote}{word}{quote}\n")
        with pytest.raises(ValueError, match=f"line 2, column rating: '{word}' is not a rating"):
            users_of(path)
