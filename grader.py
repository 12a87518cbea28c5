"""Grade a models.py by the homework's rubric (``grading/rubric.py``).

    python grader.py                                       # the 8 visible points, for the models.py beside the grader
    python grader.py --hidden                              # all 14 points
    python grader.py 2-4-hidden                            # one check
    python grader.py --submission student/                 # another models.py, or a folder or zip that contains one
    python grader.py --hidden --submission class/*.zip --csv grades.csv
    python grader.py --hidden --submission download.zip --csv grades.csv     # a class's download from Canvas or Moodle
    python grader.py --hidden --submission class/*.zip --rerun-failed grades.csv     # only new or ungraded submissions
    python grader.py --hidden --submission class/*.zip --csv grades.csv --feedback pages     # a page for each student
    python grader.py --hidden --submission student.zip --json results.json     # for Gradescope

The files are written after each submission. If the grader is stopped, --rerun-failed grades the others.

Exit status: 0 if all points of these checks were reached, 1 if not, 2 if the grader could not run or finish, 130, 143
or 129 after Ctrl-C, SIGTERM or SIGHUP.

Each check runs the submission in a new process, which answers questions with plain arrays. The grader compares them
and gives the points. A submission never sees the test ratings or the expected answers, and the operating system denies
it everything else on the machine (``grading/inside/walls.py``). The first line on stderr names the means.
"""

from cli import command

if __name__ == "__main__":  # before the other imports
    command.begin(when_stopped="stopped before the grading began", after_bug=2)  # 1 means that points are missing

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

if find_spec("fcntl") is None:
    unsuitable = OSError("this system cannot confine submissions: expected Linux, macOS, or WSL on Windows")
    sys.exit(command.fail("grader.py", unsuitable))

from tqdm import tqdm

from cli.arguments import Parser, available_cores
from cli.files import check_folder, write_whole
from cli.signals import Stopped
from cli.text import one_line
from grading.checks import Check, Split
from grading.pool import Pool, grade
from grading.record import Record
from grading.results import Grade, gradescope, report, shortened, total, ungraded
from grading.rubric import HIDDEN, RUBRIC
from grading.sandbox import Unconfined
from grading.session import readable
from grading.submissions import Upload, read_submission, uploads
from grading.table import header, in_columns, points_of, short_label

HERE = Path(__file__).parent
SPLIT_SEED = 5  # its test set is of average difficulty: right networks get metrics near the centers of the bands
TEST_FRACTION = 0.05
NOT_GRADED = "the grader failed on this submission, which is not graded yet: tell your instructor"  # for its author


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
        "grade these: each a models.py, or a folder or zip that contains one; or one download of a class from Canvas "
        "or Moodle (default: models.py beside the grader)"
    )
    flag("--submission", type=Path, nargs="+", action="extend", metavar="PATH", help=submission)
    table = "write the points to this file, one row per submission, with the first cause and the problem"
    flag("--csv", type=Path, metavar="FILE", help=table)
    rerun = "grade only submissions that this table lacks or that could not be graded, and complete the table"
    flag("--rerun-failed", type=Path, metavar="CSV", help=f"{rerun} (in --csv if given)")
    results = (
        "write the results to this file: of one submission (with no table: of a folder) for Gradescope; of a class by "
        "the names of the submissions"
    )
    flag("--json", type=Path, metavar="FILE", help=results)
    pages = "write a page for each submission's author to this folder, in Markdown and HTML"
    flag("--feedback", type=Path, metavar="DIR", help=pages)
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
    if options.rerun_failed and not options.rerun_failed.exists():
        raise FileNotFoundError(f"{options.rerun_failed} does not exist: expected a table that --csv wrote")
    if options.json and options.json in (options.csv, options.rerun_failed):
        raise ValueError(f"--json is {options.json}, which is the table: expected another file")
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
    paths = [*dict.fromkeys(options.submission or [HERE / "models.py"])]
    check_options(options, paths)
    found = uploads_at(paths, options)
    alone = not options.rerun_failed and [each.name for each in found] == [str(paths[0])]
    record = Record(
        checks,
        table=options.csv or options.rerun_failed,
        results=None if alone else options.json,
        pages=options.feedback,
        earlier=options.rerun_failed,
    )
    todo = [each for each in found if record.lacks(each.name)]
    last = None
    if todo:
        with Pool(options.jobs, options.patience, options.unconfined or not options.submission) as pool:
            split = course_split(options.data_dir) if any(check.needs_data for check in checks) else None
            confined = str(pool.confinement)
            record.begin([each.name for each in todo], confined)
            print(f"confined by: {confined}", file=sys.stderr)
            last = grade_all(pool, todo, checks, split, record)
        if alone and options.json:
            results = gradescope(last, time.perf_counter() - started, confined)
            write_whole(json.dumps(results, indent=2).encode(), options.json)
    else:
        record.begin([])
        print(f"nothing to grade: {one_line(str(options.rerun_failed))} has all of these submissions", file=sys.stderr)
    return summary(record, checks, last)  # last, so that the files are written even if stdout is a closed pipe


