"""Ratings from a file: every layout gives the same table, and one line names the place of a mistake."""

import builtins
import gzip
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import data
import main
from data import Interactions
from datasets import parquet, source, textfile
from datasets.source import DataSource

ROOT = Path(__file__).parent.parent.parent


def load(path: Path, columns: str | None = None, titles: Path | None = None) -> Interactions:
    return data.read(DataSource(ratings=path, columns=columns, titles=titles, data_dir=path.parent / "kept"))


def triples(made: Interactions) -> list[tuple[Any, Any, float]]:
    users, items = (
        source if isinstance(source, tuple) else source.tolist()
        for source in (made.source_user_ids, made.source_item_ids)
    )
    columns = (made.user_ids.tolist(), made.item_ids.tolist(), made.ratings.tolist())
    return [(users[user], items[item], rating) for user, item, rating in zip(*columns, strict=True)]


def table(seed: int, text: bool) -> list[tuple[Any, Any, float]]:
    draw = random.Random(seed)
    pairs = draw.sample([(user, item) for user in range(1, 30) for item in range(5, 40)], 200)
    name = (lambda n: f"é,{n}") if text else (lambda n: n * 10 ** (seed % 3))
    return [(name(user), item, draw.choice([0.5, 1.0, 3.5, -2.0, 100.0])) for user, item in pairs]


