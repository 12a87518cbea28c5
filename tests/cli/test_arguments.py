"""Paths on the command line: home folders, unknown users, empty strings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Refused

import experiments
import grader
import handout
import main
import recommend
from cli.arguments import Parser, add_options
from datasets.source import DataSource
from study import search

USER = ["--user", "1"]
COMMANDS: dict[str, tuple[Callable[[list[str]], Any], list[str], str]] = {
    "main.py": (main.parse_arguments, [], "logdir ratings titles data_dir"),
    "recommend.py": (recommend.parse_arguments, USER, "logdir out ratings titles data_dir"),
    "experiments.py": (experiments.parse_arguments, [], "logdir data_dir"),
    "grader.py": (grader.parse_arguments, [], "csv json feedback data_dir rerun-failed"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_path_behind_an_equals_sign_may_start_with_a_home_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell replaces ``~`` only where it begins a word."""
    monkeypatch.setenv("HOME", str(tmp_path))
    parse, required, flags = COMMANDS[name]
    for flag in flags.split():
        found = parse([*required, f"--{flag}=~/a/~b"])
        assert getattr(found, flag.replace("-", "_")) == tmp_path / "a" / "~b"
        with pytest.raises(SystemExit, match=r"^2$"):
            parse([*required, f"--{flag}=~nobody123/x"])


def test_paths_without_a_flag_and_lists_of_paths_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert handout.parse_arguments(["student", "~/x"]).path == tmp_path / "x"
    assert grader.parse_arguments(["--submission", "~/x", "y"]).submission == [tmp_path / "x", Path("y")]


def test_names_may_be_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset and a data set of the search are names or files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.json").write_text('{"epochs": 3}')
    options = main.parse_arguments(["--preset=~/mine.json"])
    assert (options.epochs, options.logdir) == (3, Path("run/mine_shared=True_LF=0.99_LR=0.01"))
    parser = Parser("")
    add_options(parser, search.Options)
    found = parser.parse_args(["--sources", "ml-100k", "~/a.csv", "--preset=~/mine.json", "--data_dir=~/data"])
    assert found.sources == ["ml-100k", str(tmp_path / "a.csv")]
    assert (found.preset, found.data_dir) == (str(tmp_path / "mine.json"), tmp_path / "data")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_empty_path_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of ``--logdir "$unset"``; such a run would write into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name])
    parse, required, flags = COMMANDS[name]
    for flag in flags.split():
        with pytest.raises(SystemExit, match=r"^2$"):
            parse([*required, f"--{flag}", ""])
        assert capsys.readouterr().err == (
            f"{name}: error: argument --{flag}: is an empty string: expected a path, or . for the working directory\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_default_stays_as_it_is() -> None:
    parser = Parser("")
    add_options(parser, DataSource)
    assert parser.parse_args([]).data_dir == Path("data")


@pytest.mark.parametrize("flag", ["logdir", "ratings", "titles", "data_dir", "preset"])
def test_the_home_folder_of_an_unknown_user_is_one_line(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused("main.py", main.main, [f"--{flag}=~nobody123/x"]) == (
        f"main.py: error: argument --{flag}: ~nobody123/x is in the home folder of nobody123, "
        "and there is no such user: give another path, or ./~nobody123/x for a path with this name\n"
    )
    assert list(tmp_path.iterdir()) == []
