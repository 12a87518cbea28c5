"""Hostile submissions gain nothing, leave nothing, and take nothing from the next submission.

    python -m pytest tests/grading/test_hostile.py                   # three checks for most of them
    python -m pytest -m long tests/grading/test_hostile.py           # a check of each part of the rubric
    python -m pytest -m exhaustive tests/grading/test_hostile.py     # all checks but training

The submissions are in submissions/hostile.py.
"""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hostile import QUICK, TRICKS, Trick
from memory import memory_below
from sandbox_processes import processes_of
from wrong import COURSE, name_of

from grading.pool import Pool, grade
from grading.results import Grade
from grading.rubric import RUBRIC
from grading.submissions import uploads

CHECKS = {name_of(check): check for check in RUBRIC}
MEMORY = 2**25  # bytes of the grader itself
HASTE = 0.15  # patience with submissions that hang
BRIEF, FEW = "1a-0 1a-2 2-4", "1a-0 1a-2 1b-1 2-4 2-6"  # the first one of these can be lost, not gained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the sandboxes, which must be empty in the end."""
    folder = tmp_path_factory.mktemp("sandboxes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield folder
        torch.set_num_threads(threads)
    assert list(folder.iterdir()) == []
    assert processes_of(folder) == []


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[Pool]:
    with Pool(jobs=2) as pool:
        yield pool


def failed(graded: Grade) -> dict[str, str]:
    """Return the messages of the failed checks."""
    return {name_of(result.check): result.message for result in graded.results if not result.passed}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_gains_nothing(trick: Trick, names: str, pool: Pool, folder: Path, submission: Path) -> None:
    """Check that a trick fails exactly its checks, leaves no trace, and costs the next submission no points."""
    for name, content in trick.files.items():
        (submission / name).parent.mkdir(parents=True, exist_ok=True)
        (submission / name).write_text(content)
    before = contents(submission)
    with memory_below(MEMORY):
        graded = grade(pool, uploads([submission])[0], [CHECKS[name] for name in names.split()], None)
    for result in graded.results:
        assert result.seconds < result.check.seconds * pool.patience + 2
    messages = failed(graded)
    assert set(messages) == set(names.split()) & set(trick.fails.split()), messages
    for check in set(messages) - {"1a-2", "2-4", "2-5", "2-7"}:
        assert re.search(trick.says, messages[check]), messages[check]
    assert contents(submission) == before
    assert len(processes_of(folder)) <= 2, "more than the wardens"
    assert [path for path in folder.glob("*/*") if path.name != "grading"] == []
    assert pool.submit(CHECKS["1a-2"], {"models.py": COURSE.encode()}, None).result().passed


QUICK_TRICKS = [trick for trick in TRICKS if trick.checks == QUICK]
CASES = [
    *(pytest.param(trick, BRIEF, id=trick.name) for trick in QUICK_TRICKS),
    *(pytest.param(trick, trick.checks, id=trick.name) for trick in TRICKS if trick not in QUICK_TRICKS),
    *(pytest.param(trick, FEW, id=f"{trick.name}, few", marks=pytest.mark.long) for trick in QUICK_TRICKS),
    *(pytest.param(trick, QUICK, id=f"{trick.name}, all", marks=pytest.mark.exhaustive) for trick in QUICK_TRICKS),
]


@pytest.mark.parametrize(("trick", "names"), CASES)
def test_hostile(
    trick: Trick, names: str, folder: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pool, "patience", HASTE if trick.hangs else 1.0)
    assert_gains_nothing(trick, names, pool, folder, tmp_path)