FORMATS = {
    "a.csv": (",", "userId,movieId,rating,timestamp\n"),
    "bare.csv": (",", ""),
    "a.tsv": ("\t", "USER\titem_id\tScore\ttime\n"),
    "u.data": ("\t", ""),
    "ratings.dat": ("::", ""),
    "a.inter": ("\t", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"),
    "semicolons.csv": (";", "uid;iid;stars;t\n"),
    "packed.csv.gz": (",", "user,item,rating,timestamp\n"),
}


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_every_layout_gives_the_same_table(name: str, seed: int, text: bool, tmp_path: Path) -> None:
    rows = table(seed, text)
    separator, header = FORMATS[name]
    quoted = '"{}"' if text and separator == "," else "{}"
    lines = [separator.join([quoted.format(user), str(item), f"{stars:g}", "12345"]) for user, item, stars in rows]
    content = (header + "\n".join(lines) + "\n").replace("\n", ("\n", "\r\n", "\n\n")[seed]).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for _ in range(2):  # read, then from the cache
        assert triples(load(tmp_path / name)) == rows


@pytest.mark.parametrize("header", ["", "user item  rating time\n"])
@pytest.mark.parametrize("text", [False, True])
def test_blanks_between_the_columns(header: str, text: bool, tmp_path: Path) -> None:
    """One or more, also around a line; with a line that has only blanks."""
    rows = [(f"é{user}" if text else user, item, stars) for user, item, stars in table(0, False)]
    draw = random.Random(1)
    lines = [
        " " * draw.randrange(3) + (" " * draw.randint(1, 3)).join(map(str, (*row, 12345))) + " " * draw.randrange(3)
        for row in rows
    ]
    for end in ("\n", "\r\n", "\n  \n"):
        path = tmp_path / f"{len(end)}.txt"
        path.write_bytes((header + "\n".join(lines) + "\n").replace("\n", end).encode())
        assert triples(load(path)) == rows
    path.write_text("1 2 3\n1 3 4\n2 3\n")
    with pytest.raises(ValueError, match="line 3: has 2 columns: expected 3"):
        load(path)
    path.write_text("007 2 3\n7 3 4\n")
    assert triples(load(path)) == [("007", 2, 3.0), ("7", 3, 4.0)]
    path.write_text("user a,item b\nann 1,x 2\n")  # two columns of a CSV
    with pytest.raises(ValueError, match="none of the columns user a, item b has a usual name"):
        load(path)


def test_columns_can_be_chosen_by_name_or_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("when,stars given,who,what\n1,5,ann,x\n2,3.5,bob,y\n")
    expected = [("ann", "x", 5.0), ("bob", "y", 3.5)]
    assert triples(load(path, "who,what,stars given")) == expected
    assert triples(load(path, "3,4,2")) == expected
    assert capsys.readouterr().err.splitlines()[-1] == (
        "2 ratings of 2 items by 2 users, 3.5 to 5 stars; column who, what, stars given"
    )


def test_ids_keep_their_leading_zeros_and_all_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,rating\n007,1,5\n7,2,4\n7,99999999999999999999,3\n")
    assert triples(load(path)) == [("007", "1", 5.0), ("7", "2", 4.0), ("7", "99999999999999999999", 3.0)]
    path.write_text('user,item,rating,review\n1,1,5,"two\nlines, and ""more"""\n2,5000000000,4,\n')
    assert triples(load(path)) == [(1, 1, 5.0), (2, 5000000000, 4.0)]


def test_the_last_rating_of_a_pair_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,rating\n1,1,5\n1,2,4\n1,1,3\n2,1,1\n1,1,2\n")
    for _ in range(2):
        assert triples(load(path)) == [(1, 2, 4.0), (2, 1, 1.0), (1, 1, 2.0)]
        assert "; 2 more were of the same user and item as a later one\n" in capsys.readouterr().err


H = "user,item,rating\n"
WRONG: dict[str, tuple[bytes | str, str]] = {
    "missing": (H + "1,2,3\n\n,2,3\n", "line 4, column user: the user is missing: fill it in or remove the line"),
    "missing word": (H + "1,2,3\n1,NaN,3\n", "line 3, column item: the item is missing"),
    "missing text": (H + "a,2,3\nb,,3\n", "line 3, column item: the item is missing"),
    "no number": (H + "1,2,3\n1,3,good\n", "line 3, column rating: 'good' is not a rating: expected a number"),
    "infinite": (H + "1,2,3\n1,3,inf\n", "line 3, column rating: 'inf' is not a rating"),
    "no plain number": (H + "1,2,3\n1,3,+nan\n", "line 3, column rating: '+nan' is not a rating"),
    "too large": (H + "1,2,3\n1,3,1e300\n", "line 3, column rating: '1e300' is not a rating: expected a number"),
    "decimal comma": (H + "1,2,3\n1,3,3,5\n", "line 3: has 4 columns: expected 3 as in the first line"),
    "too few": (H + "1,2,3\n1,3\n", "line 3: has 2 columns: expected 3"),
    "quoted too many": (H + '1,2,3\n"1",3,4,9\n', "line 3: has 4 columns: expected 3"),
    "quoted too few": ('user,item,rating,timestamp\n1,2,3,4\n"1",3,4\n', "line 3: has 3 columns: expected 4"),
    "one column": ("user\n1\n", "line 1: a single column in 'user': expected user, item and possibly a rating"),
    "no item": ("user,title\n1,2\n2,3\n", "line 1: no column for the item in user, title: name the columns"),
    "words": ("ann,x\nbob,y\n", "line 1: none of the columns ann, x has a usual name: name the columns"),
    "empty": ("", "is empty: expected a line for each rating"),
    "blank": ("\n \n", "is empty: expected a line for each rating"),
    "header alone": (H, "has a header and nothing below it"),
    "one user": (H + "7,1,3\n7,2,3\n", "column user has the user '7' in every line: expected at least two users"),
    "one rating": (H + "7,1,3\n", "has a single interaction: expected at least two"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0", "line 3: has a zero byte: expected text, and this is a binary file"),
    "zip": (b"PK\x03\x04abc", "is damaged: File is not a zip file; fetch or pack it again"),
    "UTF-16": ((H + "1,2,3\n").encode("utf-16"), "is UTF-16: save it as UTF-8"),
    "Latin-1": ((H + "1,2,3\né,2,3\n").encode("latin-1"), "line 3, byte 1: 0xe9 is not UTF-8: save it as UTF-8"),
    "unknown names": ("who,what,how\n1,2,3\n2,2,3\n", "line 1: none of the columns who, what, how has a usual name"),
    "two scores": ("user,item,rating,score\n1,2,3,4\n", "line 1: rating and score could each be the rating: name"),
    "five columns": ("1,2,3,4,5\n", "line 1: no header, and not user, item, rating in this order: name the columns"),
    "no time": ("1,2,3,soon\n", "line 1: column 4 is 'soon', and not a time: name the columns"),
    "no date": ("1,2,3,2001-13-01\n", "line 1: column 4 is '2001-13-01', and not a time: name the columns"),
    "old Mac": ("user,item,rating\r1,2,3\r", "its lines end with CR alone"),
    "gzip cut off": (gzip.compress((H + "1,2,3\n" * 99).encode())[:-9], "is damaged: "),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_the_file_is_named_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, message = WRONG[name]
    (tmp_path / "a.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^a\.csv[^\n]*$") as caught:
        load(Path("a.csv"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "1,2,3"}, "columns is for ratings of your own: give option ratings as well"),
        ({"titles": Path("x")}, "titles is for ratings of your own"),
        ({"dataset": "ml-1m", "ratings": Path("a.csv")}, "dataset is ml-1m and ratings is a.csv: give one of them"),
        ({"dataset": "ml-2m"}, "dataset is ml-2m: expected ml-100k, ml-latest-small, ml-1m"),
        ({"ratings": Path("none.csv")}, "none.csv is not there: expected a file"),
        ({"ratings": Path(".")}, ". is a folder: expected a file"),
        ({"ratings": Path("a.csv"), "titles": Path("none.csv")}, "none.csv is not there: expected a file"),
        ({"ratings": Path("a.csv"), "columns": "1"}, "columns is '1': expected USER,ITEM[,RATING[,TIME]]"),
        ({"ratings": Path("a.csv"), "columns": "1,,2"}, "columns is '1,,2': expected USER,ITEM[,RATING[,TIME]]"),
        ({"ratings": Path("a.csv"), "columns": "1,2,"}, "columns is '1,2,': expected USER,ITEM[,RATING[,TIME]]"),
        ({"ratings": Path("a.csv"), "columns": "1,2,3,"}, "columns is '1,2,3,': expected USER,ITEM[,RATING[,TIME]]"),
        ({"ratings": Path("a.csv"), "columns": "1,2", "counts": True}, "and counts is given: expected USER,ITEM,COUNT"),
        ({"unrated": (0,)}, "unrated is for ratings of your own: give option ratings as well"),
        ({"counts": True}, "counts is for ratings of your own"),
        ({"test": Path("a.csv")}, "test is for ratings of your own"),
        ({"ratings": Path("a.csv"), "unrated": -1}, "unrated is -1: expected a list of numbers"),
        ({"ratings": Path("a.csv"), "unrated": (float("nan"),)}, "unrated is nan: expected finite numbers"),
        ({"ratings": Path("a.csv"), "unrated": (0,), "counts": True}, "unrated and counts are given: give one of them"),
        ({"ratings": Path("a.csv"), "validation": Path(".")}, ". is a folder: expected a file"),
        ({"ratings": Path("a.csv"), "test": Path("b.csv")}, "b.csv is not there: expected a file"),
        ({"ratings": Path("a.csv"), "columns": "1,2,9"}, "a.csv, line 1: has 3 columns, and columns is '1,2,9'"),
        ({"ratings": Path("a.csv"), "columns": "user,item,x"}, "no column is called 'x' among user, item, rating"),
    ],
)
def test_options_that_do_not_fit_are_named_in_one_line(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text(H + "1,2,3\n2,2,4\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=r"^[^\n]*$") as caught:
        data.read(DataSource(**options))
    assert message in str(caught.value)


@pytest.mark.parametrize("flags", ["--columns 1,2,3", "--ratings a.csv", "--dataset ml-1m --ratings a.csv"])
def test_the_command_refuses_such_ratings_with_status_2(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(H + "1,2,x\n2,2,4\n")
    assert main.main([*flags.split(), "--epochs", "1"]) == 2
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert errors.startswith("main.py: error: ")


def test_lines_are_counted_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile.blocks, "__defaults__", (50,))
    lines = [f"{n},{n + 1},3" for n in range(100)]
    path = tmp_path / "a.csv"
    path.write_text(H + "\n".join(lines) + "\n")
    assert len(load(path)) == 100
    lines[80] = "80,81,x"
    path.write_text(H + "\n" * 3 + "\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="line 85, column rating: 'x'"):
        load(path)


def test_the_cache_follows_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(H + "1,2,3\n2,5,4\n")
    first = triples(load(path))
    (kept,) = (tmp_path / "kept" / "cache").iterdir()
    payload = kept.read_bytes()
    for place in range(0, len(payload), 97):  # the output is right for damage in any place
        kept.write_bytes(payload[:place] + bytes([payload[place] ^ 255]) + payload[place + 1 :])
        assert triples(load(path)) == first
    kept.write_bytes(payload[: len(payload) // 2])
    capsys.readouterr()
    assert triples(load(path)) == first
    assert "is damaged (" in capsys.readouterr().err
    path.write_text(H + "1,2,3\n2,5,4\n3,3,4\n")
    assert len(load(path)) == 3
    assert [each.name for each in kept.parent.iterdir()] == [kept.name]


def test_titles_come_from_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(H + "1,2,3\n2,3,4\n2,4,4\n")
    odd = ('Amélie, "or" not; (2001)', "Face::Off (1997)", "4")
    for name, content in {
        "movies.csv": 'movieId,title,genres\n2,"Amélie, ""or"" not; (2001)",x\n3,Face::Off (1997),y\n',
        "movies.dat": '2::Amélie, "or" not; (2001)::x\n3::Face::Off (1997)::y\n',
        "u.item": '2|Amélie, "or" not; (2001)|x\n3|Face::Off (1997)|y\n',
        "a.item": 'item_id:token\tmovie_title:token_seq\n2\tAmélie, "or" not; (2001)\n3\tFace::Off (1997)\n',
    }.items():
        for encoding in ("utf-8", "latin-1"):
            (tmp_path / name).write_bytes(content.encode(encoding))
            assert load(path, titles=tmp_path / name).titles == odd
            said = capsys.readouterr().err
            assert ("not in UTF-8, read as Latin-1" in said) == (encoding == "latin-1")
            assert "1 of 3 items have no title there" in said
    for content, message in (
        ("movieId,x,y\n2,a,b\n", "no column for the title in movieId, x, y: call one of them title"),
        ("movieId,title\n7,a\n", "has no title of any item; the first item's ID is '2'"),
    ):
        (tmp_path / "wrong.csv").write_text(content)
        with pytest.raises(ValueError, match=message):
            load(path, titles=tmp_path / "wrong.csv")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("text", [False, True])
def test_parquet_gives_the_same_table(
    text: bool, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As CSV, with columns of any type and order, and with pairs that occur twice."""
    pytest.importorskip("pyarrow")
    import pandas as pd

    draw, rows = random.Random(seed), table(seed, text)
    again = [(user, item, draw.choice([1.0, 3.5])) for user, item, _ in draw.sample(rows, 20)]
    monkeypatch.setattr(parquet, "ROWS", 64)
    frame = pd.DataFrame(rows + again, columns=["userId", "movieId", "rating"])
    frame["movieId"] = frame["movieId"].astype(("int16", "int32", "int64")[seed])
    frame["rating"] = frame["rating"].astype(("float32", "float64", "float64")[seed])
    if text:
        frame["userId"] = frame["userId"].astype(("object", "category", "string")[seed])
    frame.insert(seed, "timestamp", 12345)
    frame.to_parquet(tmp_path / "a.parquet", compression=("snappy", "gzip", None)[seed])
    frame.to_csv(tmp_path / "a.csv", index=False)
    expected = triples(load(tmp_path / "a.csv"))
    assert "; 20 more were of the same user and item" in capsys.readouterr().err
    assert len(expected) == 200
    for _ in range(2):
        assert triples(load(tmp_path / "a.parquet")) == expected


def test_parquet_without_pyarrow_or_damaged_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without)
        with pytest.raises(ValueError, match="needs pyarrow: pip install pyarrow"):
            load(path)
    pytest.importorskip("pyarrow")
    import pandas as pd

    with pytest.raises(ValueError, match="is damaged or not a Parquet file"):
        load(path)
    pd.DataFrame({"user": ["a", "b"], "item": [1, 2], "rating": [3, 4.5], "t": [1, 2]}).to_parquet(path)
    assert triples(load(path)) == [("a", 1, 3.0), ("b", 2, 4.5)]
    pd.DataFrame({"user": ["a", None], "item": [1, 2], "rating": [3, 4.5]}).to_parquet(path)
    with pytest.raises(ValueError, match="row 2, column user: the user is missing"):
        load(path)


def test_a_run_on_ones_own_ratings_cannot_be_resumed_on_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("mine.csv", 1), ("other.csv", 2)):
        lines = [f"{user},{item},{stars}" for user, item, stars in table(seed, text=False)]
        Path(name).write_text(H + "\n".join(lines) + "\n")
    flags = ["--logdir=run", "--epochs=2", "--eval_users=5"]
    assert main.main([*flags, "--ratings", "mine.csv"]) == 0
    assert capsys.readouterr().err.splitlines()[0].startswith("200 ratings of ")
    assert main.main([*flags, "--ratings", "other.csv", "--resume"]) == 2
    assert (
        "run holds a run with other settings: the ratings differ (mine.csv then, other.csv now): "
        "give the run's ratings, or another logdir with warm_start\n"
    ) in capsys.readouterr().err


def test_a_run_is_resumed_from_anywhere_without_naming_its_ratings_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("mine.csv", 1), ("valid.csv", 2), ("elsewhere.csv", 2)):
        lines = [f"{user},{item},{stars}" for user, item, stars in table(seed, text=False)]
        Path(name).write_text("a,b,c\n" + "\n".join(lines[: 200 if seed == 1 else 20]) + "\n")
    flags = [f"--logdir={tmp_path / 'run'}", "--eval_users=5", "--resume"]
    assert main.main([*flags, "--epochs=1", "--ratings=mine.csv", "--columns=a,b,c", "--validation=valid.csv"]) == 0
    Path("folder").mkdir()
    monkeypatch.chdir("folder")
    assert main.main([*flags, "--epochs=2"]) == 0
    assert "resuming" in capsys.readouterr().err
    assert main.main([*flags, "--epochs=3", "--validation=../elsewhere.csv"]) == 0  # the same lines
    assert main.main([*flags, "--epochs=4", "--split=time"]) == 2
    assert "split is time, and validation gives a set: expected split auto" in capsys.readouterr().err
    lines = (tmp_path / "elsewhere.csv").read_text().splitlines(keepends=True)
    (tmp_path / "elsewhere.csv").write_text("".join(lines[:-1]))
    assert main.main([*flags, "--epochs=4"]) == 2
    assert "the ratings differ" in capsys.readouterr().err


def test_own_ratings_have_a_log_folder_of_their_own() -> None:
    """Other names have other folders, even where a character is unsafe in a folder's name."""
    assert source.folder_of_runs(None) == Path("run")
    assert source.folder_of_runs(Path("a/mine.csv")) == Path("run/mine.csv")
    names = [
        "my ratings.csv",
        "my_ratings.csv",
        "my:ratings.csv",
        ".csv",
        "_csv",
        "é.csv",
        "x" * 255,
        "x" * 254,
        "\udcff",
    ]
    folders = [source.folder_of_runs(Path(name)) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert folder.parent == Path("run")
        assert re.fullmatch(r"(?!\.)[\w.-]{1,89}", folder.name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("cp two/mine.csv mine.csv", "mine.csv has changed since, or only has the name of the run's file"),
        ("--ratings=two/mine.csv", "mine.csv then, two/mine.csv now"),
        ("--columns=2,1,3", "columns was not given, now 2,1,3"),
    ],
)
def test_other_ratings_of_the_same_name_do_not_share_a_run_silently(
    change: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two").mkdir()
    for name, seed in (("mine.csv", 1), ("two/mine.csv", 2)):
        lines = [f"{user},{item},{stars}" for user, item, stars in table(seed, text=False)]
        Path(name).write_text(H + "\n".join(lines) + "\n")
    flags = ["--ratings=mine.csv", "--epochs=1", "--eval_users=5"]
    assert main.main(flags) == 0
    folder = Path("run/mine.csv/shared=True_LF=0.99_LR=0.01")
    assert (folder / "checkpoint.pt").exists()
    if change.startswith("cp"):
        shutil.copy("two/mine.csv", "mine.csv")
    else:
        flags.append(change)
    assert main.main([*flags, "--resume"]) == 2
    assert f"{folder} holds a run with other settings: the ratings differ ({reason})" in capsys.readouterr().err
    assert main.main(flags) == 0
    assert f"{folder} holds a run: moved to {folder}.1\n" in capsys.readouterr().err


def test_movielens_100k_is_read_without_pandas(data_dir: Path) -> None:
    program = f"import sys, data; data.load({str(data_dir)!r}); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_source_is_called_by_its_release_or_file() -> None:
    assert DataSource(dataset="ml-1m").name == "ml-1m"
    assert DataSource(ratings=Path("a/b.csv")).name == "b.csv"
