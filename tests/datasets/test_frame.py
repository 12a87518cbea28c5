"""Interactions from a DataFrame, compared with plain loops over its rows."""

import math
import random
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import data
from data import Interactions
from datasets import frame as frames


def rows_of(made: Interactions) -> dict[tuple[Any, Any], float]:
    """Return the rating of each pair of the source's IDs."""
    users, items = (
        ids if isinstance(ids, tuple) else ids.tolist() for ids in (made.source_user_ids, made.source_item_ids)
    )
    pairs = [(users[user], items[item]) for user, item in zip(made.user_ids, made.item_ids, strict=True)]
    assert len(set(pairs)) == len(pairs)
    return dict(zip(pairs, made.ratings.tolist(), strict=True))


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("strings", [False, True])
def test_the_latest_row_of_each_pair_counts(strings: bool, timed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    ranges = (range(9), range(0, 12 * 10**12, 10**12), range(1, 6), range(50))
    rows = [tuple(map(draw.choice, ranges)) for _ in range(200)]
    frame = pd.DataFrame(rows, columns=["who", "what", "stars", "when"], index=range(1000, 1200))
    if strings:
        frame["who"] = [f"u{who}" for who in frame["who"]]
    expected: dict[tuple[Any, Any], tuple[float, float]] = {}
    for who, what, stars, when in frame.itertuples(index=False):
        if not timed or (who, what) not in expected or when >= expected[who, what][1]:
            expected[who, what] = (stars, when)
    made = data.from_frame(frame, "who", "what", "stars", time="when" if timed else None)
    assert rows_of(made) == {pair: stars for pair, (stars, _) in expected.items()}
    assert (made.num_users, made.num_items) == (9, 12)
    assert list(made.source_user_ids) == sorted(made.source_user_ids)
    later = "one with a later when" if timed else "a later one"
    more = f"{200 - len(expected)} more were of the same user and item as {later}"
    assert capsys.readouterr().err == f"{len(expected)} interactions; {more}\n"
    if timed:
        assert made.times is not None
        assert sorted(made.times.tolist()) == sorted(when for _, when in expected.values())


def test_columns_of_all_kinds_are_read() -> None:
    frame = pd.DataFrame(
        {
            "user": pd.Categorical(["b", "a", "b"]),
            "item": pd.array([2**62, 5, 5], dtype="Int64"),
            "rating": pd.array([4, None, 2], dtype="Int64"),
            "time": [pd.Timestamp("2020-01-01"), pd.NaT, pd.Timestamp("2020-01-02T00:00:00.5")],
            "title": ["Heat", None, "Alien"],
            "split": ["train", "test", "validation"],
        }
    )
    made = data.from_frame(frame, time="time", title="title", split="split")
    assert made.source_user_ids == ("a", "b")
    assert torch.equal(torch.as_tensor(made.source_item_ids), torch.tensor([5, 2**62]))
    assert made.user_ids.tolist() == [1, 0, 1]
    assert made.rated.tolist() == [True, False, True]
    assert made.times is not None
    assert made.parts is not None
    assert made.times.tolist()[::2] == [1577836800.0, 1577923200.5]
    assert math.isnan(made.times[1].item())
    assert made.titles == ("Alien", "Heat")
    assert made.parts.tolist() == [data.TRAINING, data.TEST, data.VALIDATION]


def test_interactions_need_no_ratings() -> None:
    frame = pd.DataFrame({"user": [1.0, 2.0], "item": ["x", "y"], "title": [None, "Y"]})
    made = data.from_frame(frame, rating=None, title="title")
    assert not made.rated.any()
    assert made.titles == ("x", "Y")
    assert torch.as_tensor(made.source_user_ids).dtype == torch.int64


GOOD = {"user": ["a", "b"], "item": [1, 2], "rating": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"user": ["a", None]}, "row 8, column user: the ID is missing"),
        ({"user": ["a", " "]}, "row 8, column user: ' ' the ID is blank"),
        ({"user": ["a", 1]}, "row 7, column user: 'a' is a string, and others are not: expected IDs of one type"),
        ({"user": [1.5, 2.0]}, "row 7, column user: '1.5' is no ID: expected whole numbers or strings"),
        ({"user": [True, False]}, "column user has values of type bool: expected whole numbers or strings"),
        ({"item": [(1,), (2,)]}, "column item has values of type object: expected whole numbers or strings"),
        ({"item": np.array([1, 2**63], dtype=np.uint64)}, "row 8, column item: .* does not fit into an ID of 64 bits"),
        ({"item": [1, -(2**70)]}, "row 8, column item: '-1180591620717411303424' does not fit into an ID of 64 bits"),
        ({"item": [[1], [2]]}, "column item has values of type object: expected whole numbers or strings"),
        ({"rating": [1.0, math.inf]}, "row 8, column rating: 'inf' is not a finite rating of 32 bits"),
        ({"rating": [1.0, 1e39]}, r"row 8, column rating: '1e\+39' is not a finite rating of 32 bits"),
        ({"rating": ["good", 2]}, "row 7, column rating: 'good' is not a number: expected a rating"),
        ({"rating": [True, False]}, "column rating has values of type bool: expected a rating"),
        ({"time": ["2020-01-01", "x"]}, "row 7, column time: '2020-01-01' is not a number: expected a time; pandas"),
        (
            {"split": ["train", "later"]},
            "row 8, column split: 'later' is not the name of a set: expected train",
        ),
    ],
)
def test_a_mistake_is_named_with_its_row(changed: dict[str, Any], says: str) -> None:
    frame = pd.DataFrame(GOOD | changed, index=[7, 8])
    columns = {name: name for name in changed if name in ("time", "split")}
    with pytest.raises(ValueError, match=says):
        data.from_frame(frame, **columns)


def test_missing_columns_and_rows_are_named() -> None:
    with pytest.raises(ValueError, match=r"column stars is not there, .*: expected one of user, item, rating"):
        data.from_frame(pd.DataFrame(GOOD), rating="stars")
    with pytest.raises(ValueError, match="the frame has 1 rows: expected a row for each interaction, and at least two"):
        data.from_frame(pd.DataFrame(GOOD)[:1])


@pytest.mark.parametrize("kind", ["int64", "Int32", "str", "object", "category", "float"])
def test_no_python_loop_runs_over_the_rows(kind: Any) -> None:
    """Oracle: the number of lines that Python executes in the module."""

    def lines_for(count: int) -> int:
        ids = pd.Series(np.arange(count) % 50)
        made = pd.DataFrame({"user": (ids.astype(str) if kind in ("str", "object", "category") else ids).astype(kind)})
        made = made.assign(item=range(count), rating=1.0)
        executed = 0

        def trace(frame: Any, event: str, _: object) -> Any:
            nonlocal executed
            executed += event == "line"
            return trace if frame.f_code.co_filename == frames.__file__ else None

        sys.settrace(trace)
        try:
            data.from_frame(made)
        finally:
            sys.settrace(None)
        return executed

    assert 10 < lines_for(1000) == lines_for(100)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"user": "item"}, "the columns are item, item, rating: expected each once"),
        ({"rating": "time"}, "column time: all ratings look like times: name it as the time"),
    ],
)
def test_columns_that_cannot_be_what_they_are_named_are_refused(options: dict[str, str], says: str) -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [3, 4], "rating": [5, 1], "time": [1_300_000_000, 1_300_000_001]})
    with pytest.raises(ValueError, match=says):
        data.from_frame(frame, **options)
    with pytest.raises(ValueError, match="frame is dict: expected a pandas DataFrame"):
        data.from_frame(frame.to_dict())  # type: ignore[arg-type]
