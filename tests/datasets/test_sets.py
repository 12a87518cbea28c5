"""Training, validation and test sets: from a column of the file, and from files of their own."""

import random
from pathlib import Path
from typing import Any

import pytest
from test_interactions import load, rows_of

import data
from cli.arguments import Parser, add_options, options_of
from datasets.source import DataSource

H = "user,item,rating\n"


def sets(path: Path, **options: Any) -> dict[tuple[str, str], tuple[float, int]]:
    return {(row.user, row.item): (row.rating, row.part) for row in rows_of(load(path, **options))}


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        load(path, **options)
    return str(caught.value)


WORDS = {"train": 0, "Training": 0, "valid": 1, "VAL": 1, "validation": 1, "dev": 1, "test": 2, "Testing": 2}


@pytest.mark.parametrize("name", ["split", "Subset", "partition", "split:token"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_column_of_sets(quote: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    lines = [f"{n},{quote}{word}{quote},{n + 1},4\n" for n, word in enumerate(WORDS)]
    path.write_text(f"user,{name},item,rating\n" + "".join(lines))
    for _ in range(2):  # read, then from the cache
        assert list(sets(path).values()) == [(4.0, part) for part in WORDS.values()]
        said = capsys.readouterr().err.splitlines()
        column = name.split(":")[0]
        assert f"; own split by column {column}" in said[0]
    path.write_text(f"user,{name},item,rating\n" + "".join(lines) + "9,later,9,4\n")
    message = f"{path}, line 10, column {column}: 'later' is not the name of a set: expected train, validation or test"
    assert refusal(path) == message
    path.write_text(f"user,{name},item,rating\n1,fiction,2,4\n2,drama,3,5\n")
    made = load(path)
    assert made.parts is None
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        f"{path}, line 2, column {column}: 'fiction' is not the name of a set: expected train, validation or test: "
        "the column is not read"
    )
    assert "split by" not in second


def test_a_missing_set_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    path = tmp_path / "a.csv"
    path.write_text("user,item,split\n1,2,train\n\n2,3,\n")
    assert f"{path}, line 4, column split: '' is not the name of a set" in refusal(path)
    frame = pd.DataFrame({"user": [1, 2], "item": [2, 3], "split": pd.Categorical(["train", None])})
    frame.to_parquet(tmp_path / "a.parquet")
    assert "a.parquet, row 2, column split: '' is not the name of a set" in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize("seed", range(20))
def test_sets_from_several_files(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With separators and types of IDs of their own; a pair counts once, in the test set before the others."""
    draw = random.Random(seed)
    has_validation = draw.random() < 0.7
    names = ("ratings", "validation", "test") if has_validation else ("ratings", "test")
    expected: dict[tuple[str, str], tuple[float, int]] = {}
    lines = 0
    for part, name in enumerate(names):
        part = part if has_validation else 2 * part
        is_string = draw.random() < 0.3
        separator = draw.choice([",", "\t", "::"])
        rows = [
            (f"{'u' if is_string else ''}{draw.randrange(1, 9)}", str(draw.randrange(1, 9)), float(draw.randrange(5)))
            for _ in range(draw.randint(1, 30) if part else 30)
        ]
        lines += len(rows)
        body = "".join(separator.join([user, item, f"{rating:g}"]) + "\n" for user, item, rating in rows)
        (tmp_path / name).write_text(separator.join(["user", "item", "rating"]) + "\n" + body)
        for user, item, rating in rows:
            expected[user, item] = (rating, part)
    options = {name: tmp_path / name for name in names[1:]}
    found = sets(tmp_path / "ratings", **options)
    assert found == expected
    said = capsys.readouterr().err.splitlines()[0]
    numbers = [int(each.split()[0]) for each in said.replace("left out: ", "").split("; ")[3:]]
    assert len(expected) + sum(numbers) == lines
    assert sets(tmp_path / "ratings", **options) == expected  # from the cache
    swapped = sets(tmp_path / "test", test=tmp_path / "ratings")  # not from the cache of the other roles
    assert {part for _, part in swapped.values()} <= {0, 2}
    assert sum(part == 2 for _, part in swapped.values()) == len(set(rows_in(tmp_path / "ratings")))


def rows_in(path: Path) -> list[tuple[str, ...]]:
    first, *rest = path.read_text().splitlines()
    separator = next(each for each in (",", "\t", "::") if each in first)
    return [tuple(line.split(separator)[:2]) for line in rest]


def test_a_test_set_of_one_line_and_with_new_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(H + "1,2,3\n2,3,4\n1,3,5\n")
    (tmp_path / "test.tsv").write_text("7\t2\t\n")
    made = load(path, test=tmp_path / "test.tsv")
    assert made.num_users == 3
    assert [row.part for row in rows_of(made)] == [0, 0, 0, 2]
    assert capsys.readouterr().err == (
        "4 interactions of 2 items by 3 users, 3 of them with a rating from 3 to 5; column user, item, rating; "
        f"own split by {tmp_path / 'test.tsv'}\n"
    )
    message = "all its pairs of a user and an item are in the test set as well"
    with pytest.raises(ValueError, match=message):
        load(path, test=tmp_path / "test.tsv", validation=tmp_path / "test.tsv")


def test_the_options_apply_to_all_files(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("who,what,stars\n1,2,-1\n2,3,4\n")
    test = tmp_path / "test.csv"
    test.write_text('stars,what,who\n-1,2,3\n"5",3,1\n')
    found = rows_of(load(path, test=test, columns="who,what,stars", unrated=(-1,)))
    assert [repr(row.rating) for row in found] == ["nan", "4.0", "nan", "5.0"]
    test.write_text(H + "1,3,x\n")
    path.write_text(H + "1,2,3\n2,3,4\n")
    assert refusal(path, test=test) == f"{test}, line 2, column rating: 'x' is not a rating: expected a number"
    for wrong in (path, test):
        path.write_text(H + "1,2,3\n2,3,4\n")
        test.write_text(H + "1,3,3\n")
        wrong.write_text("user,item,rating,split\n1,2,3,train\n2,3,4,test\n")
        message = f"{wrong}: column split gives a split, and so do options test and validation: give one of them"
        assert refusal(path, test=test) == message


def test_the_cache_follows_each_file(tmp_path: Path) -> None:
    path, test = tmp_path / "a.csv", tmp_path / "test.csv"
    path.write_text(H + "1,2,3\n2,3,4\n")
    test.write_text(H + "1,3,5\n")
    assert len(sets(path, test=test)) == 3
    test.write_text(H + "1,3,5\n2,2,5\n")
    assert len(sets(path, test=test)) == 4
    assert len(sets(path)) == 2
    assert sets(path, test=test, unrated=(4,))["2", "3"][1] == 0
    assert sorted(part for _, part in sets(path, validation=test).values()) == [0, 0, 1, 1]


def test_paths_of_a_source_may_be_strings(tmp_path: Path) -> None:
    path, test = tmp_path / "a.csv", tmp_path / "test.csv"
    path.write_text(H + "1,2,3\n2,3,4\n")
    test.write_text(H + "1,3,5\n")
    made = DataSource(ratings=str(path), test=str(test), data_dir=str(tmp_path))  # type: ignore[arg-type]
    assert made == DataSource(ratings=path, test=test, data_dir=tmp_path)
    assert len(data.read(made)) == 3


def test_the_options_of_own_ratings_are_strings_for_messages() -> None:
    options: dict[str, Any] = {"columns": "a,b,,c", "quoting": "none", "titles": Path("t"), "unrated": (-1.0, 0.5)}
    made = DataSource(ratings=Path("a.csv"), **options)
    assert made.own == {
        "ratings": "a.csv",
        "columns": "a,b,,c",
        "titles": "t",
        "quoting": "none",
        "unrated": "-1.0 0.5",
    }
    assert DataSource(ratings=Path("a.csv"), counts=True).own == {"ratings": "a.csv", "counts": "True"}
    assert DataSource().own == {}


def test_the_flags_of_own_ratings() -> None:
    parser = Parser("test")
    add_options(parser, DataSource)
    flags = [
        "--ratings",
        "a.csv",
        "--unrated",
        "-1",
        "0",
        "--test",
        "t.csv",
        "--validation",
        "v.csv",
        "--columns",
        "u,i,,t",
    ]
    assert options_of(DataSource, parser.parse_args(flags)) == DataSource(
        ratings=Path("a.csv"), columns="u,i,,t", unrated=(-1, 0), test=Path("t.csv"), validation=Path("v.csv")
    )
    assert options_of(DataSource, parser.parse_args(["--ratings=a.csv", "--counts"])).counts
