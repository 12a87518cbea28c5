"""The examples of docs/changing.md, each applied to a copy of the repository where its commands are run.

An example consists of the ``diff`` blocks up to the next block of commands, that block, and the output in the ``text``
block after it, where … stands for anything. A diff changes one file: its lines that begin with a blank or "-" occur in
the file exactly once, and are replaced by the lines that begin with a blank or "+". A diff with "+" alone makes a file.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "changing.md").read_text()
METRIC_FILES = {"tracking/metric_table.py", "train.py"}
NOT_COPIED = ("run", "data", ".*", "__pycache__", "*.zip", "*.png")


class Example(NamedTuple):
    """A worked example of the page."""

    heading: str
    diffs: tuple[str, ...]
    commands: str
    output: str

    def __str__(self) -> str:
        return self.heading

    @property
    def files(self) -> set[str]:
        """Return the files that the example changes."""
        return {diff.split()[1] for diff in self.diffs}


def examples() -> list[Example]:
    """Return the examples in the order of the page."""
    found = []
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        diffs: list[str] = []
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            if kind == "diff":
                diffs.append(block)
            elif kind == "" and diffs:
                found.append(Example(section.splitlines()[0], tuple(diffs), block, ""))
                diffs = []
            elif kind == "text" and found:
                found[-1] = found[-1]._replace(output=block)
        assert not diffs, f"{section.splitlines()[0]}: a diff without commands"
    return found


EXAMPLES = examples()
COMMANDS = [re.sub(r"\s+#.*", "", line) for each in EXAMPLES for line in each.commands.splitlines()]


def apply(diff: str, folder: Path) -> None:
    """Apply a diff to a file in a copy of the repository."""
    header, *lines = diff.splitlines(keepends=True)
    path = folder / header.removeprefix("--- ").strip()
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    if old == "":
        assert not path.exists(), f"{path}: a diff of this file has no line to begin from"
        path.parent.mkdir(parents=True)
        path.write_text(new)
        return
    before = path.read_text()
    assert before.count(old) == 1, f"{path} has {before.count(old)} times:\n{old}"
    path.write_text(before.replace(old, new))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the repository."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return folder


def run(line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-ec", line], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip


def test_the_page_has_an_example_for_each_thing_that_is_added() -> None:
    assert len(EXAMPLES) >= 5
    assert all(each.output for each in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_example_can_be_applied_and_has_no_mistake_that_ruff_finds(example: Example, copy: Path) -> None:
    for diff in example.diffs:
        apply(diff, copy)
    python = " ".join(name for name in example.files if name.endswith(".py"))
    done = run(f"ruff check {python} && ruff format --check {python}", copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_example_does_what_the_page_says(example: Example, copy: Path, data_dir: Path) -> None:
    (copy / "data").mkdir()
    for path in data_dir.iterdir():
        if path.name != "cache":
            (copy / "data" / path.name).symlink_to(path.absolute())
    for diff in example.diffs:
        apply(diff, copy)
    done = run(example.commands, copy)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    for line in example.output.splitlines():
        expected = ".*".join(re.escape(part.strip()) for part in line.split("…"))
        assert re.search(expected, output), f"{line}\nis not in\n{output}"


@pytest.mark.long
@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.files >= METRIC_FILES], ids=str)
@pytest.mark.parametrize(
    ("left_out", "says"),
    [
        (
            "tracking/metric_table.py",
            "is computed but has no row: add it to EpochMetrics or CLOSING in tracking/metric_table.py",
        ),
        ("train.py", "of tracking/metric_table.py is not computed: add it to MEASURES in train.py"),
    ],
)
def test_an_incomplete_metric_is_one_line_before_training(
    left_out: str, says: str, example: Example, copy: Path, data_dir: Path
) -> None:
    for diff in example.diffs:
        if not diff.startswith(f"--- {left_out}\n"):
            apply(diff, copy)
    done = run(f"python main.py --data_dir '{data_dir.absolute()}' --logdir new", copy)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"main\.py: error: metric \w+ {re.escape(says)}\n", done.stderr), done.stderr
    assert not (copy / "new" / "metrics.csv").exists()
