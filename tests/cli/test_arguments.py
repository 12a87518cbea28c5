"""Paths on the command line: home folders, unknown users, empty strings."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Refused

import experiments
import grader
import handout
import main
import recommend
import tune
from cli.arguments import Parser, add_options, flags_of, options_of
from cli.options import option
from datasets.source import DataSource

USER = ["--user", "1"]
COMMANDS: dict[str, tuple[Callable[[list[str]], Any], list[str], str]] = {
    "main.py": (main.parse_arguments, [], "logdir ratings titles data_dir"),
    "recommend.py": (recommend.parse_arguments, USER, "logdir out ratings titles data_dir"),
    "experiments.py": (experiments.parse_arguments, [], "logdir data_dir"),
    "tune.py": (tune.parse_arguments, [], "logdir ratings titles data_dir"),
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
    """A preset is a name or a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.json").write_text('{"epochs": 3}')
    options = main.parse_arguments(["--preset=~/mine.json"])
    assert (options.epochs, options.logdir) == (3, Path("run/mine_shared=True_LF=0.99_LR=0.01"))
    assert tune.parse_arguments(["--preset=~/mine.json"]).preset == str(tmp_path / "mine.json")


@dataclass(frozen=True)
class Some:
    """Options of each kind."""

    number: float = option(0.5, "a number")
    yes: bool = option(True, "a boolean")
    no: bool = option(False, "another one")
    path: Path | None = option(None, "a path", parse=Path)
    several: tuple[float, ...] = option((), "several numbers", parse=float, several=True)


@pytest.mark.parametrize(
    "options", [Some(), Some(-0.25, False, True, Path("a b"), (-1.0, 2.0)), Some(path=Path("-x"), several=(0.0,))]
)
def test_the_flags_of_options_give_the_same_options(options: Some) -> None:
    parser = Parser("")
    add_options(parser, Some)
    found = options_of(Some, parser.parse_args(flags_of(options)))
    assert dataclasses.replace(found, several=tuple(found.several)) == options
    assert flags_of(Some()) == []
    assert flags_of(options, ["number"]) == ([f"--number={options.number}"] if options.number != 0.5 else [])


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
