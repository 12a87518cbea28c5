"""Times in a file of ratings: of the ratings of one pair, the latest counts, wherever it stands in the file."""

import datetime
import random
from pathlib import Path
from typing import Any

import pytest

import data
from datasets.source import DataSource

START = datetime.datetime(2015, 3, 1, tzinfo=datetime.timezone.utc)
EAST = datetime.timezone(datetime.timedelta(hours=9))


def load(path: Path, **options: Any) -> list[tuple[Any, Any, float]]:
    made = data.read(DataSource(ratings=path, data_dir=path.parent / "kept", **options))
    users, items = (
        source if isinstance(source, tuple) else source.tolist()
        for source in (made.source_user_ids, made.source_item_ids)
    )
    columns = (made.user_ids.tolist(), made.item_ids.tolist(), made.ratings.tolist())
    return [(users[user], items[item], rating) for user, item, rating in zip(*columns, strict=True)]


WRITERS: dict[str, Any] = {
    "seconds": lambda when, _: f"{when.timestamp():.0f}",
    "milliseconds": lambda when, _: f"{when.timestamp() * 1000:.0f}",
    "nanoseconds": lambda when, _: f"{when.timestamp():.0f}000000000",
    "float": lambda when, _: f"{when.timestamp():.3e}" if when == START else f"{when.timestamp():.1f}",
    "date and time": lambda when, _: when.strftime("%Y-%m-%d %H:%M:%S"),
    "ISO": lambda when, _: when.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "zones": lambda when, draw: (when if draw.random() < 0.5 else when.astimezone(EAST)).isoformat(),
}


def draw_rows(draw: random.Random) -> list[tuple[int, int, float, datetime.datetime | None]]:
    """Draw ratings in any order, of few pairs, some at the same time and some without a time."""
    rows = []
    for number in range(80):
        when = START + datetime.timedelta(seconds=1000 * draw.randrange(40))
        rows.append((draw.randrange(5), draw.randrange(5), number / 2, None if draw.random() < 0.1 else when))
    return rows


def latest(rows: list[tuple[int, int, float, datetime.datetime | None]]) -> list[tuple[int, int, float]]:
    """Return the rating of each pair with the latest time; of equal ones, that of the later line."""
    kept: dict[tuple[int, int], tuple[tuple[float, int], float]] = {}
    for line, (user, item, rating, when) in enumerate(rows):
        rank = (-1.0 if when is None else when.timestamp(), line)
        if (user, item) not in kept or rank > kept[user, item][0]:
            kept[user, item] = (rank, rating)
    found = [(rank[1], user, item, rating) for (user, item), (rank, rating) in kept.items()]
    return [(user, item, rating) for _, user, item, rating in sorted(found)]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("seed", range(6))
def test_the_latest_rating_of_a_pair_counts(
    seed: int, writer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(seed)
    rows = draw_rows(draw)
    separator, quote = ((",", ""), (",", '"'), ("\t", ""), ("::", ""), (";", '"'), ("|", ""))[seed]
    name = ("timestamp", "unixReviewTime", "Date", "created_at", "ts", "time:float")[seed]
    lines = [separator.join(["user", name, "item", "rating"])]
    for user, item, rating, when in rows:
        cell = "" if when is None else WRITERS[writer](when, draw)
        lines.append(separator.join([str(user), f"{quote}{cell}{quote}", str(item), f"{rating:g}"]))
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines) + "\n")
    expected = latest(rows)
    for _ in range(2):  # read, then from the cache
        assert load(path) == expected
        said = f"; {80 - len(expected)} more were of the same user and item as one with a later {name.split(':')[0]}\n"
        assert capsys.readouterr().err.endswith(said)


@pytest.mark.parametrize("kind", ["seconds", "timestamp", "date", "text", "zone"])
def test_the_latest_rating_of_a_pair_counts_in_parquet(kind: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = draw_rows(random.Random(7))
    if kind == "date":
        day = datetime.timedelta(days=1)
        rows = [(u, i, r, None if w is None else START + (w - START).seconds // 1000 * day) for u, i, r, w in rows]
    times = [None if when is None else when for *_, when in rows]
    columns = {
        "seconds": lambda: pa.array([None if w is None else int(w.timestamp()) for w in times], pa.int64()),
        "timestamp": lambda: pa.array(
            [None if w is None else w.replace(tzinfo=None) for w in times], pa.timestamp("ms")
        ),
        "date": lambda: pa.array([None if w is None else w.date() for w in times], pa.date32()),
        "text": lambda: pa.array([None if w is None else w.isoformat() for w in times], pa.string()),
        "zone": lambda: pa.array(times, pa.timestamp("us", tz="UTC")),
    }
    users, items, ratings, _ = zip(*rows, strict=True)
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"user": users, "when": columns[kind](), "item": items, "rating": ratings}), path)
    assert load(path, columns="user,item,rating,when") == latest(rows)
    assert load(path, columns="user,item,rating") != latest(rows)  # "when" is not a usual name


