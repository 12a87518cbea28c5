"""The folder of the tables that a study writes."""

from pathlib import Path

import pytest

from study.trials import Options, write_tables


@pytest.mark.parametrize(("flags", "folder"), [((), "run/mine.csv"), (("--logdir=b",), "b")])
def test_tables_of_own_ratings_have_a_folder_of_their_own(
    flags: tuple[str, ...], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("user,item,rating\n" + "".join(f"{n},{n % 7},3\n" for n in range(30)))
    monkeypatch.setattr("sys.argv", ["study", "--ratings=mine.csv", *flags])
    assert write_tables("study", "Test.", Options, lambda *_: "table", "table.md") == 0
    assert [path.as_posix() for path in Path().rglob("table.md")] == [f"{folder}/table.md"]


def test_ratings_that_cannot_be_split_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("user,item,rating\n1,2,3\n2,3,4\n")
    monkeypatch.setattr("sys.argv", ["study", "--ratings=mine.csv", "--split=last"])
    assert write_tables("study", "Test.", Options, lambda *_: "table", "table.md") == 2
    assert "study: error: split last needs times" in capsys.readouterr().err
