"""Log folders on file systems that lack something: locks, renaming of the folder, replacing of a file."""

import errno
import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import main
from cli import files
from tracking.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent.parent
CLOSING = re.compile(r"1 epoch \(\d\) in .* logs in logs$")


@pytest.fixture
def ratings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Go to a new folder, and return the arguments of an epoch on a file of ratings there."""
    monkeypatch.chdir(tmp_path)
    files._say_once.cache_clear()
    lines = [f"{n % 20},{n % 37},{n % 5 + 1}" for n in range(400)]
    (tmp_path / "mine.csv").write_text("\n".join(["user,item,rating", *lines]))
    return ["--ratings=mine.csv", "--device=cpu", "--logdir=logs"]


def train(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Train to the end, and return the lines on stderr, without those about the ratings."""
    assert main.main(arguments) == 0
    output, errors = capsys.readouterr()
    assert CLOSING.search(output.strip())
    return [line for line in errors.splitlines() if "ratings of" not in line]


def refuse(number: int) -> Any:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_run_continues_without_locks(
    number: int, ratings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    assert train([*ratings, "--epochs=1"], capsys) == [
        f"logs is on a file system without locks ({os.strerror(number)}): make sure that no other process writes there"
    ]
    assert train([*ratings, "--epochs=2", "--resume"], capsys)[-1] == "resuming logs after epoch 0"


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EACCES])
def test_an_earlier_run_moves_into_a_folder_that_cannot_be_renamed(
    number: int, ratings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.is_dir():
            raise OSError(number, os.strerror(number))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    assert train([*ratings, "--epochs=1"], capsys) == []
    Path("logs/other").mkdir()
    first = Path("logs/checkpoint.pt").read_bytes()
    for number in (1, 2):
        assert train([*ratings, "--epochs=1"], capsys) == [
            f"logs holds a run: moved to logs/earlier.{number}, because the folder cannot be renamed"
        ]
        assert load_checkpoint(Path(f"logs/earlier.{number}")) is not None
        assert len(list(Path("logs").glob("events*"))) == 1
    assert Path("logs/earlier.1/checkpoint.pt").read_bytes() == first
    assert Path("logs/other").is_dir()


def test_a_file_that_cannot_be_replaced_is_overwritten(
    ratings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace = Path.replace

    def refused(path: Path, target: Path) -> Path:
        if target.exists():
            raise OSError(errno.EBUSY, "Device or resource busy")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refused)
    assert train([*ratings, "--epochs=1"], capsys) == [
        "files in logs cannot be replaced (Device or resource busy), and are overwritten: "
        "one may be damaged if this process is killed"
    ]
    assert train([*ratings, "--epochs=2", "--resume"], capsys) == ["resuming logs after epoch 0"]
    found = load_checkpoint(Path("logs"))
    assert found is not None
    assert len(found.history) == 2
    assert len(Path("logs/metrics.csv").read_text().splitlines()) == 3
    assert not list(Path("logs").glob(".*.*"))


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Return the mount point of a file system in memory."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a file system")
    folder = tmp_path / "logs"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.long
def test_the_log_folder_may_be_a_mount_point(
    ratings: list[str], mounted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*ratings, "--epochs=1"], capsys) == []
    assert train([*ratings, "--epochs=2", "--resume"], capsys) == ["resuming logs after epoch 0"]
    assert train([*ratings, "--epochs=1"], capsys) == [
        "logs holds a run: moved to logs/earlier.1, because the folder cannot be renamed"
    ]
    assert load_checkpoint(mounted / "earlier.1") is not None