def test_the_columns_without_a_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "u.data"
    for columns, rating, rule in (
        (None, 5.0, "as one with a later column 4\n"),
        ("1,2,3,4", 5.0, "as one with a later column 4\n"),
        ("1,2,3", 3.0, "as a later one\n"),
    ):
        path.write_text("1\t1\t5\t900\n1\t1\t3\t800\n2\t2\t4\t700\n")
        assert load(path, columns=columns) == [(1, 1, rating), (2, 2, 4.0)]
        assert capsys.readouterr().err.endswith(rule)
    path.write_text("1\t1\t5\t2020-02-01\n1\t1\t3\t2020-01-31\n2\t2\t4\t\n")
    assert load(path) == [(1, 1, 5.0), (2, 2, 4.0)]


def test_a_column_that_only_sounds_like_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,rating,date\n1,1,5,May 3\n1,1,4,May 2\n2,2,3,May 1\n")
    assert load(path) == [(1, 1, 4.0), (2, 2, 3.0)]
    first, second = capsys.readouterr().err.splitlines()
    assert f"{path}, line 2, column date: 'May 3' is not a time: " in first
    assert second.endswith("as a later one")
    with pytest.raises(ValueError, match=r"column date: 'May 3' is not a time: expected seconds[^\n]*$"):
        load(path, columns="user,item,rating,date")
    for quote in ("", '"'):
        path.write_text(f"user,item,rating,date\n1,1,{quote}5{quote},30\n\n1,1,4,20\n2,2,3,soon\n")
        assert load(path) == [(1, 1, 4.0), (2, 2, 3.0)]
        first, second = capsys.readouterr().err.splitlines()
        assert f"{path}, line 5, column date: 'soon' is not a time: " in first
        assert first.endswith(": the times are not read")
        assert second.endswith("as a later one")
        with pytest.raises(ValueError, match=r"line 5, column date: 'soon' is not a time"):
            load(path, columns="user,item,rating,date")


def test_times_in_several_units_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"user,item,rating,timestamp\n1,1,5,{1_300_000_000_000}\n1,1,3,{1_400_000_000}\n2,2,4,\n")
    for _ in range(2):  # read, then from the cache
        assert load(path) == [(1, 1, 3.0), (2, 2, 4.0)]
        doubt, said = capsys.readouterr().err.splitlines()
        assert doubt == f"{path}, column timestamp: has times in seconds and in fractions of them: they are not read"
        assert said.endswith("as a later one")


@pytest.mark.parametrize("time", ['{"$date": {"$numberLong": "%d"}}', '{"$date": %d}', "%d"])
def test_the_times_of_mongodb_are_read(time: str, tmp_path: Path) -> None:
    lines = [(3, 1_500_000_000_000), (4, 1_400_000_000_000)]
    path = tmp_path / "a.json"
    path.write_text(
        "".join(f'{{"user": {{"$oid": "a"}}, "item": 1, "stars": {r}, "date": {time % t}}}\n' for r, t in lines)
        + '{"user": {"$oid": "b"}, "item": 2, "stars": 1, "date": null}\n'
    )
    assert load(path) == [("a", 1, 3.0), ("b", 2, 1.0)]


def test_nested_times_are_not_read_and_a_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        '{"user": 1, "item": 1, "rating": 3, "date": [2020, 1], "split": {"a": 1}}\n'
        '{"user": 2, "item": 2, "rating": 3, "date": [2020, 1], "split": {"a": 1}}\n'
    )
    assert load(path) == [(1, 1, 3.0), (2, 2, 3.0)]
    said = capsys.readouterr().err
    assert "column date: '{…}' is not a time" in said or "date" not in said.splitlines()[-1]
    assert "column split: '{…}' is not the name of a set" in said
