"""tune.py as a user types it: several processes and terminals, kills, its files, its errors."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Refused
from optuna import Study
from optuna.trial import TrialState

import main
import tune
from cli.signals import Stopped
from data import synthetic
from study import findings, tuning, workers
from training.settings import preset

LOGDIR = Path("run/my search")
Start = Callable[..., "subprocess.Popen[str]"]
FLAGS = ["--ratings=mine ☆.csv", "--columns=1,2,3", "--split=user", "--seed=2", f"--logdir={LOGDIR}"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with ratings in it."""
    monkeypatch.chdir(tmp_path)
    made = synthetic(num_users=40, num_items=60, num_interactions=500, seed=1)
    columns = (made.user_ids.tolist(), made.item_ids.tolist(), made.ratings.tolist())
    Path("mine ☆.csv").write_text("".join(f"{u},{i},{rating:g}\n" for u, i, rating in zip(*columns, strict=True)))
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Return a function that starts the command; at the end of the test no process is left."""
    started: list[subprocess.Popen[str]] = []

    def run(*flags: str) -> "subprocess.Popen[str]":
        command = [sys.executable, str(ROOT / "tune.py"), *FLAGS, *flags]
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def study_when(ready: Callable[[Study], bool]) -> Study:
    """Wait until the study exists and is ready."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (LOGDIR / tuning.STORAGE).exists():
            with tuning.alone(LOGDIR):
                study = tuning.open_study(LOGDIR)
            if ready(study):
                return study
        time.sleep(0.05)
    raise TimeoutError


def is_running(study: Study) -> bool:
    running = study.get_trials(states=(TrialState.RUNNING,))
    return any(trial.intermediate_values for trial in running)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


@pytest.mark.long
def test_two_terminals_share_a_search_that_ends_with_a_preset_for_main(start: Start) -> None:
    both = [start("--trials=9", "--jobs=1") for _ in range(2)]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    study = study_when(lambda _: True)
    assert [trial.number for trial in study.get_trials() if "preset" in trial.user_attrs] == [0]
    assert len(tuning.ended(study)) in (9, 10)  # both may begin the last one at the same moment
    table, _, end = outputs[0][0].partition("\n\n")
    assert "| setting | preset | best | importance |" in table
    rate = re.escape(str(preset("tuned")["learning_rate"]))
    shares = findings.importances(study)  # {} where too many of the nine were pruned, as the processes' order decides
    share = f"{shares['learning_rate']:.0%}" if shares else "–"
    row = re.compile(rf"\| learning_rate \| {rate} \| 0\.\d+ \| {share} \|")
    assert any(row.search(output) for output, _ in outputs)  # of the process that ended last, which knows all trials
    best = study.best_trial
    assert f"trial {best.number}, validation MRR {best.user_attrs['validation']['mrr']:.4f}, MSE " in end
    assert json.loads((LOGDIR / "tuned.json").read_text()) == preset("tuned") | best.user_attrs["changes"]
    assert (LOGDIR / "tuned.png").read_bytes().startswith(b"\x89PNG")
    python, script, *flags = shlex.split(end.partition("and test: ")[2])
    assert (python, script) == ("python", "main.py")
    options = main.parse_arguments(flags)
    assert (options.split, options.seed, options.test_fraction, options.validation_fraction) == ("user", 2, 0.05, 0.0)
    assert (str(options.ratings), options.columns) == ("mine ☆.csv", "1,2,3")
    assert all(getattr(options, name) == value for name, value in best.user_attrs["changes"].items())
    trained = subprocess.run([sys.executable, ROOT / script, *flags, "--epochs=1"], capture_output=True, check=False)
    assert trained.returncode == 0, trained.stderr
    assert (LOGDIR / "tuned" / "metrics.csv").exists()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_processes_neither_stop_the_search_nor_leave_anything_behind(start: Start) -> None:
    process = start("--trials=3", "--jobs=2")
    study_when(is_running)
    workers_of_first = children(process.pid)
    assert len(workers_of_first) == 2
    os.kill(workers_of_first[0], signal.SIGKILL)
    assert process.stderr is not None
    while "a process was killed by SIGKILL: its settings are tried again" not in (line := process.stderr.readline()):
        assert line
    replaced = children(process.pid)
    process.kill()
    process.communicate()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{each}").exists() for each in {*workers_of_first, *replaced}):
        assert time.monotonic() < until
        time.sleep(0.1)
    # The same command ends, although a trial of the killed process was running. It is tried again.
    resumed = start("--trials=3", "--jobs=2")
    _, errors = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, errors
    study = study_when(lambda _: True)
    assert study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING)) == []
    assert len(tuning.ended(study)) in (3, 4)
    assert any("preset" in trial.user_attrs for trial in study.get_trials(states=(TrialState.COMPLETE,)))


