"""A student's folder, filled in exercise by exercise, for the tests of the course."""

import ast
import subprocess
import sys
from pathlib import Path

import handout
from training.exercises import EXERCISES

ROOT = Path(__file__).parent.parent.parent
MODELS = (ROOT / "models.py").read_text("utf-8")


def bodies(source: str = MODELS) -> dict[str, list[str]]:
    """Return the lines of the exercises' functions after their docstrings, by function."""
    lines = source.splitlines(keepends=True)
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return {
        function.name: lines[function.body[1].lineno - 1 : function.end_lineno]
        for function in functions
        if function.name in EXERCISES
    }


def student_folder(path: Path, data_dir: Path) -> Path:
    """Make a student's folder with the data."""
    assert handout.main(["student", str(path)]) == 0
    (path / "data").symlink_to(data_dir)
    return path


def fill_in(folder: Path, *exercises: str) -> None:
    """Fill in the functions of these exercises with our own bodies."""
    models = folder / "models.py"
    text = models.read_text("utf-8")
    for function, body in bodies().items():
        if EXERCISES[function] in exercises:
            emptied = f'        raise NotImplementedError("exercise {EXERCISES[function]}: {function}")\n'
            assert text.count(emptied) == 1
            text = text.replace(emptied, "".join(body))
    models.write_text(text, "utf-8")


def run(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a Python program in a folder."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
