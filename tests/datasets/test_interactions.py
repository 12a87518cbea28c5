"""Interactions without ratings, counts, times and sets in generated files: no line is lost without a word."""

import json
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import data
from data import Interactions
from datasets import parquet, textfile
from datasets.source import DataSource

KINDS = (",", ";", "\t", "::", "|", " ", "quoted", "quoted tabs", "json", "parquet")
START = 1_400_000_000
MISSING = ("", "NA", "nan", "NULL", "None", "Nan")
SETS = (("train", "Training", "TRAIN"), ("valid", "val", "dev", "Validation"), ("test", "Testing"))


def load(path: Path, **options: Any) -> Interactions:
    return data.read(DataSource(ratings=path, data_dir=path.parent / "kept", **options))


class Row(NamedTuple):
    """An interaction: NaN for no rating or no time; its set from 0 to 2."""

    user: str
    item: str
    rating: float
    time: float
    part: int


def rows_of(made: Interactions) -> list[Row]:
    """Return the interactions with the source's IDs as strings."""
    users, items = (
        list(source) if isinstance(source, tuple) else [str(each) for each in source.tolist()]
        for source in (made.source_user_ids, made.source_item_ids)
    )
    none = [math.nan] * len(made)
    times = none if made.times is None else made.times.tolist()
    parts = [0] * len(made) if made.parts is None else made.parts.tolist()
    columns = (made.user_ids.tolist(), made.item_ids.tolist(), made.ratings.tolist(), times, parts)
    return [Row(users[user], items[item], *rest) for user, item, *rest in zip(*columns, strict=True)]


def shown(rows: list[Row]) -> list[str]:
    return list(map(repr, rows))  # NaN is equal to NaN then


def kept(rows: list[Row]) -> list[Row]:
    """Return one row of each pair: of the test set before the others, then the latest, then the last one."""
    best: dict[tuple[str, str], tuple[tuple[int, float, int], Row]] = {}
    for line, row in enumerate(rows):
        rank = (row.part, -math.inf if math.isnan(row.time) else row.time, line)
        if (row.user, row.item) not in best or rank > best[row.user, row.item][0]:
            best[row.user, row.item] = (rank, row)
    return [row for _, row in sorted(best.values(), key=lambda found: found[0][2])]


class Draft:
    """A file drawn at random, the options that it needs, and the rows that a reader has to find in it."""

    def __init__(self, draw: random.Random) -> None:
        self.kind = draw.choice(KINDS)
        self.third = draw.choice(["rating", "rating", "count", "", ""])
        self.has_time = draw.random() < 0.5
        self.has_set = draw.random() < 0.4
        self.header = self.has_set or self.kind in ("json", "parquet") or draw.random() < 0.4
        self.unrated = draw.choice([(), (), (-1.0,), (0.0, -1.0)]) if self.third == "rating" else ()
        self.missing = draw.choice([0, 0.1, 0.5, 1]) if self.third == "rating" else 0
        self.lines: list[list[str]] = []
        rows = [self._row(draw, number) for number in range(draw.randint(3, 40))]
        self.zeros = sum(row is None for row in rows)
        self.all_rows = [row for row in rows if row is not None]
        self.rows = kept(self.all_rows)
        self.options: dict[str, Any] = {"counts": True} if self.third == "count" else {}
        if self.unrated:
            self.options["unrated"] = self.unrated
        if not self.header and self.has_time and not self.third:
            self.options |= draw.choice([{}, {}, {"columns": "1,2,,3"}])  # the times are also told by their values
        self.titles = ["user", "item", "plays" if self.third == "count" else self.third, "timestamp", "split"]

    def _row(self, draw: random.Random, number: int) -> Row | None:
        user, item = str(draw.randrange(1, 7)), str(draw.randrange(1, 7))
        if number == 0:
            user, item = "8", "9"  # so that there are two of each
        time = math.nan if not self.has_time or draw.random() < 0.1 else float(START + draw.randrange(20))
        part = draw.randrange(3) if self.has_set else 0
        value = draw.choice([0.0, 1.0, 2.5, -1.0, 4.0]) if self.third == "rating" else float(draw.choice([0, 1, 7]))
        if number < 2 and self.third == "count":
            value = 1.0
        is_missing = draw.random() < self.missing
        word = draw.choice(MISSING)
        needs_word = self.kind == " "
        self.lines.append(
            [
                user,
                item,
                (word or "NA" if needs_word else word) if is_missing else f"{value:g}",
                ("NA" if needs_word else "") if math.isnan(time) else f"{time:.0f}",
                draw.choice(SETS[part]),
            ]
        )
        if self.third == "count" and value == 0:
            return None
        is_rated = self.third == "rating" and not is_missing and value not in self.unrated
        return Row(user, item, value if is_rated else math.nan, time, part)

    def write(self, path: Path) -> None:
        """Write the columns that the draft has."""
        has = [True, True, bool(self.third), self.has_time, self.has_set]
        table = [[cell for cell, is_there in zip(line, has, strict=True) if is_there] for line in self.lines]
        names = [name for name, is_there in zip(self.titles, has, strict=True) if is_there]
        if self.kind == "parquet":
            self._write_parquet(path, names, table)
        elif self.kind == "json":
            records = [dict(zip(names, line, strict=True)) for line in table]
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        else:
            separator = {"quoted": ",", "quoted tabs": "\t"}.get(self.kind, self.kind)
            mark = '"' if self.kind.startswith("quoted") else ""
            lines = [names, *table] if self.header else table
            path.write_text("".join(separator.join(f"{mark}{cell}{mark}" for cell in line) + "\n" for line in lines))

    @staticmethod
    def _write_parquet(path: Path, names: list[str], table: list[list[str]]) -> None:
        pd = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        frame = pd.DataFrame(table, columns=names)
        for name in set(names) - {"split"}:
            frame[name] = pd.to_numeric(frame[name].where(~frame[name].isin(MISSING)))
        frame.to_parquet(path)


