"""Grade a models.py by the homework's rubric (``grading/rubric.py``).

    python grader.py                                       # the 8 visible points, for the models.py beside the grader
    python grader.py --hidden                              # all 14 points
    python grader.py 2-4-hidden                            # one check
    python grader.py --submission student/                 # another models.py, or a folder or zip that contains one
    python grader.py --hidden --submission class/*.zip --csv grades.csv
    python grader.py --hidden --submission class/*.zip --rerun-failed grades.csv     # only new or ungraded submissions
    python grader.py --hidden --submission student.zip --json results.json     # for Gradescope

Exit status: 0 if all points of these checks were reached, 1 if not, 2 if the grader could not run.

Each check runs the submission in a new process, which answers questions with plain arrays. The grader compares them
and gives the points. A submission never sees the test ratings or the expected answers, and the operating system denies
it everything else on the machine (``grading/inside/walls.py``). The first line on stderr names the means.
"""

from cli import command

if __name__ == "__main__":  # before the other imports
    command.begin(when_stopped="stopped before the grading began")

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if sys.platform == "win32":
    sys.exit("grader.py: error: Windows cannot confine submissions: use Linux, WSL or macOS")

from tqdm import tqdm

from cli.arguments import Parser, available_cores
from cli.files import check_folder, write_whole
from grading.checks import Check, Split
from grading.pool import Pool, grade, ungraded
from grading.results import Grade, as_csv, from_csv, gradescope, header, label, report, row, table, total
from grading.rubric import HIDDEN, RUBRIC

HERE = Path(__file__).parent
SPLIT_SEED = 5  # its test set is of average difficulty: right networks get metrics near the centers of the bands
TEST_FRACTION = 0.05


def course_split(data_dir: Path) -> Split:
    """Return the training and test sets that all submissions are graded on.

    Raises:
        OSError, ValueError: the data cannot be read.
    """
    import torch  # here, because importing it takes a second, and only the checks that train need it

    import data

    generator = torch.Generator().manual_seed(SPLIT_SEED)
    train, test = data.random_train_test_split(data.load(data_dir), TEST_FRACTION, generator)
    return Split(train, test)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Grade a models.py by the homework's rubric.")
    ids = ", ".join(check.id for check in RUBRIC)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"run only these checks: {ids}")
    flag = parser.add_argument
    flag("--hidden", action="store_true", help="run the hidden checks, too")
    submission = (
        "grade these: each a models.py, or a folder or zip that contains one (default: models.py beside the grader)"
    )
    flag("--submission", type=Path, nargs="+", action="extend", metavar="PATH", help=submission)
    flag("--csv", type=Path, metavar="FILE", help="write the points to this file, one row per submission")
    rerun = "grade only submissions that this table lacks or that could not be graded, and complete the table"
    flag("--rerun-failed", type=Path, metavar="CSV", help=f"{rerun} (in --csv if given)")
    flag("--json", type=Path, metavar="FILE", help="write the results of one submission to this file for Gradescope")
    flag(
        "--jobs", type=int, metavar="N", default=available_cores(), help="run N checks at a time (default: %(default)s)"
    )
    patience = "multiply the time limits by this factor, for slow machines (default: %(default)s)"
    flag("--patience", type=float, metavar="FACTOR", default=1.0, help=patience)
    unconfined = "grade other people's files even if the machine cannot confine them"
    flag("--unconfined", action="store_true", help=unconfined)
    data_dir = "folder of the data, downloaded on first use (default: data, beside the grader)"
    flag("--data_dir", type=Path, metavar="DIR", default=HERE / "data", help=data_dir)
    options = parser.parse_args(arguments)
    # argparse reads checks after --submission as paths: "--submission student.zip 2-4-hidden".
    known = {check.id for check in RUBRIC}
    options.checks += [str(path) for path in options.submission or () if str(path) in known]
    options.submission = [path for path in options.submission or () if str(path) not in known]
    return options


def chosen_checks(options: argparse.Namespace) -> list[Check]:
    """Return the lines of the rubric to run.

    Raises:
        ValueError: a check does not exist, or this folder has no hidden checks.
    """
    if options.hidden and not HIDDEN:
        raise ValueError("--hidden needs the course's own folder: this folder has only the visible checks")
    known = [check.id for check in RUBRIC]
    for name in options.checks:
        if name not in known:
            raise ValueError(f"there is no check {name}: expected one of {', '.join(known)}")
    if options.checks:
        return [check for check in RUBRIC if check.id in options.checks]
    return [check for check in RUBRIC if options.hidden or not check.hidden]


