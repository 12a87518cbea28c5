"""Runs whose ratings have changed since, runs that start from them, and the data that a run notes."""

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import runs
import torch
from conftest import Refused
from torch import Tensor, nn

import main
import recommend
from serving.loading import load_run
from serving.recommender import Recommender
from tracking import run_data, trained
from training import parts
from training.rows import Rows, copy_rows
from training.settings import Settings

Rating = tuple[int, int, int]
THEN: list[Rating] = [(n % 23, (n * n + n // 23) % 31, n % 5 + 1) for n in range(500)]
UNSEEN = min({*range(31)} - {item for user, item, _ in THEN if user == 2})
NEW_USER: list[Rating] = [(40, 3, 5), (40, 8, 1), (40, 14, 4)]
NOW: list[Rating] = [
    *[each for each in THEN if each[0] != 5],
    *NEW_USER,
    (2, 77, 5),
    (2, UNSEEN, 2),
    (2, -7, 3),
    (41, 77, 3),
]
TRAIN = ["--epochs", "2", "--embedding_dim", "8", "--layer_sizes", "24", "--batch_size", "32"]


def write(path: Path, ratings: list[Rating], prefix: str = "") -> Path:
    """Write ratings with their columns in another order; IDs begin with a prefix."""
    lines = [f"{rating},{prefix}{item},{prefix}{user}\n" for user, item, rating in ratings]
    path.write_text("".join(["stars,film,who\n", *lines]))
    return path


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``ratings.csv``, ``titles.csv`` and the run ``run``."""
    folder = tmp_path_factory.mktemp("changed")
    write(folder / "ratings.csv", THEN)
    titles = [f"{item},Film {chr(65 + item % 26)}{item}\n" for item in range(31)]
    (folder / "titles.csv").write_text("".join(["film,title\n", *titles]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = ["--ratings", "ratings.csv", "--columns", "who,film,stars", "--titles", "titles.csv", "--data_dir", "c"]
        assert main.main([*data, *TRAIN, "--logdir", "run"]) == 0
    return folder


@pytest.fixture
def home(trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return another working directory with ``run``, and ``ratings.csv`` where the run noted it."""
    write(trained_run / "ratings.csv", THEN)
    shutil.copytree(trained_run / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_finds_its_data_from_another_working_directory(
    home: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommend.main(["--logdir", "run", "--user", "3", "--top", "2"]) == 0
    printed = capsys.readouterr()
    assert "Film" in printed.out
    assert "changed" not in printed.err
    moved = (trained_run / "ratings.csv").rename(home / "moved.csv")
    assert recommend.main(["--logdir", "run", "--user", "3", "--top", "2", "--ratings", moved.name]) == 0
    assert capsys.readouterr().out == printed.out


@pytest.mark.parametrize("name", ["ratings", "titles"])
def test_a_missing_file_of_a_run_is_named(name: str, home: Path, trained_run: Path, refused: Refused) -> None:
    content = (trained_run / f"{name}.csv").read_text()
    (trained_run / f"{name}.csv").unlink()
    assert refused("recommend.py", recommend.main, ["--logdir", "run", "--all", "--out", "x.csv"]) == (
        "recommend.py: error: a file of the run in run is not there: expected "
        f"{trained_run / name}.csv, or its new path as option {name}\n"
    )
    (trained_run / f"{name}.csv").write_text(content)


def test_recommendations_follow_ratings_that_have_changed(
    home: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the recommender of the unchanged run, asked for a new user with the same ratings."""
    before = Recommender.load("run")
    write(trained_run / "ratings.csv", NOW)
    assert recommend.main(["--logdir", "run", "--user", "2", "40", "41", "--top", "31"]) == 0
    errors = capsys.readouterr().err
    assert (
        "ratings.csv has changed since the run: 2 new users are folded in from their interactions, 2 new items are not "
        "recommended: -7, 77, 1 user is no longer in it; train on with main.py --warm_start run --logdir NEW "
        "and its flags"
    ) in errors
    now = Recommender.load("run")
    expected = before.recommend_new({item: rating for _, item, rating in NEW_USER}, n=31)
    found = now.recommend([40], n=31).drop(columns="user")
    pd.testing.assert_frame_equal(found, expected)
    old, new = (each.recommend([2], n=31).set_index("item") for each in (before, now))
    assert set(old.index) - set(new.index) == {UNSEEN}
    assert new["p"].tolist() == pytest.approx(old.loc[new.index, "p"].tolist(), abs=1e-6)
    gone = now.recommend([5], n=31)
    assert sorted(gone["item"]) == list(range(31))
    assert 77 in now.rated(2, 99)["item"].tolist()
    assert len(now.rated(5)) == 0


def test_a_user_without_items_of_the_run_gets_the_mean_of_all_embeddings(home: Path, trained_run: Path) -> None:
    write(trained_run / "ratings.csv", NOW)
    now = Recommender.load("run")
    now.recommend([41])
    table = parts.factorization_tables(now.model).users.weight
    users = now.ratings.source_user_ids
    assert isinstance(users, Tensor)
    torch.testing.assert_close(table[users == 41][0], table[users < 40].mean(0))


def test_the_order_of_questions_does_not_change_a_new_users_embeddings(home: Path, trained_run: Path) -> None:
    write(trained_run / "ratings.csv", NOW)
    one, other = Recommender.load("run"), Recommender.load("run")
    one.recommend([41])
    one.recommend([40])
    assert one.recommend([40, 41]).equals(other.recommend([40, 41]))


@pytest.mark.parametrize("flags", ["--similar 77", "--rated 77=3"])
def test_a_new_item_is_told_from_a_wrong_one(flags: str, home: Path, trained_run: Path, refused: Refused) -> None:
    write(trained_run / "ratings.csv", NOW)
    errors = refused("recommend.py", recommend.main, ["--logdir", "run", *flags.split()])
    assert errors.splitlines()[-1].startswith("recommend.py: error: item 77 is new since the run")
    wrong = refused("recommend.py", recommend.main, ["--logdir", "run", *flags.replace("77", "78").split()])
    assert "no title is '78'" in wrong.splitlines()[-1]


def test_metrics_by_quarter_need_the_ratings_of_the_run(home: Path, trained_run: Path, refused: Refused) -> None:
    write(trained_run / "ratings.csv", NOW)
    errors = refused("recommend.py", recommend.main, ["--logdir", "run", "--quartiles"])
    assert errors.splitlines()[-1] == (
        "recommend.py: error: there is no test set any more, because the ratings have changed since the run"
    )


def test_numbers_that_have_become_strings_are_the_same_ids(home: Path, trained_run: Path) -> None:
    path = write(trained_run / "ratings.csv", THEN)
    before = Recommender.load("run").recommend([7], n=5)
    path.write_text(path.read_text() + "3,4,ann\n")
    now = Recommender.load("run")
    after = now.recommend(["7", "ann"], n=5)
    assert after["user"].tolist() == ["7"] * 5 + ["ann"] * 5
    assert after["p"].tolist()[:5] == pytest.approx(before["p"].tolist(), abs=1e-6)


def test_other_ratings_and_a_run_without_noted_data_are_refused(home: Path, refused: Refused) -> None:
    write(home / "other.csv", THEN, prefix="x")
    (home / "titles.csv").write_text("film,title\nx1,Film\n")
    question = ["--logdir", "run", "--all", "--out", "x.csv"]
    errors = refused("recommend.py", recommend.main, [*question, "--ratings", "other.csv", "--titles", "titles.csv"])
    assert "other.csv has no item of the run in run, which was trained on ratings.csv" in errors.splitlines()[-1]
    Path("run/data.npz").unlink()
    errors = refused("recommend.py", recommend.main, question)
    assert errors == "recommend.py: error: run has no data.npz with the run's users and items: train it again\n"
    Path("run/data.npz").write_bytes(b"PK")
    errors = refused("recommend.py", recommend.main, question)
    assert errors.startswith("recommend.py: error: run/data.npz is damaged, or another version wrote it: ")


def test_noted_data_are_read_as_they_were_written(home: Path, trained_run: Path) -> None:
    found = run_data.read(Path("run"))
    assert found is not None
    assert found.source.ratings == trained_run / "ratings.csv"
    assert (found.source.columns, found.source.data_dir) == ("who,film,stars", trained_run / "c")
    source = replace(found.source, unrated=(-1.0, 0.5), titles=None, test=Path("/a/test"), quoting="none")
    strings = found._replace(source=source, user_ids=("", "a,b", "\n", "\udc80", "é"), scale=None)
    run_data.write(home, strings)
    again = run_data.read(home)
    assert again is not None
    assert (again.user_ids, again.scale, again.source) == (strings.user_ids, None, source)
    assert torch.equal(torch.as_tensor(again.item_ids), torch.as_tensor(found.item_ids))


def ids_of(run: trained.TrainedRun) -> tuple[list[int], list[int]]:
    users, items = run.data.user_ids, run.data.item_ids
    assert isinstance(users, Tensor)
    assert isinstance(items, Tensor)
    return users.tolist(), items.tolist()


def test_a_warm_start_copies_rows_by_their_ids(
    home: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The learning rate is too small to move a parameter by more than a millionth."""
    write(trained_run / "ratings.csv", NOW)
    still = ["--epochs", "1", "--learning_rate", "1e-9"]
    assert main.main(["--warm_start", "run", "--logdir", "next", *still]) == 0
    errors = capsys.readouterr().err
    assert "starting from run after epoch 1: 22 users and 31 items as trained there, 2 and 2 new" in errors
    assert "; it had other batch_size, learning_rate; test metrics" in errors
    data = ["--ratings", str(trained_run / "ratings.csv"), "--columns", "who,film,stars"]
    assert main.main([*data, *TRAIN, *still, "--logdir", "fresh"]) == 0
    then, now, fresh = (trained.read(Path(name)) for name in ("run", "next", "fresh"))
    assert now.settings.embedding_dim == 8
    assert now.settings.layer_sizes == (24,)
    old, new, initial = (each.checkpoint.tensors for each in (then, now, fresh))
    for name, ids_then, ids_now in zip(
        ("network.U.weight", "network.Q.weight"), ids_of(then), ids_of(now), strict=True
    ):
        for row, own_id in enumerate(ids_now):
            expected = old[name][ids_then.index(own_id)] if own_id in ids_then else initial[name][row]
            torch.testing.assert_close(new[name][row], expected, rtol=0, atol=1e-6)
    for name in old:
        if "mlp" in name:
            torch.testing.assert_close(new[name], old[name], rtol=0, atol=1e-6)


def test_a_warm_started_run_is_resumed_without_the_earlier_run(home: Path) -> None:
    start = ["--warm_start", "run"]
    assert main.main([*start, "--logdir", "whole", "--epochs", "3"]) == 0
    assert main.main([*start, "--logdir", "parts", "--epochs", "1"]) == 0
    shutil.rmtree("run")
    assert main.main([*start, "--logdir", "parts", "--epochs", "3", "--resume"]) == 0
    assert runs.same_result(Path("whole"), Path("parts"))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--logdir new --warm_start nowhere", "nowhere holds no checkpoint"),
        ("--logdir new --warm_start other.csv", "other.csv is a file: expected the folder of a run"),
        ("--warm_start run", "warm_start is for a new run: give --logdir, another folder"),
        ("--warm_start run --logdir ./run", "warm_start is for a new run: give --logdir, another folder"),
        ("--warm_start run --logdir new --embedding_dim 16", "embedding_dim is 16, and was 8 in run"),
        ("--warm_start run --logdir new --layer_sizes 24 8", "layer_sizes is 24 8, and was 24 in run"),
        ("--warm_start run --logdir new --no_shared_embeddings", "shared_embeddings is False, and was True in run"),
        ("--warm_start run --logdir new --watched_items", "watched_items is True, and was False in run"),
        (
            "--warm_start run --logdir new --ratings other.csv --titles titles.csv",
            "no user of the earlier run is in the ratings",
        ),
    ],
)
def test_a_warm_start_that_cannot_be_is_one_line(flags: str, says: str, home: Path, refused: Refused) -> None:
    write(home / "other.csv", THEN, prefix="x")
    (home / "titles.csv").write_text("film,title\nx1,Film\n")
    errors = refused("main.py", main.main, flags.split())
    assert errors.splitlines()[-1].startswith(f"main.py: error: {says}")
    assert not Path("new").exists()


def test_a_warm_start_rates_alike_in_another_unit(home: Path, trained_run: Path) -> None:
    """The last layer is changed, so that a rating predicted in stars is the same one in units of their spread."""
    before = Recommender.load("run").predict([3, 4, 6], [1, 2, 3])
    flags = ["--epochs", "1", "--learning_rate", "1e-9", "--rating_unit", "spread"]
    assert main.main(["--warm_start", "run", "--logdir", "next", *flags]) == 0
    now = Recommender.load("next")
    assert now.scale is not None
    assert not now.scale.is_own_unit
    pd.testing.assert_frame_equal(now.predict([3, 4, 6], [1, 2, 3]), before, atol=1e-4)


@pytest.mark.parametrize("flags", ["--no_shared_embeddings", "--watched_items", "--rating_unit spread"])
def test_changed_ratings_with_any_settings(
    flags: str, home: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: equations 1 and 4 by the tensors of the checkpoint, for a user and an item of the run."""
    data = ["--ratings", str(trained_run / "ratings.csv"), "--columns", "who,film,stars", "--data_dir", "c"]
    assert main.main([*data, *TRAIN, *flags.split(), "--logdir", "other"]) == 0
    then = load_run(Path("other"), {})
    assert then.split is not None
    write(trained_run / "ratings.csv", NOW)
    run, now = trained.read(Path("other")), Recommender.load("other")
    users, items = ids_of(run)
    old = run.network(len(users), len(items)).eval()
    if "watched" in flags:
        rated = sorted({item for user, item, _ in NOW if user == 2 and item in items})
        trained_on = then.split.train
        raters = trained_on.user_ids[trained_on.item_ids == items.index(8)]
        table = parts.factorization_tables(old)
        with torch.no_grad():
            of_user = table.items.weight[[items.index(item) for item in rated]].sum(0) / len(rated) ** 0.5
            of_item = table.users.weight[raters].sum(0) / len(raters) ** 0.5
            table.users.weight[users.index(2)] += of_user
            table.items.weight[items.index(8)] += of_item
    pair = torch.tensor([users.index(2)]), torch.tensor([items.index(8)])
    p, score = old(*pair)
    found = now.predict([2], [8])
    assert now.scale is not None
    assert found["p"][0] == pytest.approx(p.item(), abs=1e-5)
    assert found["stars"][0] == pytest.approx(now.scale.from_units(score.detach(), *pair).clamp(1, 5).item(), abs=1e-4)
    new = now.recommend([40], n=3)
    again = now.recommend_new({item: rating for _, item, rating in NEW_USER}, n=3)
    pd.testing.assert_frame_equal(new.drop(columns="user"), again)


class OwnNetwork(nn.Module):
    """A network with tables of its own: one with further rows, if there is padding."""

    def __init__(self, num_users: int, num_items: int, padding: int = 0) -> None:
        super().__init__()
        self.of_users = nn.Parameter(torch.randn(num_users + padding, 11))
        self.bias = nn.Embedding(num_items, 1)
        self.register_buffer("constant", torch.randn(7))


def test_rows_of_any_network_are_found() -> None:
    old, new = OwnNetwork(3, 4), OwnNetwork(5, 4)
    initial = new.of_users.detach().clone()
    users, items = Rows(torch.tensor([0, 2]), torch.tensor([4, 1])), Rows(torch.tensor([1]), torch.tensor([3]))
    copy_rows(parts.state_of(old), new, users, items, OwnNetwork)
    assert torch.equal(new.of_users[[4, 1]], old.of_users[[0, 2]])
    assert torch.equal(new.of_users[[0, 2, 3]], initial[[0, 2, 3]])
    assert torch.equal(new.bias.weight[3], old.bias.weight[1])
    assert torch.equal(new.state_dict()["constant"], old.state_dict()["constant"])


def test_tables_with_other_rows_are_refused() -> None:
    padded: Callable[[int, int], nn.Module] = functools.partial(OwnNetwork, padding=1)
    rows = Rows(torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(
        ValueError, match=r"of_users of shape .8, 11. for 7 users and 11 items: expected a row for each"
    ):
        copy_rows(parts.state_of(padded(3, 4)), padded(3, 4), rows, rows, padded)


def test_settings_of_a_warm_start_are_its_own() -> None:
    assert set(trained.SHAPE) <= set(Settings().noted())


def test_ratings_in_another_unit_are_refused_and_ratings_that_are_gone_are_named(
    home: Path, trained_run: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    write(trained_run / "ratings.csv", [(user, item, 20 * rating) for user, item, rating in THEN])
    errors = refused("recommend.py", recommend.main, ["--logdir", "run", "--user", "2"])
    assert "are from 20 to 100, and the run was trained on 1 to 5: expected ratings in the same unit" in errors
    write(trained_run / "ratings.csv", [(user, item, rating + 1) for user, item, rating in THEN])
    assert recommend.main(["--logdir", "run", "--user", "2"]) == 0
    lines = (trained_run / "ratings.csv").read_text().splitlines()
    (trained_run / "ratings.csv").write_text("\n".join(line.partition(",")[2] for line in lines))
    capsys.readouterr()
    assert recommend.main(["--logdir", "run", "--user", "2", "--columns", "who,film"]) == 0
    assert "has changed since the run: its ratings are gone; train on with" in capsys.readouterr().err
    stars = Recommender.load("run", {"columns": "who,film"}).recommend()["stars"]
    assert stars.between(1, 5).all()


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("ratings.csv", "ratings.csv, which holds the data of the run"),
        ("./titles.csv", "titles.csv, which holds the data of the run"),
        ("run/metrics.csv", "run/metrics.csv, in the folder of the run"),
    ],
)
def test_a_table_never_overwrites_the_run_or_its_data(
    out: str, says: str, home: Path, trained_run: Path, refused: Refused
) -> None:
    path = (home if out.startswith("run") else trained_run) / out
    before = path.read_bytes()
    assert says in refused("recommend.py", recommend.main, ["--logdir", "run", "--all", "--out", str(path)])
    assert path.read_bytes() == before


def test_a_warm_start_with_ratings_in_another_unit_is_refused(home: Path, trained_run: Path, refused: Refused) -> None:
    write(trained_run / "ratings.csv", [(user, item, 20 * rating) for user, item, rating in THEN])
    errors = refused("main.py", main.main, ["--warm_start", "run", "--logdir", "next"])
    assert "are from 20 to 100, and the run was trained on 1 to 5: expected ratings in the same unit" in errors
    assert not (home / "next").exists()
