"""A class for the grader's command, and the files that grading it leaves: table, results and pages."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MODELS = (ROOT / "models.py").read_text()
CHECKS = ["1a-0-basic", "1a-2-basic"]
WRONG = MODELS.replace("ZeroEmbedding(num_items", "ScaledEmbedding(num_items")
HOSTILE = "<script>alert(1)</script>"
CLASS = {
    "class/right.py": MODELS,
    "class/syntax.py": "x = 1\ndef f(:\n    pass\n",
    "class/wrong.py": f"{WRONG}\nprint('{HOSTILE}')\n",
    "class/name.py": f"{MODELS}\nundefined\n",
    "=cmd|' -C calc'!A0.py": MODELS,
    os.fsdecode(b"class/\xff\xfe.py"): WRONG,
    "class/empty.py": "",
}
assert WRONG != MODELS
CAUSE = "1a-2-basic: the item bias starts with numbers other than 0: expected zeros. Likely cause: not a ZeroEmbedding"
UNDEFINED = f"NameError, line {len(MODELS.splitlines()) + 2}: name 'undefined' is not defined"
ROWS = [
    ["class/right.py", "1", "1", "2", "", ""],
    ["class/syntax.py", "0", "0", "0", "", "SyntaxError, line 2: invalid syntax"],
    ["class/wrong.py", "1", "0", "1", CAUSE, ""],
    ["class/name.py", "0", "0", "0", "", UNDEFINED],
    ["'=cmd|' -C calc'!A0.py", "1", "1", "2", "", ""],
    ["class/\\udcff\\udcfe.py", "1", "0", "1", CAUSE, ""],
    ["class/empty.py", "0", "0", "0", "", "models.py has no class MultiTaskNet"],
]
SCORES = {row[0].removeprefix("'"): int(row[3]) for row in ROWS}  # only a table needs the first "'"
NAMES = [
    "right.py",
    "syntax.py",
    "wrong.py",
    "name.py",
    "=cmd%7C%27 -C calc%27%21A0.py",
    "%5Cudcff%5Cudcfe.py",
    "empty.py",
]
PAGES = {f"{name}.{ending}" for name in NAMES for ending in ("md", "html")}


def make_class(folder: Path) -> Path:
    """Write the submissions of a class into a folder, and return it."""
    (folder / "class").mkdir()
    for name, code in CLASS.items():
        (folder / name).write_text(code)
    return folder


def command(flag: str, csv_file: str, feedback: str = "pages", results: str = "results.json") -> list[str]:
    files = [flag, csv_file, "--feedback", feedback, "--json", results]
    return [sys.executable, str(ROOT / "grader.py"), *CHECKS, "--submission", *CLASS, *files]


def run(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def results_of(path: Path) -> dict[str, Any]:
    """Read the results of a class without their times."""
    found: dict[str, Any] = json.loads(path.read_text())["submissions"]
    for result in found.values():
        assert result.pop("execution_time") >= 0
    return found


def scores_of(results: dict[str, Any]) -> dict[str, int]:
    return {name: result["score"] for name, result in results.items()}


def pages_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}
