"""The zip for Gradescope: the grader with all its checks, and two scripts."""

from course.student_folder import ROOT, room_files

TOP = ("grader.py", "data.py", "metrics.py", "requirements.txt", "LICENSE")
ROOMS = ("cli", "datasets", "grading")
SCRIPTS = ("setup.sh", "run_autograder")


def autograder_files() -> dict[str, bytes]:
    """Collect the contents of the zip's files by their paths in it: no solution, no tests, no training."""
    files = {name: (ROOT / "course" / "gradescope" / name).read_bytes() for name in SCRIPTS}
    return files | {name: (ROOT / name).read_bytes() for name in TOP} | room_files(ROOMS)
