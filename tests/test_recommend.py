"""recommend.py as a user types it."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import Refused

import recommend

ROOT = Path(__file__).parent.parent


def run(script: str, *arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, arguments)],
        cwd=cwd, env={**os.environ, "PYTHONIOENCODING": "utf-8"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder with two runs: of MovieLens 100K, and of somebody's own ratings."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "data").symlink_to(data_dir)
    lines = [f"u{n % 20},film {n % 37},{n % 5 + 1}" for n in range(400)]
    (folder / "mine.csv").write_text("\n".join(["user,item,rating", *lines]))
    assert run("main.py", "--epochs", 2, "--logdir", "run/a", cwd=folder).returncode == 0
    own = ["--ratings", "mine.csv", "--data_dir", "cache"]
    assert run("main.py", "--epochs", 1, "--logdir", "run/own", *own, cwd=folder).returncode == 0
    return folder


def test_users_beside_what_they_rated(home: Path) -> None:
    done = run("recommend.py", "--logdir", "run/a", "--user", 42, 7, "--top", 3, cwd=home)
    assert (done.returncode, done.stderr) == (0, "run/a after epoch 1\n")
    assert [line for line in done.stdout.splitlines() if line.startswith("user")] == ["user 42", "user 7"]
    assert done.stdout.count("rated highest") == 2


@pytest.mark.long
def test_everybody_in_a_table_that_agrees_with_one_user(home: Path) -> None:
    everybody = run("recommend.py", "--logdir", "run/a", "--all", "--out", "all.csv", cwd=home)
    assert everybody.stdout == "9,430 rows in all.csv\n", everybody.stderr
    table = pd.read_csv(home / "all.csv")
    assert table["user"].nunique() == 943
    run("recommend.py", "--logdir", "run/a", "--user", 42, "--out", "one.csv", cwd=home)
    one = pd.read_csv(home / "one.csv")
    both = table[table["user"] == 42].reset_index(drop=True)
    assert one.drop(columns=["p", "stars"]).equals(both.drop(columns=["p", "stars"]))
    assert one["p"].tolist() == pytest.approx(both["p"].tolist(), rel=1e-4)
    pytest.importorskip("pyarrow")
    assert run("recommend.py", "--logdir", "run/a", "--user", 42, "--out", "one.parquet", cwd=home).returncode == 0
    assert pd.read_parquet(home / "one.parquet")["item"].tolist() == one["item"].tolist()


@pytest.mark.long
def test_a_user_named_twice_or_otherwise_comes_once(home: Path) -> None:
    done = run("recommend.py", "--logdir", "run/a", "--user", 42, "042", "--top", 2, cwd=home)
    assert done.stdout.count("rated highest") == 1
    run("recommend.py", "--logdir", "run/a", "--user", 42, "042", "--top", 2, "--out", "twice.csv", cwd=home)
    assert len(pd.read_csv(home / "twice.csv")) == 2
    assert run("recommend.py", "--logdir", "run/a", "--similar", 50, "--top", 2, cwd=home).returncode == 0


@pytest.mark.long
def test_similar_and_new(home: Path) -> None:
    done = run("recommend.py", "--logdir", "run/a", "--similar", "toy story", "--top", 4, cwd=home)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 5), done.stderr
    done = run("recommend.py", "--logdir", "run/a", "--rated", "Toy Story=5", "Heat=2", "--top", 4, cwd=home)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 5), done.stderr
    assert "Toy Story" not in done.stdout


@pytest.mark.long
def test_for_whom_it_works(home: Path) -> None:
    done = run("recommend.py", "--logdir", "run/a", "--quartiles", cwd=home)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 9), done.stderr


@pytest.mark.long
def test_ratings_of_ones_own_with_text_ids(home: Path) -> None:
    own = ["--logdir", "run/own", "--data_dir", "cache", "--ratings", "mine.csv"]
    done = run("recommend.py", *own, "--user", "u3", "--top", 2, cwd=home)
    assert done.returncode == 0, done.stderr
    rated = done.stdout.split("rated highest")[1]
    assert "film" in rated
    assert run("recommend.py", *own, "--rated", "film 3=5", cwd=home).returncode == 0
    changed = (home / "mine.csv").read_text().replace("u3,film 3,4", "u3,film 3,1")
    (home / "other.csv").write_text(changed)
    assert changed != (home / "mine.csv").read_text()
    own[-1] = "other.csv"
    done = run("recommend.py", *own, "--user", "u3", cwd=home)
    assert done.returncode == 2
    assert "was trained on other ratings" in done.stderr.splitlines()[-1]


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
        (
            "--logdir run/own --user u3",
            "was trained on mine.csv: give that file again, as --ratings mine.csv",
        ),
        ("--logdir run/a", "one of the arguments --user --all --similar --rated --quartiles is required"),
    ],
)
def test_what_is_wrong_is_one_line(
    flags: str, says: str, home: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within this process; that of a file of other ratings is one of its own."""
    monkeypatch.chdir(home)
    errors = refused("recommend.py", recommend.main, flags.split())
    lines = [line for line in errors.splitlines() if " after epoch " not in line]
    assert len(lines) == 1
    assert lines[0].startswith("recommend.py: error: ")
    assert says in lines[0]
