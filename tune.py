"""A search for settings on ratings of your own, scored on a validation set.

    python tune.py --ratings mine.csv                                        # 50 trials, or half an hour
    python main.py --ratings mine.csv --preset run/mine.csv/tuned.json

The first trial is the preset that the search starts from. The test set is not used. The search can be stopped,
resumed, and run in several terminals, because all of it is in LOGDIR/tune.db. At the end LOGDIR/tuned.json has the best
settings, and LOGDIR/tuned.png shows the trials.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the search began")

import argparse
import json
import shlex
import sys
import time
from dataclasses import dataclass
from typing import NoReturn

from tqdm import tqdm

from cli.arguments import Parser, add_options, flags_of, name_or_path, options_of
from cli.files import check_folder, write_whole
from cli.options import option
from cli.signals import Stopped, stoppable
from datasets.source import DataSource, folder_of_runs

try:
    from optuna import Study
except ImportError:
    print("tune.py: error: Optuna is not installed: pip install -r requirements-tune.txt", file=sys.stderr)
    sys.exit(2)

import data
from study import findings, trials, tuning, workers
from study.trials import ManyRuns
from study.tuning import Search
from tracking.record import progress_bar
from train import evaluation_of
from training import setup
from training.settings import Settings, preset
from training.splits import check_rule

PRESET, PICTURE = "tuned.json", "tuned.png"
OF_COMMAND = ("seed", "split", "test_fraction")  # settings that the command for main.py repeats
FIXED = (*OF_COMMAND, "rating_unit", "eval_users")
VALIDATION_FRACTION = 0.1


@dataclass(frozen=True)
class Options(ManyRuns):
    """The options of the command, beside those of the ratings and the split."""

    trials: int = option(50, "number of trials of the search in all", metavar="N", least=1)
    minutes: float = option(30.0, "minutes after which the command ends, if there are not enough trials earlier",
                            metavar="N", above=0)  # fmt: skip
    preset: str = option("tuned", "preset that the search starts from", metavar="NAME|FILE", parse=name_or_path)
    validation_fraction: float = option(
        0.0, "share of the ratings outside the test set that trials are scored on", metavar="SHARE", least=0, below=1,
        default_help=f"{VALIDATION_FRACTION}, or the data's own validation set",
    )  # fmt: skip
    device: str = option("auto", "cuda, mps, cpu, or auto: the first there is", metavar="NAME")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the flags; ``--preset`` changes the defaults of the others."""
    parser = Parser("Search the settings of a preset for your ratings, on a validation set.")
    add_options(parser, Options)
    add_options(parser, Settings, FIXED)
    add_options(parser, DataSource)
    parser.set_defaults(logdir=None)
    name = parser.parse_args(arguments).preset
    try:
        parser.set_defaults(**preset(name))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    flags = parser.parse_args(arguments)
    flags.logdir = flags.logdir or folder_of_runs(flags.ratings)
    return flags


def set_up(flags: argparse.Namespace, options: Options, source: DataSource) -> tuple[Search, Study]:
    """Read and split the ratings, train nothing yet, and open the study.

    Raises:
        ValueError, OSError: a flag, the ratings, models.py or the log folder cannot be used.
    """
    check_folder(options.logdir)
    setup.use_one_thread()
    setup.flush_denormals()
    device = setup.pick_device(options.device)
    check_rule(source, Settings(split=flags.split))
    interactions = trials.read(source)
    fixed = {name: getattr(flags, name) for name in FIXED}
    parts = interactions.parts if flags.split == "auto" else None
    has_validation = parts is not None and bool((parts == data.VALIDATION).any())
    fixed["validation_fraction"] = options.validation_fraction or (0.0 if has_validation else VALIDATION_FRACTION)
    start = Settings(**preset(options.preset) | fixed)
    train, validation, _ = setup.split(interactions, start)
    assert validation is not None
    trainer = setup.make_trainer(start, train, device)
    evaluation = evaluation_of(trainer, validation)
    for line in filter(None, (*trainer.notices, evaluation.notice)):
        print(line, file=sys.stderr)
    fixed["eval_users"] = evaluation.ranked  # the same in all trials, for networks of any size
    search = Search(
        options.logdir, source, preset(options.preset), fixed, tuning.are_rated(train, validation), options.trials,
        time.time() + 60 * options.minutes, device,
    )  # fmt: skip
    if not search.rates:
        print("there are no ratings that vary: trials are scored by log(MRR)", file=sys.stderr)
    with tuning.alone(options.logdir):
        study = tuning.open_study(options.logdir)
        tuning.prepare(study, search, train, validation)
    return search, study