def summary(record: Record, checks: Sequence[Check], last: Grade | None) -> int:
    """Print the table, or the report of the only submission if it was graded now; return the exit status."""
    most = str(sum(check.points for check in checks))
    full = [row for row in record.rows.values() if points_of(row) == most]
    if len(record.rows) == 1 and last:
        print(report(last))
    else:
        print(in_columns([header(checks), *record.rows.values()]))
        print(f"{len(full)} of {len(record.rows)} submissions have all {most} points")
    return 0 if len(full) == len(record.rows) else 1


def uploads_at(paths: Sequence[Path], options: argparse.Namespace) -> list[Upload]:
    """Return the submissions at these paths. One path can be a class's download, but not a folder for Gradescope."""
    for_gradescope = options.json and not (options.csv or options.rerun_failed)
    if for_gradescope and len(paths) == 1 and paths[0].is_dir():  # a student's files can look like a download
        return [Upload(str(paths[0]), partial(read_submission, paths[0]))]
    return uploads(paths)


def grade_all(
    pool: Pool, todo: Sequence[Upload], checks: Sequence[Check], split: Split | None, record: Record
) -> Grade:
    """Grade submissions one by one, write each result, and return the last. Of several, print results and time left.

    Raises:
        OSError: the grader failed on each submission, or a file cannot be written.
    """
    several = len(todo) > 1
    started = time.perf_counter()
    done = 0
    failures = 0
    try:
        with tqdm(todo, disable=None if several else True, unit="submission") as bar:
            for upload in bar:
                try:
                    graded = grade(pool, upload, checks, split)
                except Exception as error:
                    failures += 1
                    graded = failed_grade(upload, checks, error)
                record.add(graded)
                done += 1
                if several:
                    left = (time.perf_counter() - started) / done * (len(todo) - done)
                    ending = f", about {tqdm.format_interval(left)} left" if done < len(todo) else ""
                    tqdm.write(f"{done} of {len(todo)}  {in_short(graded)}{ending}", file=sys.stderr)
    finally:
        if several and done < len(todo):
            print(f"{done} of {len(todo)} submissions are graded, {record.how_to_go_on()}", file=sys.stderr)
    if failures == len(todo):
        raise OSError(graded.problem)
    return graded


def failed_grade(upload: Upload, checks: Sequence[Check], error: Exception) -> Grade:
    """Make the grade of a submission on which the grader failed. Print the traceback, unless the system refused."""
    if isinstance(error, (OSError, Unconfined)):
        return ungraded(upload.name, checks, NOT_GRADED, f"the grader failed: {error}")
    tqdm.write(shortened(readable(traceback.format_exc())), file=sys.stderr)
    return ungraded(upload.name, checks, NOT_GRADED, f"the grader failed: {error!r}")


def in_short(graded: Grade) -> str:
    """Give a submission's name and points, and its problem if it could not be graded."""
    problem = f", {graded.problem}" if graded.problem else ""
    return f"{short_label(graded.name)}: {total(graded)}{problem}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0 if all points were reached; 1 if not; 2 after one line on stderr with the remedy;
        130, 143 or 129 after Ctrl-C, SIGTERM or SIGHUP.
    """
    options = parse_arguments(arguments)
    try:
        return run(options)
    except (ValueError, OSError) as error:
        return command.fail("grader.py", error)
    except Stopped as stopped:
        print("stopped", file=sys.stderr, flush=True)
        os._exit(128 + stopped.signal_number)  # without waiting for the checks that still run


if __name__ == "__main__":
    command.end(main)