@pytest.mark.long
def test_ctrl_c_says_how_to_resume_and_marks_the_running_trials(start: Start) -> None:
    process = start("--jobs=1")
    study = study_when(is_running)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert errors.endswith(f"stopped; resume with: {shlex.join(['python', str(ROOT / 'tune.py'), *FLAGS])} --jobs=1\n")
    assert study.get_trials(states=(TrialState.RUNNING,)) == []
    assert len(study.get_trials(states=(TrialState.WAITING,))) == 1


def raises(error: BaseException) -> Callable[..., None]:
    def function(*_: object) -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "status"), [(Stopped(signal.SIGTERM), 143), (workers.Failed(), 1), (OSError("disk full"), 2)]
)
def test_the_exit_status_is_that_of_the_other_commands(
    error: BaseException, status: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "run", raises(error))
    assert tune.main(FLAGS) == status


def test_without_matplotlib_only_the_picture_is_missing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("short.json").write_text('{"epochs": 1, "seed": 5}')
    monkeypatch.setattr(workers, "run", lambda search, *_: tuning.work(search, 0))
    monkeypatch.setattr(findings, "draw", raises(ImportError()))
    assert tune.main([*FLAGS, "--trials=1", "--preset=short.json"]) == 0
    output, errors = capsys.readouterr()
    assert "tuned.png needs matplotlib: pip install -r requirements-dev.txt, then run this again\n" in errors
    assert f"\ntune.db and tuned.json are in {LOGDIR}; " in output
    # The seed is in the command.
    assert json.loads((LOGDIR / "tuned.json").read_text()) == {"epochs": 1, "rating_unit": "auto"}
    assert "--seed=2" in output


def test_without_a_finished_trial_there_is_no_preset(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "run", lambda *_: None)
    assert tune.main(FLAGS) == 2
    assert not (LOGDIR / "tuned.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--trials 0", "trials is 0: expected at least 1"),
        ("--minutes 0", "minutes is 0.0: expected a positive number"),
        ("--jobs 0", "jobs is 0: expected at least 1"),
        ("--preset nothing", "preset nothing is not there: expected homework, tuned, or a JSON file of settings"),
        ("--validation_fraction 1", "validation_fraction is 1.0: expected a number from 0 to below 1"),
        ("--split last", "split last needs times"),
        ("--columns 1,2,9", "line 1: has 3 columns"),
        ("--device tpu", "device tpu cannot be used"),
        ("--epochs 3", "unrecognized arguments: --epochs 3"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(flags: str, message: str, home: Path, refused: Refused) -> None:
    errors = refused("tune.py", tune.main, [*FLAGS, *flags.split()])
    assert re.search(r"^tune\.py: error: [^\n]+\n\Z", errors, re.MULTILINE), errors
    assert message in errors


def test_without_optuna_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "optuna").mkdir()
    (tmp_path / "optuna" / "__init__.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, ROOT / "tune.py"], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tune.py: error: Optuna is not installed: pip install -r requirements-tune.txt\n"