@pytest.mark.parametrize("seed", range(250))
def test_each_line_is_an_interaction_or_counted(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(seed)
    draft = Draft(draw)
    path = tmp_path / ("a.parquet" if draft.kind == "parquet" else "a.txt")
    draft.write(path)
    monkeypatch.setattr(textfile.blocks, "__defaults__", (draw.choice([40, 200, 2**25]),))
    monkeypatch.setattr(parquet, "ROWS", draw.choice([3, 2**20]))
    for _ in range(2):  # read, then from the cache
        assert shown(rows_of(load(path, **draft.options))) == shown(draft.rows)
        said = capsys.readouterr().err.splitlines()[0]
        left_out = sum(map(int, re.findall(r"left out: (\d+)", said))) + sum(
            map(int, re.findall(r"(\d+) more were", said))
        )
        total = re.match(r"\d+", said)
        assert total is not None
        assert int(total[0]) + left_out == len(draft.lines)
        rated = sum(not math.isnan(row.rating) for row in draft.rows)
        if rated < len(draft.rows):
            assert ("interactions without ratings of" in said) == (rated == 0)
            assert rated == 0 or f", {rated} of them with a rating from " in said
        if draft.unrated:
            marked = sum(line[2] in [f"{each:g}" for each in draft.unrated] for line in draft.lines)
            assert f"; no rating: {marked} lines with {' or '.join(f'{each:g}' for each in draft.unrated)}" in said
        assert (f"left out: {draft.zeros} with a count of 0" in said) == (draft.third == "count" and draft.zeros > 0)
        assert ("; own split by column split" in said) == draft.has_set


def test_the_drafts_have_all_cases() -> None:
    drafts = [Draft(random.Random(seed)) for seed in range(250)]
    assert {draft.kind for draft in drafts} == set(KINDS)
    cases: tuple[Callable[[Draft], object], ...] = (
        lambda draft: draft.zeros,
        lambda draft: not draft.third,
        lambda draft: draft.unrated,
        lambda draft: len(draft.rows) < len(draft.all_rows) and draft.has_time and draft.has_set,
        lambda draft: not draft.header and draft.missing and draft.lines[0][2] in MISSING,
        lambda draft: not draft.header and draft.has_time and not draft.third and not draft.options,
    )
    for case in cases:
        assert sum(bool(case(draft)) for draft in drafts) >= 4
