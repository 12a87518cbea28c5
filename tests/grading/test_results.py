"""Causes in words, and results that are said once."""

from pathlib import Path

import pytest

from grading.checks import Check
from grading.inside.worker import describe
from grading.results import Grade, Result, first_cause, gradescope, in_words, report, ungraded

CHECKS = [Check(name, 1, f"title of {name}", lambda ask, split: None) for name in ("1-basic", "2-basic", "3-hidden")]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"models.py": "x = 1\ndef f(:\n  pass"}, "SyntaxError, line 2: invalid syntax"),
        ({"models.py": "def f():\nx = 1"}, "IndentationError, line 2: expected an indented block after function"),
        ({"models.py": "y = 0\n\nx"}, "NameError, line 3: name 'x' is not defined"),
        ({"models.py": "def f():\n    x\nf()"}, "NameError, line 2: name 'x' is not defined"),
        ({"models.py": "import helper"}, "ModuleNotFoundError, line 1: No module named 'helper'"),
        ({"models.py": "import helper", "helper.py": "\n1 ++"}, "SyntaxError, helper.py, line 2: invalid syntax"),
        ({"models.py": "import helper", "helper.py": "\n1 / 0"}, "ZeroDivisionError, helper.py, line 2: division by"),
        ({"models.py": "assert False"}, "AssertionError, line 1"),
        ({"models.py": "raise ValueError('one\\n  two, line 7\\nthree')"}, "ValueError, line 1: one two, line 7 three"),
        ({"models.py": "exit(3)"}, "SystemExit, line 1: 3"),
        ({"models.py": "raise ValueError('\\x1b[31m\\u202e')"}, "ValueError, line 1: \\x1b[31m\\u202e"),
    ],
)
def test_the_cause_of_an_exception_is_one_line(
    files: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exceptions are real ones, described as in a worker."""
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "models.py"
    with pytest.raises((Exception, SystemExit)) as caught:
        exec(compile(path.read_text(), str(path), "exec"), {"exit": exit})
    found = in_words(describe(caught.value, str(tmp_path)))
    assert found.startswith(words)
    assert len(found) < len(words) + 30
    assert found.isprintable()


def test_a_message_of_a_check_is_kept_within_bounds() -> None:
    assert in_words("expected (2, 1), found (1,).\nLikely cause: x") == "expected (2, 1), found (1,). Likely cause: x"
    assert len(in_words("expected " + "x" * 10_000)) == 299
    assert in_words("a\x00b\ud800c\u200d") == "a\\x00b\\ud800c\\u200d"


def results(*messages: str) -> tuple[Result, ...]:
    return tuple(Result(check, not said, 1.0, said) for check, said in zip(CHECKS, messages, strict=True))


def test_the_first_cause_names_the_check_and_begins_with_the_note() -> None:
    assert first_cause(Grade("a", results("", "", ""))) == ""
    assert first_cause(Grade("a", results("", "two", "three"))) == "2-basic: two"
    assert first_cause(Grade("a", results("", "two", "three"), note="cells of a notebook")) == (
        "cells of a notebook; 2-basic: two"
    )
    failed = ungraded("a", CHECKS, "there is none", note="cells of a notebook")
    assert (first_cause(failed), failed.problem) == ("", "cells of a notebook; there is none")


def test_a_problem_is_said_once() -> None:
    failed = ungraded("a", CHECKS, "  models.py, line 3, in <module>: x\nNameError: x is odd", printed="hi\nho")
    assert failed.problem == "NameError, line 3: x is odd"
    lines = report(failed).splitlines()
    assert lines[-5:] == [
        "      models.py, line 3, in <module>: x",
        "    NameError: x is odd",
        "    | hi",
        "    | ho",
        "0 / 3 points",
    ]
    assert len(lines) == len(CHECKS) + 5
    found = gradescope(failed, 1.0, "walls")
    assert found["output"] == (
        "0 / 2 points in the visible checks\n"
        "  models.py, line 3, in <module>: x\nNameError: x is odd\nYour code printed:\nhi\nho"
    )
    assert [test["output"] for test in found["tests"]] == ["", "", ""]
    assert found["extra_data"] == {"confined_by": "walls", "problem": failed.problem}


def test_students_are_not_told_of_walls() -> None:
    for graded in (Grade("a", results("", "two", ""), note="note"), ungraded("a", CHECKS, "m", problem="walls failed")):
        found = gradescope(graded, 1.0, "walls")
        assert found["extra_data"]["confined_by"] == "walls"
        assert "walls" not in found["output"] + report(graded)
        assert all("walls" not in str(test) for test in found["tests"])
