"""Run the visible checks, and make submission.zip.

    python hand_in.py

The zip contains models.py, Python files of your own beside it, answers.md, and for each finished run in run/ its
metrics and its TensorBoard file. If something is missing, a line names it, and the zip is made without it.

Exit status: 0 if nothing is missing, 1 if something is, 2 if no zip could be made.
"""

from cli import command

if __name__ == "__main__":  # before the other imports
    command.begin(when_stopped="stopped")

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from cli.arguments import Parser
from cli.files import write_zip
from grading.submissions import FILE, Unreadable, read_submission
from tracking.checkpoint import METRICS
from tracking.folder import EVENTS
from training.settings import folder_name

HERE = Path(__file__).parent
SUBMISSION = "submission.zip"
ANSWERS = "answers.md"
QUESTIONS = 4
EPOCHS = 200
EXPERIMENTS = ((True, 0.99, 0.01), (True, 0.5, 0.5), (False, 0.5, 0.5), (False, 0.99, 0.01))  # shared, λ_F, λ_R


def failed_checks() -> list[str]:
    """Run the visible checks, which print their points, and name those that fail."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        subprocess.run([sys.executable, HERE / "grader.py", "--json", results], cwd=HERE, check=False)
        if not results.exists():
            return ["the visible checks, which could not run"]
        tests = json.loads(results.read_text("utf-8"))["tests"]
    return [f"the points of check {test['name']}" for test in tests if test["status"] != "passed"]


def own_files() -> dict[str, bytes]:
    """Read models.py and the Python files that were not handed out, by their paths.

    Raises:
        Unreadable: models.py is missing, or a file is too large.
        OSError: a file cannot be read.
    """
    if not (HERE / FILE).is_file():
        raise Unreadable(f"{FILE} is missing: expected it beside hand_in.py")
    return read_submission(HERE / FILE).files


def unanswered(answers: str) -> list[str]:
    """Name the questions without an answer below their headings; comments do not count."""
    written = re.sub(r"<!--.*?-->", "", answers, flags=re.DOTALL)
    sections = re.split(r"^## Question (\d+).*", written, flags=re.MULTILINE)
    texts = dict(zip(sections[1::2], sections[2::2], strict=True))
    numbers = map(str, range(1, QUESTIONS + 1))
    return [f"an answer to question {number} in {ANSWERS}" for number in numbers if not texts.get(number, "").strip()]


def epochs_of(run: Path) -> int:
    """Count the epochs of a run's folder; 0 where there is none."""
    metrics = run / METRICS
    return max(0, len(metrics.read_text("utf-8").splitlines()) - 1) if metrics.exists() else 0


def missing_experiments() -> list[str]:
    """Name the experiments that have not finished."""
    epochs = {name: epochs_of(HERE / "run" / name) for name in (folder_name(*each) for each in EXPERIMENTS)}
    return [f"the experiment run/{name}: {n} of {EPOCHS} epochs" for name, n in epochs.items() if n < EPOCHS]


def finished_runs() -> dict[str, bytes]:
    """Read the metrics and the event files of all finished runs, by their paths."""
    runs = [path.parent for path in sorted(HERE.glob(f"run/*/{METRICS}")) if epochs_of(path.parent) >= EPOCHS]
    paths = [path for run in runs for path in (run / METRICS, *sorted(run.glob(f"{EVENTS}*")))]
    return {path.relative_to(HERE).as_posix(): path.read_bytes() for path in paths}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0 if nothing is missing; 1 if something is; 2 after one line on stderr if no zip could be made.
    """
    Parser(description="Run the visible checks and make submission.zip.").parse_args(arguments)
    try:
        files = own_files() | finished_runs()
        if (HERE / ANSWERS).is_file():
            files[ANSWERS] = (HERE / ANSWERS).read_bytes()
        answers = files.get(ANSWERS, b"").decode("utf-8", "replace")
        unwritten = unanswered(answers) if ANSWERS in files else [f"the file {ANSWERS}"]
        missing = [*failed_checks(), *unwritten, *missing_experiments()]
        write_zip(files, HERE / SUBMISSION)
    except (Unreadable, ValueError, OSError) as error:
        return command.fail("hand_in.py", error)
    for line in missing:
        print(f"missing: {line}")
    print(f"{SUBMISSION} is made; {f'missing: {len(missing)}' if missing else 'nothing is missing'}")
    return 1 if missing else 0


if __name__ == "__main__":
    command.end(main)
