"""The homework for a course: the folder that students get, and the zip for Gradescope.

    python handout.py student homework/              # or homework.zip
    python handout.py autograder autograder.zip

``course/student_folder.py`` and ``course/autograder.py`` list the files.
"""

from cli import command

if __name__ == "__main__":  # before the other imports
    command.begin(when_stopped="stopped")

import argparse
from collections.abc import Mapping
from pathlib import Path

from cli.arguments import Parser
from cli.files import check_folder, write_zip
from course.autograder import autograder_files
from course.student_folder import student_files


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(description="Make the folder that students get, or the zip for Gradescope.")
    parser.add_argument("handout", choices=("student", "autograder"), help="for students, or for Gradescope")
    parser.add_argument("path", type=Path, metavar="PATH", help="a new folder or .zip; for the autograder a .zip")
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> None:
    """Raise ValueError or OSError where the handout cannot be written."""
    path: Path = options.path
    if options.handout == "autograder" and path.suffix != ".zip":
        raise ValueError(f"path is {path}: expected a file that ends in .zip")
    if path.is_dir() and path.suffix != ".zip":
        if any(path.iterdir()):
            raise FileExistsError(f"{path} is not empty: expected a new folder, or an empty one")
    elif path.exists():
        raise FileExistsError(f"{path} exists: choose another name, or remove it first")


def write_folder(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files below a folder by their relative paths."""
    check_folder(folder)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 2 after one line on stderr with the remedy.
    """
    options = parse_arguments(arguments)
    try:
        check(options)
        files = student_files() if options.handout == "student" else autograder_files()
        if options.path.suffix == ".zip":
            check_folder(options.path.parent)
            write_zip(files, options.path)
        else:
            write_folder(files, options.path)
    except (ValueError, OSError) as error:
        return command.fail("handout.py", error)
    print(f"{options.path}: {len(files)} files")
    return 0


if __name__ == "__main__":
    command.end(main)