class Progress:
    """A bar of the trials on a terminal, and a line on stderr for each trial that is better than those before."""

    def __init__(self, study: Study, search: Search, bar: "tqdm[NoReturn]") -> None:
        self.study, self.search, self.bar = study, search, bar
        self.best = findings.best_trial(study)
        self.ended = {trial.number for trial in tuning.ended(study)}

    def __call__(self) -> None:
        left = f"{max(0.0, self.search.until - time.time()) / 60:.0f} min left"
        for trial in tuning.ended(self.study):
            if trial.number not in self.ended and "reason" in trial.user_attrs:
                self.say(f"trial {trial.number} is left out: {trial.user_attrs['reason']}")
            self.ended.add(trial.number)
        best = findings.best_trial(self.study)
        if best is not None and (self.best is None or best.number != self.best.number):
            self.best = best
            self.say(f"{findings.described(self.study, best)}; {left}")
        if self.best is not None:
            left = f"best {findings.metrics(self.best)}; {left}"
        self.bar.set_postfix_str(left, refresh=False)
        self.bar.update(len(self.ended) - self.bar.n)

    def say(self, line: str) -> None:
        self.bar.write(line, file=sys.stderr)


def report(study: Study, search: Search) -> None:
    """Print the best trial, and write its settings and the picture.

    Raises:
        ValueError: no trial has a score.
        OSError: a file cannot be written.
    """
    best = findings.best_trial(study)
    if best is None:
        reasons = [trial.user_attrs["reason"] for trial in tuning.ended(study) if "reason" in trial.user_attrs]
        raise ValueError(f"no trial has a score: {reasons[0] if reasons else 'give it more --minutes'}")
    logdir, source = search.logdir, search.source
    found = search.preset | {"rating_unit": search.settings({}).rating_unit} | best.user_attrs["changes"]
    values = {name: value for name, value in found.items() if name not in OF_COMMAND}
    write_whole(f"{json.dumps(values, indent=4)}\n".encode(), logdir / PRESET)
    written = f"{tuning.STORAGE} and {PRESET}"
    try:
        write_whole(findings.draw(study, search, best), logdir / PICTURE)
        written = f"{tuning.STORAGE}, {PRESET} and {PICTURE}"
    except ImportError:
        print(f"{PICTURE} needs matplotlib: pip install -r requirements-dev.txt, then run this again", file=sys.stderr)
    print(findings.report(study, search, best))
    again = [
        *("python", "main.py", f"--preset={logdir / PRESET}", f"--logdir={logdir / 'tuned'}"),
        *flags_of(source),
        *flags_of(search.settings({}), OF_COMMAND),
    ]
    print(f"{written} are in {logdir}; train with these settings, and test: {shlex.join(again)}")


def run(flags: argparse.Namespace) -> int:
    """Search and report; returns the exit status."""
    try:
        options, source = options_of(Options, flags), options_of(DataSource, flags)
        search, study = set_up(flags, options, source)
        done = tuning.ended(study)
        if done:
            print(f"{len(done)} trials are finished already; --trials {search.trials} in all", file=sys.stderr)
        with progress_bar(search.trials, len(done)) as bar:
            workers.run(search, options.jobs, Progress(study, search, bar))
        report(study, search)
    except (ValueError, OSError) as error:
        return command.fail("tune.py", error)
    except workers.Failed:
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0; 2 after one line on stderr with the remedy; 1 after a process had an error, which is on stderr;
        130, 143 or 129 after Ctrl-C, SIGTERM or SIGHUP.
    """
    flags = parse_arguments(arguments)
    try:
        with stoppable():
            return run(flags)
    except Stopped as stopped:
        print(f"stopped; resume with: {shlex.join(['python', *sys.argv])}", file=sys.stderr)
        return 128 + stopped.signal_number


if __name__ == "__main__":
    command.end(main)