def check_options(options: argparse.Namespace, paths: Sequence[Path]) -> None:
    """Raise ValueError or OSError where the other options cannot be followed."""
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: expected a models.py, or a folder or zip with one")
    if options.json and options.rerun_failed:
        raise ValueError("--json is for one submission, --rerun-failed for several: expected one of the two")
    if options.json and len(paths) > 1:
        raise ValueError(f"--json takes one submission, not {len(paths)}: use --csv for several")
    if options.jobs < 1:
        raise ValueError(f"--jobs is {options.jobs}: expected at least 1")
    if not options.patience > 0:
        raise ValueError(f"--patience is {options.patience}: expected a factor above 0")
    for file in filter(None, (options.csv or options.rerun_failed, options.json)):
        if not file.parent.is_dir() or file.is_dir():
            raise ValueError(f"{file} cannot be written: expected a file in a folder that exists")
        check_folder(file.parent)


def run(options: argparse.Namespace) -> int:
    """Grade the submissions, and return the exit status.

    Raises:
        ValueError, OSError: the grader cannot run.
    """
    started = time.perf_counter()
    checks = chosen_checks(options)
    paths = options.submission or [HERE / "models.py"]
    check_options(options, paths)
    columns = [*header(checks), "problem"]
    rows: dict[str, list[str]] = {}
    if options.rerun_failed:
        rows = {each[0]: each for each in from_csv(options.rerun_failed, columns)}
        paths = [path for path in paths if label(str(path)) not in rows or rows[label(str(path))][-1]]
    with Pool(options.jobs, options.patience, options.unconfined or not options.submission) as pool:
        split = course_split(options.data_dir) if any(check.needs_data for check in checks) else None
        print(f"confined by: {pool.confinement}", file=sys.stderr)
        grades = grade_all(pool, paths, checks, split)
    rows |= {label(graded.name): [*row(graded), " ".join(label(graded.problem).split())] for graded in grades}
    if table_file := options.csv or options.rerun_failed:
        write_whole(as_csv(columns, [*rows.values()]), table_file)
    if options.json:
        results = gradescope(grades[0], time.perf_counter() - started, str(pool.confinement))
        write_whole(json.dumps(results, indent=2).encode(), options.json)
    # Last, so that the files are written even if stdout is a closed pipe.
    most = str(sum(check.points for check in checks))
    full = sum(each[-2] == most for each in rows.values())
    if len(rows) == 1 and grades:
        print(report(grades[0]))
    else:
        print(table([header(checks), *(each[:-1] for each in rows.values())]))
        print(f"{full} of {len(rows)} submissions have all {most} points")
    return 0 if full == len(rows) else 1


def grade_all(pool: Pool, paths: Sequence[Path], checks: Sequence[Check], split: Split | None) -> list[Grade]:
    """Grade submissions one by one. Of several, print each result and the time left."""
    grades: list[Grade] = []
    started = time.perf_counter()
    with tqdm(paths, disable=None if len(paths) > 1 else True, unit="submission") as bar:
        for path in bar:
            try:
                grades.append(grade(pool, path, checks, split))
            except OSError as error:
                if len(paths) == 1:
                    raise
                grades.append(ungraded(path, checks, f"the grader failed: {error}"))
            if len(paths) > 1:
                left = (time.perf_counter() - started) / len(grades) * (len(paths) - len(grades))
                problem = f", {grades[-1].problem}" if grades[-1].problem else ""
                done = f"{label(path.name)}: {total(grades[-1])}{label(problem)}"
                ending = f", about {tqdm.format_interval(left)} left" if len(grades) < len(paths) else ""
                tqdm.write(f"{len(grades)} of {len(paths)}  {done}{ending}", file=sys.stderr)
    return grades


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0 if all points were reached; 1 if not; 2 after one line on stderr with the remedy;
        130 or 143 after Ctrl-C or SIGTERM.
    """
    options = parse_arguments(arguments)
    try:
        return run(options)
    except (ValueError, OSError) as error:
        return command.fail("grader.py", error)


if __name__ == "__main__":
    command.end(main)
