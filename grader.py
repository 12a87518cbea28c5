"""Grade a models.py against the homework's rubric (``grading/rubric.py``).

    python grader.py                                       # the 8 basic points, on the models.py beside it
    python grader.py --hidden                              # all 14
    python grader.py 2-4-hidden                            # one check
    python grader.py --submission student/                 # another models.py, a folder or a zip that holds one
    python grader.py --hidden --submission class/*.zip --csv grades.csv
    python grader.py --hidden --submission class/*.zip --rerun-failed grades.csv     # what is new, or was not graded
    python grader.py --hidden --submission student.zip --json results.json     # for Gradescope

Exit status: 0 when all points asked for were reached, 1 when not, 2 when the grader could not run.

A submission runs in processes of its own, a new one for each check, which answer questions with plain arrays; the
points are given here. They never see the ratings of the test side or what is expected of them, and the operating system
denies them everything else on the machine (``grading/confinement.py``). By what means is said first, on stderr.
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
    sys.exit("grader.py: error: submissions are kept apart by means that Windows lacks: use Linux, WSL or macOS")

from tqdm import tqdm

from cli.arguments import Parser, available_cores
from cli.files import check_folder, write_whole
from grading.checks import Check, Split
from grading.pool import Pool, grade, ungraded
from grading.results import Grade, as_csv, from_csv, gradescope, header, label, report, row, table, total
from grading.rubric import HIDDEN, RUBRIC

HERE = Path(__file__).parent
SPLIT_SEED = 5  # one whose test side is of middling difficulty: its figures are near the middle of the bands
TEST_FRACTION = 0.05


def course_split(data_dir: Path) -> Split:
    """The two sides on which everyone is graded.

    Raises:
        OSError, ValueError: the data cannot be had.
    """
    import torch  # here, because it takes a second, and only the checks that train need it

    import data

    sides = data.random_train_test_split(data.load(data_dir), TEST_FRACTION, torch.Generator().manual_seed(SPLIT_SEED))
    return Split(*sides)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(description="Grade a models.py against the homework's rubric.")
    ids = ", ".join(check.id for check in RUBRIC)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"run only these: {ids}")
    flag = parser.add_argument
    flag("--hidden", action="store_true", help="the hidden checks too")
    flag("--submission", type=Path, nargs="+", action="extend", metavar="PATH", help="a models.py, or a folder or zip")
    flag("--csv", type=Path, metavar="FILE", help="write the points here, a row a submission")
    rerun = "grade what is not in this table or could not be graded, and complete it (in --csv, where that is given)"
    flag("--rerun-failed", type=Path, metavar="CSV", help=rerun)
    flag("--json", type=Path, metavar="FILE", help="write the results of one submission here, as Gradescope wants them")
    flag("--jobs", type=int, default=available_cores(), help="checks at a time (%(default)s)")
    flag("--patience", type=float, default=1.0, help="factor of the time limits, for slow machines (%(default)s)")
    flag("--unconfined", action="store_true", help="grade files of others where the machine cannot confine them")
    flag("--data_dir", type=Path, default=HERE / "data", help="folder for the data (data, beside the grader)")
    options = parser.parse_args(arguments)
    # What follows --submission may be checks: "--submission student.zip 2-4-hidden".
    known = {check.id for check in RUBRIC}
    options.checks += [str(path) for path in options.submission or () if str(path) in known]
    options.submission = [path for path in options.submission or () if str(path) not in known]
    return options


def run(options: argparse.Namespace) -> int:
    """Grade what the options say; returns the exit status.

    Raises:
        ValueError, OSError: the grader cannot run.
    """
    started = time.perf_counter()
    if options.hidden and not HIDDEN:
        raise ValueError("--hidden is for the course's own folder: this folder has only the visible checks")
    known = {check.id: check for check in RUBRIC}
    for name in options.checks:
        if name not in known:
            raise ValueError(f"there is no check {name}: expected one of {', '.join(known)}")
    checks = [c for c in RUBRIC if (c.id in options.checks if options.checks else options.hidden or not c.hidden)]
    paths = options.submission or [HERE / "models.py"]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: expected a models.py, or a folder or zip that holds one")
    if options.json and options.rerun_failed:
        raise ValueError("--json is for one submission, --rerun-failed for several: expected one of the two")
    if options.json and len(paths) > 1:
        raise ValueError(f"--json takes one submission, not {len(paths)}: for several there is --csv")
    if options.jobs < 1 or not options.patience > 0:
        raise ValueError(f"jobs is {options.jobs} and patience {options.patience}: expected at least 1 and above 0")
    table_file = options.csv or options.rerun_failed
    for file in filter(None, (table_file, options.json)):
        if not file.parent.is_dir() or file.is_dir():
            raise ValueError(f"{file} cannot be written: expected a file in a folder that exists")
        check_folder(file.parent)
    rows: dict[str, list[str]] = {}
    if options.rerun_failed:
        rows = {each[0]: each for each in from_csv(options.rerun_failed, [*header(checks), "problem"])}
        paths = [path for path in paths if label(str(path)) not in rows or rows[label(str(path))][-1]]
    with Pool(options.jobs, options.patience, options.unconfined or not options.submission) as pool:
        split = course_split(options.data_dir) if any(check.needs_data for check in checks) else None
        print(f"confined by: {pool.confinement}", file=sys.stderr)
        grades = grade_all(pool, paths, checks, split)
    rows |= {label(graded.name): [*row(graded), " ".join(label(graded.problem).split())] for graded in grades}
    most = str(sum(check.points for check in checks))
    full = sum(each[-2] == most for each in rows.values())
    if table_file:
        write_whole(as_csv([*header(checks), "problem"], [*rows.values()]), table_file)
    if options.json:
        results = gradescope(grades[0], time.perf_counter() - started, str(pool.confinement))
        write_whole(json.dumps(results, indent=2).encode(), options.json)
    # Last, so that the files are there even if nobody reads this.
    if len(rows) == 1 and grades:
        print(report(grades[0]))
    else:
        print(table([header(checks), *(each[:-1] for each in rows.values())]))
        print(f"{full} of {len(rows)} submissions have all {most} points")
    return 0 if full == len(rows) else 1


def grade_all(pool: Pool, paths: Sequence[Path], checks: Sequence[Check], split: Split | None) -> list[Grade]:
    """Grade one submission after the other; of several, say how each has done and how long the others will take."""
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
        Exit status: 0 when all points were reached; 1 when not; 2 after one line on stderr that says what to change;
        130 or 143 after Ctrl-C or SIGTERM.
    """
    options = parse_arguments(arguments)
    try:
        return run(options)
    except (ValueError, OSError) as error:
        return command.fail("grader.py", error)


if __name__ == "__main__":
    command.end(main)
