"""Which columns a file has: with and without ratings, counts and times, with and without a header."""

import math
from pathlib import Path
from typing import Any

import pytest
from test_interactions import load, rows_of

from datasets import textfile

T = 978_300_760
NONE = math.nan


def read(path: Path, **options: Any) -> list[tuple[Any, ...]]:
    return [row[:4] for row in rows_of(load(path, **options))]


def same(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> bool:
    return list(map(repr, found)) == list(map(repr, expected))


PAIRS = [("1", "2", NONE, NONE), ("2", "3", NONE, NONE)]
RATED = [("1", "2", NONE, NONE), ("2", "3", 4.0, NONE)]
TIMED = [("1", "2", NONE, float(T)), ("2", "3", NONE, T + 5.0)]
BOTH = [("1", "2", NONE, float(T)), ("2", "3", 4.0, T + 5.0)]
FILES: dict[str, tuple[str, dict[str, Any], list[tuple[Any, ...]], str]] = {
    "pairs with a header": ("user,item\n1,2\n2,3\n", {}, PAIRS, "column user, item, no rating"),
    "pairs": ("1,2\n2,3\n", {}, PAIRS, "column 1, 2, no rating"),
    "pairs with blanks": ("1 2\n2  3\n", {}, PAIRS, "column 1, 2, no rating"),
    "pairs with ::": ("1::2\n2::3\n", {}, PAIRS, "column 1, 2, no rating"),
    "two of four": ("user,item,rating,x\n1,2,5,\n2,3,4,\n", {"columns": "user,item"}, PAIRS, "user, item, no rating"),
    "two by number": ("who,what\n1,2\n2,3\n", {"columns": "1,2"}, PAIRS, "column who, what, no rating"),
    "first missing": ("1,2,\n2,3,4\n", {}, RATED, "1 of them with a rating from 4 to 4; column 1, 2, 3"),
    "first missing by number": ("1,2,\n2,3,4\n", {"columns": "1,2,3"}, RATED, "column 1, 2, 3"),
    "first missing, with a time": (f"1,2,,{T}\n2,3,4,{T + 5}\n", {}, BOTH, "column 1, 2, 3, 4"),
    "first missing, a word": ("1\t2\tNone\n2\t3\t4\n", {}, RATED, "column 1, 2, 3"),
    "all missing": ("user,item,rating\n1,2,\n2,3,\n", {}, PAIRS, "interactions without ratings of 2 items by 2"),
    "quoted": ('"user","item","rating"\n"1","2",""\n"2","3","4"\n', {}, RATED, "column user, item, rating"),
    "time by name": (f"user,item,timestamp\n1,2,{T}\n2,3,{T + 5}\n", {}, TIMED, "no rating, time timestamp"),
    "time by value": (f"1,2,{T}\n2,3,{T + 5}\n", {}, TIMED, "column 1, 2, no rating, time 3"),
    "time chosen": (f"u,i,t\n1,2,{T}\n2,3,{T + 5}\n", {"columns": "u,i,,t"}, TIMED, "column u, i, no rating, time t"),
    "time by number": (f"1,2,9,{T}\n2,3,9,{T + 5}\n", {"columns": "1,2,,4"}, TIMED, "column 1, 2, no rating, time 4"),
    "milliseconds": (f"1,2,{T}000\n2,3,{T}005\n", {}, [("1", "2", NONE, T * 1e3), ("2", "3", NONE, T * 1e3 + 5)], "3"),
    "dates": ("1,2,2001-01-01\n2,3,2001-01-02\n", {},
              [("1", "2", NONE, 978_307_200.0), ("2", "3", NONE, 978_393_600.0)], "no rating, time 3"),
    "years are ratings": ("1,2,1999\n2,3,2001\n", {}, [("1", "2", 1999.0, NONE), ("2", "3", 2001.0, NONE)], "1, 2, 3"),
    "plays": ("user,item,plays\n1,2,5\n2,3,1\n", {}, PAIRS,
              "plays (if plays is a count, give option counts; if it is a rating, option columns)\n"),
    "other columns": ("user,item,grade,title\n1,2,5,a\n2,3,1,b\n", {}, PAIRS, "no rating; not read: grade, title\n"),
    "counts": ("user,item,plays\n1,2,5\n2,3,1\n1,3,0\n", {"counts": True}, PAIRS,
               "column user, item, count plays; left out: 1 with a count of 0"),
    "counts without a header": ("1,2,5\n2,3,1\n", {"counts": True}, PAIRS, "column 1, 2, count 3\n"),
    "counts called ratings": ("user,item,rating\n1,2,5\n2,3,1\n", {"counts": True}, PAIRS, "item, count rating\n"),
    "counts like times": (f"1,2,{T}\n2,3,1\n", {"counts": True}, PAIRS, "column 1, 2, count 3"),
    "unrated": ("user,item,rating\n1,2,-1\n2,3,4\n", {"unrated": (-1, 0)}, RATED, "no rating: 1 lines with -1 or 0"),
    "JSON": ('{"user": 1, "item": 2}\n{"user": 2, "item": 3}\n', {}, PAIRS, "column user, item, no rating"),
    "JSON by number": ('{"a": 1, "b": 2}\n{"a": 2, "b": 3}\n', {"columns": "1,2"}, PAIRS, "column a, b, no rating"),
    "JSON null": ('{"user": 1, "item": 2, "rating": null}\n{"user": 2, "item": 3, "rating": 4}\n', {}, RATED, "rating"),
    "first missing, with a date": ("u,x,,2001-01-01\nv,y,4,2001-01-02\n", {},
                                   [("u", "x", NONE, 978_307_200.0), ("v", "y", 4.0, 978_393_600.0)], "1, 2, 3, 4"),
    "other usual names": ("visitorid\tartistID\tscore\n1\t2\t\n2\t3\t4\n", {}, RATED, "visitorid, artistID, score"),
    "Amazon": ("user_id,parent_asin,rating,timestamp\n1,2,,978300760\n2,3,4,978300765\n", {}, BOTH, "parent_asin, rat"),
    "the usual names first": ("artist,user,item\n7,1,2\n7,2,3\n", {}, PAIRS, "column user, item, no rating"),
    "strings": ("u1,i1\nu2,i2\n", {}, [("u1", "i1", NONE, NONE), ("u2", "i2", NONE, NONE)], "column 1, 2, no rating"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_columns_of_a_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, options, expected, said = FILES[name]
    path = tmp_path / "a.txt"
    path.write_text(content)
    assert same(read(path, **options), expected)
    assert said in capsys.readouterr().err


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "time before rating": (f"1,2,{T},4\n2,3,{T},5\n", {}, "line 1: column 3 looks like times: name the columns"),
    "time as rating": (f"user,item,rating\n1,2,{T}\n2,3,{T}\n", {}, "column rating: all ratings look like times"),
    "time chosen as rating": (f"1,2,{T},4\n2,3,{T},5\n", {"columns": "1,2,3"}, "give option columns 1,2,,3"),
    "milliseconds": (f"user,item,rating\n1,2,{T}000\n2,3,{T}000\n", {}, "give option columns user,item,,rating"),
    "date as rating": ("user,item,rating\n1,2,2001-01-01\n2,3,2001-01-02\n", {},
                       "line 2, column rating: '2001-01-01' is a time and not a rating: name it as the time"),
    "times, then a number": ("1,2,978300760\n" * 100 + "2,3,5\n", {}, "column 3 holds times in the first lines, and"),
    "dates, then a number": ("1,2,2001-01-01\n" * 100 + "2,3,5\n", {}, "line 101, column 3: '5' is not a time"),
    "negative count": ("user,item,n\n1,2,5\n2,3,-1\n", {"counts": True, "columns": "user,item,n"},
                       "line 3, column n: '-1' is a negative count: expected at least 0"),
    "missing count": ('user,item,plays\n1,2,"5"\n2,3,\n', {"counts": True}, "column plays: the count is missing"),
    "no count": ("user,item,grade\n1,2,5\n", {"counts": True}, "line 1: no column for the count in user, item, grade"),
    "no third count": ("1,2\n2,3\n", {"counts": True}, "line 1: has no column for the count"),
    "two counts": ("user,item,rating,plays\n1,2,5,1\n", {"counts": True}, "rating and plays could each be the count"),
    "counts of 0": ("user,item,plays\n1,2,0\n2,3,0\n", {"counts": True}, "all 2 counts are 0: expected a count above"),
    "wrong first rating": ("1,2,good\n2,3,4\n", {"columns": "1,2,3"}, "line 1, column 3: 'good' is not a rating"),
    "names above pairs": ("who,what\n1,2\n2,3\n", {}, "line 1: none of the columns who, what has a usual name"),
    "names above a missing rating": ("who,what,\n1,2,\n2,3,4\n", {}, "none of the columns who, what,  has a usual"),
    "names above a missing time": ("who,what,\n1,2,978300760\n", {}, "none of the columns who, what,  has a usual"),
    "a short and a long line": ("user,item,rating,x\n1,2,3\n2,3,4,5,6\n", {}, "line 2: has 3 columns: expected 4"),
    "a short and a long pair": ("1,2\n2\n3,4,5\n", {}, "line 2: has 1 columns: expected 2"),
    "no-break space": ("user,item,rating\n1,2,3\n2,3,4\u00a0000\n", {},
                       "line 3, column rating: '4\\xa0000' is not a rating: expected a number; character 2 is U+00A0"),
    "decimal comma": ("user;item;rating\n1;2;3,5\n", {}, "'3,5' is not a rating: expected a number with a decimal"),
    "booleans": ("user,item,rating\n1,2,\n2,3,True\n", {}, "line 3, column rating: 'True' is not a rating"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_columns_in_doubt_are_one_line(name: str, tmp_path: Path) -> None:
    content, options, message = WRONG[name]
    path = tmp_path / "a.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        read(path, **options)
    assert message in str(caught.value)


def test_a_first_line_in_doubt_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ann,x\nbob,y\n")
    assert len(read(path, columns="1,2")) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"{path}, line 1: is read as an interaction; if it is a header, choose the columns by name"
    path.write_text("ann,x,5\nbob,y,4\n")
    assert len(read(path, columns="1,2")) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "users", [["1.0", "2.0", "1"], ["1e3", "1000", "2"], ["1", "2", "3.0"], ["9007199254740993.0", "1.5", "2"]]
)
@pytest.mark.parametrize("separator", [",", "\t", "::", " "])
def test_ids_are_as_written(separator: str, users: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile.blocks, "__defaults__", (20,))
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{user}{separator}{item}{separator}3\n" for item, user in enumerate(users)))
    assert [row[0] for row in read(path)] == users


def test_ids_with_leading_zeros_beside_dates(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for users in (["007", "7"], ["1", "01"], ["7", "8"]):
        path.write_text("user,date,item\n" + "".join(f"{user},2001-01-01 00:01:02,{user}\n" for user in users))
        assert [row[:2] for row in read(path)] == [(user, user) for user in users]


@pytest.mark.parametrize("separator", ["\t", "|", " "])
def test_quotation_marks_around_all_columns_quote_them(separator: str, tmp_path: Path) -> None:
    """Also where only the header and the strings have them, as from R."""
    path = tmp_path / "a.tsv"
    header = separator.join(['"user"', '"item"', '"rating"'])
    expected = [("a", "x y", 4.0, NONE), ("b", "z", 5.0, NONE)]
    for mark in ('"', ""):
        lines = [separator.join([f'"{u}"', f'"{i}"', f"{mark}{r:g}{mark}"]) for u, i, r, _ in expected]
        path.write_text("\n".join([header, *lines]) + "\n")
        assert same(read(path), expected)
    path.write_text(f'{header}\n"a"{separator}"x{separator}5\n"b"{separator}"y"{separator}5\n')
    with pytest.raises(ValueError, match=r"line 2: has a stray quotation mark: [^\n]* give option quoting none"):
        read(path)
    path.write_text(f'"a"{separator}x{separator}5\nb{separator}y{separator}4\n')
    assert read(path)[0][:2] == ('"a"', "x")


def test_titles_with_quotation_marks_around_all_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2,3\n2,3,4\n")
    (tmp_path / "t.tsv").write_text('"item"\t"title"\n"2"\t"A ""b"""\n"3"\t"C"\n')
    assert load(tmp_path / "a.csv", titles=tmp_path / "t.tsv").titles == ('A "b"', "C")


@pytest.mark.parametrize("name", ["rating", "timestamp"])
def test_parquet_without_ratings_or_with_missing_ones(name: str, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    pd.DataFrame({"user": [1, 2], "item": [2, 3], name: pd.array([None, T], dtype="Int64")}).to_parquet(path)
    if name == "timestamp":
        assert same(read(path), [PAIRS[0], ("2", "3", NONE, float(T))])
        return
    with pytest.raises(ValueError, match="column rating: all ratings look like times"):
        read(path)
    pd.DataFrame({"user": [1, 2], "item": [2, 3], "rating": ["n/a", "4"]}).to_parquet(path)
    assert same(read(path), RATED)
    pd.DataFrame({"user": [1, 2], "item": [2, 3], "rating": ["n/a", "good"]}).to_parquet(path)
    with pytest.raises(ValueError, match="row 2, column rating: 'good' is not a rating: expected a number"):
        read(path)
    pd.DataFrame({"user": [1, 2], "item": [2, 3], "plays": [1, -4]}).to_parquet(path)
    with pytest.raises(ValueError, match="row 2, column plays: '-4' is a negative count"):
        read(path, counts=True)


def test_ratings_up_to_1e30_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2,1e30\n2,3,-4e30\n3,3,.5\n")
    assert [row[2] for row in read(tmp_path / "a.csv")] == pytest.approx([1e30, -4e30, 0.5])


@pytest.mark.parametrize(
    ("ratings", "hint"),
    [("-1 3 5", "-1"), ("0 1 2", "0"), ("0 0.5 1", ""), ("1 2 3", ""), ("-1 0 1", ""), ("0 0 0", "0")],
)
def test_a_number_that_may_stand_for_no_rating_is_named(
    ratings: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{n},{n},{rating}\n" for n, rating in enumerate(ratings.split())]
    (tmp_path / "a.csv").write_text("user,item,rating\n" + "".join(lines))
    load(tmp_path / "a.csv")
    said = capsys.readouterr().err
    assert ("means no rating" in said) == bool(hint)
    assert f"give option unrated {hint}" in said or not hint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"1,{T},7\n2,{T + 5},8\n", "line 1: column 2 looks like times, and not like IDs: name the columns"),
        (f"{T},1,7\n{T + 5},2,8\n", "line 1: column 1 looks like times"),
        ("1,2011-06-01T16:25:17.277Z,7,0\n2,2011-06-02,8,0\n", "line 1: column 2 looks like times"),
    ],
)
def test_times_in_the_place_of_an_id_are_named(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ValueError, match=says):
        load(tmp_path / "a.csv")
    assert len(load(tmp_path / "a.csv", columns="1,2,3")) == 2


def test_a_first_line_that_may_number_the_columns_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("0,1,2\n5,6,4\n7,8,3\n")
    assert len(load(tmp_path / "a.csv")) == 3
    assert "line 1: is read as an interaction; if it numbers the columns, remove it" in capsys.readouterr().err
