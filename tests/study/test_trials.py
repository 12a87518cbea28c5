"""The folder of the tables that a study writes."""

from pathlib import Path

import pytest

from study.trials import Options, write_tables


@pytest.mark.parametrize(("flags", "folder"), [((), "run/mine.csv"), (("--logdir=b",), "b")])
def test_tables_of_own_ratings_have_a_folder_of_their_own(
    flags: tuple[str, ...], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("user,item,rating\n1,2,3\n2,3,4\n")
    monkeypatch.setattr("sys.argv", ["study", "--ratings=mine.csv", *flags])
    assert write_tables("study", "Test.", Options, lambda *_: "table", "table.md") == 0
    assert [path.as_posix() for path in Path().rglob("table.md")] == [f"{folder}/table.md"]
