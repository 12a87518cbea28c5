"""recommend.py as a user types it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import Refused

import main
import recommend

ROOT = Path(__file__).parent.parent
OWN = ["--logdir", "run/own", "--data_dir", "cache", "--ratings"]
Answer = Callable[..., list[str]]


def run(script: str, *arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, arguments)],
        cwd=cwd, env={**os.environ, "PYTHONIOENCODING": "utf-8"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """Return a folder with two runs: on MovieLens 100K, and on a user's own ratings."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "data").symlink_to(data_dir)
    lines = [f"u{n % 20},film {n % 37},{n % 5 + 1}" for n in range(400)]
    (folder / "mine.csv").write_text("\n".join(["user,item,rating", *lines]))
    assert run("main.py", "--epochs", 2, "--logdir", "run/a", cwd=folder).returncode == 0
    own = ["--ratings", "mine.csv", "--data_dir", "cache"]
    assert run("main.py", "--epochs", 1, "--logdir", "run/own", *own, cwd=folder).returncode == 0
    return folder


@pytest.fixture
def answer(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answer:
    """Return the lines that the command prints when it is run in this process."""

    def ask(*arguments: object) -> list[str]:
        monkeypatch.chdir(home)
        status = recommend.main([str(each) for each in arguments])
        output, errors = capsys.readouterr()
        assert status == 0, errors
        return output.splitlines()

    return ask


def test_recommendations_stand_beside_the_items_that_a_user_rated_highest(home: Path) -> None:
    done = run("recommend.py", "--logdir", "run/a", "--user", 42, 7, "--top", 3, cwd=home)
    assert (done.returncode, done.stderr) == (0, "run/a after epoch 1\n")
    assert [line for line in done.stdout.splitlines() if line.startswith("user")] == ["user 42", "user 7"]
    assert done.stdout.count("rated highest") == 2


def test_a_table_of_all_users_agrees_with_that_of_a_single_user(home: Path, answer: Answer) -> None:
    assert answer("--logdir", "run/a", "--all", "--out", "all.csv") == ["9,430 rows in all.csv"]
    table = pd.read_csv(home / "all.csv")
    assert table["user"].nunique() == 943
    answer("--logdir", "run/a", "--user", 42, "--out", "one.csv")
    one = pd.read_csv(home / "one.csv")
    both = table[table["user"] == 42].reset_index(drop=True)
    assert one.drop(columns=["p", "stars"]).equals(both.drop(columns=["p", "stars"]))
    assert one["p"].tolist() == pytest.approx(both["p"].tolist(), rel=1e-4)
    pytest.importorskip("pyarrow")
    answer("--logdir", "run/a", "--user", 42, "--out", "one.parquet")
    assert pd.read_parquet(home / "one.parquet")["item"].tolist() == one["item"].tolist()


def test_a_user_given_twice_is_recommended_to_once(home: Path, answer: Answer) -> None:
    lines = answer("--logdir", "run/a", "--user", 42, "042", "--top", 2)
    assert sum("rated highest" in line for line in lines) == 1
    answer("--logdir", "run/a", "--user", 42, "042", "--top", 2, "--out", "twice.csv")
    assert len(pd.read_csv(home / "twice.csv")) == 2


def test_similar_items_new_users_and_quartiles(answer: Answer) -> None:
    assert len(answer("--logdir", "run/a", "--similar", 50, "--top", 2)) == 3
    assert len(answer("--logdir", "run/a", "--similar", "toy story", "--top", 4)) == 5
    recommended = answer("--logdir", "run/a", "--rated", "Toy Story=5", "Heat=2", "--top", 4)
    assert len(recommended) == 5
    assert not any("Toy Story" in line for line in recommended)
    assert len(answer("--logdir", "run/a", "--quartiles")) == 9


def test_own_ratings_with_strings_as_ids(home: Path, answer: Answer, refused: Refused) -> None:
    lines = answer(*OWN, "mine.csv", "--user", "u3", "--top", 2)
    assert "film" in "".join(lines).split("rated highest")[1]
    assert answer(*OWN, "mine.csv", "--rated", "film 3=5")
    (home / "other.csv").write_text("user,item,rating\na,b,1\nd,c,2\n")
    errors = refused("recommend.py", recommend.main, [*OWN, "other.csv", "--user", "u3"])
    assert "other.csv has no item of the run in run/own, which was trained on mine.csv" in errors.splitlines()[-1]


def test_a_user_whose_ratings_are_gone_is_recommended_to(home: Path, answer: Answer) -> None:
    lines = (home / "mine.csv").read_text().splitlines()
    (home / "fewer.csv").write_text("\n".join(line for line in lines if not line.startswith("u3,")))
    user, *shown = answer(*OWN, "fewer.csv", "--user", "u3", "--top", 2)
    assert user == "user u3"
    assert [line.split("   ")[-1].strip() for line in shown[:2]] == ["watched last", "nothing in these ratings"]
    assert [line.count("film") for line in shown[:3]] == [0, 1, 1]


def test_own_ratings_have_a_run_by_default(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    lines = [f"{n % 5 + 1},u{n % 20},film {n % 37}" for n in range(400)]
    (tmp_path / "in" / "my ratings.csv").write_text("\n".join(lines))
    ratings = ["--ratings", "in/my ratings.csv"]
    assert main.main([*ratings, "--columns", "2,3,1", "--epochs", "1"]) == 0
    assert recommend.main([*ratings, "--columns", "2,3,1", "--user", "u3"]) == 0
    assert "film" in capsys.readouterr().out
    errors = refused("recommend.py", recommend.main, [*ratings, "--columns", "3,2,1", "--user", "u3"])
    assert "my ratings.csv has no item of the run in" in errors
    assert "holds no checkpoint" in refused("recommend.py", recommend.main, ["--user", "u3"])
    assert main.main([*ratings, "--columns", "2,3,1", "--epochs", "1", "--regression_weight", "0.5"]) == 0
    capsys.readouterr()
    (other,) = Path("run").glob("*/*LR=0.5")
    other.with_name("broken").mkdir()
    errors = refused("recommend.py", recommend.main, ["--logdir", str(other.with_name("broken")), "--user", "u3"])
    assert str(other) in errors


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--logdir nowhere --user 1", "nowhere holds no checkpoint"),
        ("--logdir run/a --user 4242", "user 4242 is not in the ratings"),
        ("--logdir run/a --similar stork-zebra", "no title is 'stork-zebra'"),
        ("--logdir run/a --similar star", "titles: "),
        ("--logdir run/a --rated Heat", "rated is 'Heat': expected ITEM=RATING"),
        ("--logdir run/a --rated Heat=9", "Heat is rated 9: expected 1 to 5"),
        ("--logdir run/a --all", "--all is for a table of all users: give --out FILE"),
        ("--logdir run/a --user 1 --top 0", "top is 0: expected at least 1"),
        ("--logdir run/a --user 1 --out x.txt", "out is x.txt: expected a file that ends in .csv or .parquet"),
        ("--logdir run/a --user 1 --out nowhere/x.csv", "nowhere/x.csv cannot be written"),
        ("--logdir run/a --similar heat --include_seen", "--include_seen is for"),
        ("--logdir run/a", "one of the arguments --user --all --similar --rated --quartiles --export is required"),
    ],
)
def test_an_error_is_one_line(
    flags: str, says: str, home: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    errors = refused("recommend.py", recommend.main, flags.split())
    lines = [line for line in errors.splitlines() if " after epoch " not in line]
    assert len(lines) == 1
    assert lines[0].startswith("recommend.py: error: ")
    assert says in lines[0]
