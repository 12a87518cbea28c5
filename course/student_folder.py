"""The student's folder: the homework without its solution, its hidden checks and its answers."""

from fnmatch import fnmatch
from pathlib import Path

from course.starter import starter
from grading.submissions import HANDED_OUT

ROOT = Path(__file__).parent.parent
TOP = ("main.py", "train.py", "data.py", "metrics.py", "grader.py", "requirements.txt", "LICENSE")
ROOMS = ("cli", "datasets", "tracking", "training", "grading")
TEXTS = ("HOMEWORK.md", "homework.ipynb", "answers.md", "hand_in.py")
# Patterns of the hidden checks, and of the fast steps, which spell out equations 1 and 4 and their gradients.
WITHHELD = ("grading/hidden*.py", "training/fused*.py", "training/tuned*.py")


def student_files() -> dict[str, bytes]:
    """Collect the contents of the folder's files by their paths in it.

    The last file lists the others, so that ``hand_in.py`` can tell them from a student's own.

    Raises:
        ValueError: the starter cannot be made from ``models.py``.
    """
    files = {"models.py": starter((ROOT / "models.py").read_text("utf-8")).encode()}
    files |= {name: (ROOT / "course" / name).read_bytes() for name in TEXTS}
    files |= {name: (ROOT / name).read_bytes() for name in TOP}
    files |= {name: content for name, content in room_files(ROOMS).items() if not is_withheld(name)}
    return files | {HANDED_OUT: "".join(f"{name}\n" for name in files).encode()}


def is_withheld(name: str) -> bool:
    """Tell whether students do not get the file of this path in the project."""
    return any(fnmatch(name, pattern) for pattern in WITHHELD)


def room_files(rooms: tuple[str, ...]) -> dict[str, bytes]:
    """Collect the Python files and the presets of rooms by their paths in the project."""
    paths = (path for room in rooms for path in sorted((ROOT / room).rglob("*")) if path.suffix in (".py", ".json"))
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
