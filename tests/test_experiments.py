"""experiments.py as a user types it: runs, skipped and resumed runs, reports, failures."""

import csv
import dataclasses
import functools
import itertools
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import ROOT, Refused
from runs import same_result

import data
import experiments as module
import main
from cli.arguments import options_of
from cli.signals import Stopped
from datasets.source import DataSource
from study import processes
from study.four_experiments import EXPERIMENTS, Run
from tracking.checkpoint import load_checkpoint
from tracking.folder import RunFolder
from training import setup
from training.settings import Settings

FOLDERS = (
    "shared=True_LF=0.99_LR=0.01",
    "shared=True_LF=0.5_LR=0.5",
    "shared=False_LF=0.5_LR=0.5",
    "shared=False_LF=0.99_LR=0.01",
)


class Experiments(NamedTuple):
    """A small run of experiments.py."""

    logdir: Path
    done: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Experiments:
    """Run four experiments with two seeds and four epochs. A test that changes their files uses a copy."""
    logdir = tmp_path_factory.mktemp("experiments") / "run"
    return Experiments(logdir, run(logdir, data_dir))


def command(logdir: Path, data_dir: Path, *flags: str) -> list[str]:
    shared = ["--epochs=4", "--seeds=2", "--jobs=2", f"--logdir={logdir}", f"--data_dir={data_dir}"]
    return [sys.executable, str(ROOT / "experiments.py"), *shared, *flags]


def run(
    logdir: Path, data_dir: Path, *flags: str, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(logdir, data_dir, *flags), capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **(env or {})},
    )  # fmt: skip


def rows(logdir: Path) -> dict[tuple[str, ...], dict[str, str]]:
    with (logdir / "summary.csv").open() as file:
        return {(row["kind"], row["name"], row["metric"], row["at"]): row for row in csv.DictReader(file)}


def state(logdir: Path) -> dict[Path, tuple[int, int]]:
    """Return the inode and the time of the last change of each file of the runs."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in logdir.glob("*/*/*")}


@pytest.fixture
def copy(experiments: Experiments, tmp_path: Path) -> Path:
    assert experiments.done.returncode == 0, experiments.done.stderr
    return Path(shutil.copytree(experiments.logdir, tmp_path / "run"))


@pytest.mark.long
def test_the_four_experiments_over_seeds(experiments: Experiments) -> None:
    logdir, done = experiments
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.parent.name for path in logdir.glob("*/*/")} == set(FOLDERS)
    for name, seed in itertools.product(FOLDERS, (0, 1)):
        checkpoint = load_checkpoint(logdir / name / f"seed={seed}")
        assert checkpoint is not None
        settings = checkpoint.run.settings
        weights = f"LF={settings['factorization_weight']}_LR={settings['regression_weight']}"
        assert f"shared={settings['shared_embeddings']}_{weights}" == name
        assert (len(checkpoint.history), settings["seed"]) == (4, seed)
    tables = (logdir / "summary.md").read_text()
    assert done.stdout.startswith(tables)
    assert done.stdout[len(tables) :].strip() == (
        f"summary.md, summary.csv and summary.png are in {logdir}; the curves: tensorboard --logdir {logdir}"
    )
    assert (logdir / "summary.png").read_bytes().startswith(b"\x89PNG")
    # The summary agrees with the metrics.csv of the runs.
    lines = [(logdir / FOLDERS[0] / f"seed={seed}" / "metrics.csv").read_text().splitlines() for seed in (0, 1)]
    last = [float(line[-1].split(",")[lines[0][0].split(",").index("test_mrr")]) for line in lines]
    row = rows(logdir)["experiment", "shared, 0.99 / 0.01", "test_mrr", "last"]
    assert float(row["mean"]) == pytest.approx(sum(last) / 2, rel=1e-12)
    assert (row["epoch"], row["seeds"]) == ("3.0", "2")


@pytest.mark.long
@pytest.mark.parametrize("epochs", [4, 2])
def test_finished_runs_are_skipped_and_only_the_requested_epochs_count(epochs: int, copy: Path, data_dir: Path) -> None:
    before = state(copy)
    done = run(copy, data_dir, f"--epochs={epochs}")
    assert (done.returncode, done.stderr) == (0, "8 of 8 runs are finished already\n")
    assert state(copy) == before
    found = rows(copy)
    assert {row["epoch"] for key, row in found.items() if key[-1] == "last" and row["epoch"]} == {f"{epochs - 1}.0"}
    histories = [load_checkpoint(copy / FOLDERS[1] / f"seed={seed}") for seed in (0, 1)]
    mse = [history.history[epochs - 1][1] for history in histories if history]
    mean = float(found["experiment", "shared, 0.5 / 0.5", "training_mse", "last"]["mean"])
    assert mean == pytest.approx(sum(mse) / 2, rel=1e-12)


@pytest.mark.long
def test_a_run_that_was_stopped_before_its_closing_metrics_is_resumed(
    experiments: Experiments, copy: Path, data_dir: Path
) -> None:
    folder = copy / FOLDERS[2] / "seed=1"
    checkpoint = load_checkpoint(folder)
    assert checkpoint is not None
    dataclasses.replace(checkpoint, closing=()).save(folder)
    assert run(copy, data_dir).stderr == "7 of 8 runs are finished already\n"
    assert same_result(folder, experiments.logdir / FOLDERS[2] / "seed=1")


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str] | None" = None) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert process is None or process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)


def more_than(checkpoints: int, logdir: Path) -> bool:
    return len(list(logdir.glob("*/*/checkpoint.pt"))) > checkpoints


def none_runs(logdir: Path) -> bool:
    """Return whether no process holds the folder of a run."""
    try:
        for path in logdir.glob("*/*/"):
            RunFolder(path).__exit__()
    except BlockingIOError:
        return False
    return True


@pytest.mark.exhaustive
def test_runs_that_were_killed_and_stopped_end_bit_identical(
    experiments: Experiments, tmp_path: Path, data_dir: Path
) -> None:
    logdir = tmp_path / "run"
    for number in (signal.SIGKILL, signal.SIGTERM):
        if number == signal.SIGKILL and sys.platform != "linux":
            continue  # elsewhere a run outlives its parent
        before = len(list(logdir.glob("*/*/checkpoint.pt")))
        with subprocess.Popen(
            command(logdir, data_dir, "--seeds=1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            wait_until(functools.partial(more_than, before, logdir), process)
            process.send_signal(number)
            output, errors = process.communicate(timeout=20)
        assert output == ""
        if number == signal.SIGKILL:
            wait_until(lambda: none_runs(logdir))
        else:
            assert process.returncode == 128 + number
            assert re.search(r"^stopped; resume with: python \S*experiments\.py [^\n]*--seeds=1\n\Z", errors, re.M)
            assert none_runs(logdir)
        checkpoints = [load_checkpoint(path.parent) for path in logdir.glob("*/*/checkpoint.pt")]
        assert any(checkpoint and len(checkpoint.history) < 4 for checkpoint in checkpoints)
        assert not (logdir / "summary.md").exists()
    assert run(logdir, data_dir, "--seeds=1").returncode == 0
    for name in FOLDERS:
        assert [path.name for path in (logdir / name).iterdir()] == ["seed=0"]
        assert same_result(logdir / name / "seed=0", experiments.logdir / name / "seed=0")


@pytest.mark.long
def test_runs_that_fail_are_reported_and_the_others_finish(
    experiments: Experiments, copy: Path, data_dir: Path
) -> None:
    damaged, other, locked, absent = (copy / name / f"seed={i % 2}" for i, name in enumerate(FOLDERS))
    (damaged / "checkpoint.pt").write_bytes(b"damaged")
    shutil.rmtree(other)
    shutil.copytree(copy / FOLDERS[1] / "seed=0", other)
    (locked / "checkpoint.pt").unlink()
    shutil.rmtree(absent)
    before = {path: path.read_bytes() for folder in (damaged, other, locked) for path in folder.iterdir()}
    with RunFolder(locked):
        done = run(copy, data_dir)
    assert done.returncode == 1
    first, heading, *lines = done.stderr.splitlines()
    assert (first, heading) == ("4 of 8 runs are finished already", "3 of 8 runs failed:")
    for folder, reason in (
        (damaged, "checkpoint.pt is damaged or not a checkpoint: "),
        (other, "holds a run with other settings: seed was 0, now 1"),
        (locked, "another run is writing to "),
    ):
        assert sum(line.startswith(f"  {folder}: ") and reason in line for line in lines) == 1
    assert len(lines) == 3
    assert {path: path.read_bytes() for folder in (damaged, other, locked) for path in folder.iterdir()} == before
    assert same_result(absent, experiments.logdir / absent.parent.name / absent.name)
    found = rows(copy)
    seeds = {key[1]: int(row["seeds"]) for key, row in found.items() if key[2:] == ("test_mse", "last")}
    assert seeds == {
        "shared, 0.99 / 0.01": 1,
        "shared, 0.5 / 0.5": 1,
        "separate, 0.5 / 0.5": 1,
        "separate, 0.99 / 0.01": 2,
        "shared minus separate, 0.99 / 0.01": 1,  # seed 1
        "0.99 / 0.01 minus 0.5 / 0.5, separate": 1,
        # "shared minus separate, 0.5 / 0.5" and the difference of shared embeddings lack seed 0 of one experiment
    }
    assert all(row["sd"] == row["ci_low"] == row["ci_high"] == "" for row in found.values() if row["seeds"] == "1")
    assert "nan" not in done.stdout


@pytest.mark.long
def test_a_folder_with_another_study_is_refused_before_training(
    tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{n % 20},{n % 37},{n % 5 + 1}\n" for n in range(400)]
    (tmp_path / "mine.csv").write_text("user,item,rating\n" + "".join(lines))
    study = [
        "--ratings",
        str(tmp_path / "mine.csv"),
        "--data_dir",
        str(tmp_path),
        "--logdir",
        str(tmp_path / "run"),
        "--epochs",
        "1",
        "--jobs",
        "2",
    ]
    assert module.command_line([*study, "--seeds", "1"]) == 0
    before = (tmp_path / "run" / "summary.md").read_bytes()
    capsys.readouterr()
    for more, said in (("--split user", "split was auto, now user"), ("--unrated 3", "unrated was not given, now 3.0")):
        errors = refused("experiments.py", module.command_line, [*study, "--seeds", "2", *more.split()])
        assert said in errors.splitlines()[-1]
        assert errors.splitlines()[-1].endswith(": give another logdir, or the same settings")
    assert (tmp_path / "run" / "summary.md").read_bytes() == before


class Pretender:
    """A stand-in for the process of a run, which ends at its third poll, or at once if it fails."""

    alive, most = 0, 0

    def __init__(self, arguments: Sequence[str]) -> None:
        self.process, self.looks, self.fails = self, 0, any("seed=2" in each for each in arguments)
        Pretender.alive += 1
        Pretender.most = max(Pretender.most, Pretender.alive)

    def poll(self) -> int | None:
        self.looks += 1
        if self.looks < 3 and not self.fails:
            return None
        Pretender.alive -= 1
        return 0

    def failure(self) -> str | None:
        return "failed" if self.fails else None


@pytest.mark.parametrize("jobs", [1, 3, 100])
def test_at_most_jobs_runs_at_a_time(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Child", Pretender)
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.0)
    Pretender.alive = Pretender.most = 0
    every = [Run(EXPERIMENTS[0], seed, tmp_path / f"seed={seed}") for seed in range(7)]
    assert processes.run_all(every, jobs, 20) == {every[2]: "failed"}
    assert (Pretender.alive, Pretender.most) == (0, min(jobs, 7))


def test_the_default_number_of_jobs_is_the_number_of_available_cores() -> None:
    options = module.parse_arguments([])
    assert options.jobs == (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count())
    del options.jobs
    assert (options.epochs, options.seeds, options.logdir) == (200, 5, Path("run"))
    assert options_of(DataSource, options) == DataSource()
    assert module.parse_arguments(["--folds=3"]).seeds == 3
    assert module.parse_arguments(["--folds=3", "--seeds=6", "--ratings=a/b.csv"]).logdir == Path("run/b.csv")


def test_a_run_gives_main_its_ratings_and_its_split() -> None:
    """The flags give ``main.py`` the settings and the ratings that the command looks for afterwards."""
    source = DataSource(ratings=Path("my file.csv"), columns="1,2,3", unrated=(-1.0, 0.0), data_dir=Path("cache"))
    for rule in (Settings(folds=3), Settings(split="user", test_fraction=0.2)):
        for experiment in EXPERIMENTS:
            run = Run(experiment, 4, Path("a b"), 7, source, rule)
            options = main.parse_arguments(run.arguments())
            assert options_of(Settings, options) == run.settings
            assert options_of(DataSource, options) == source
            assert (options.logdir, options.resume) == (Path("a b"), True)
            assert (run.settings.folds, run.settings.split) == (rule.folds, rule.split)


@pytest.mark.long
@pytest.mark.parametrize("rated", [True, False])
def test_folds_of_ratings_of_ones_own(rated: bool, tmp_path: Path) -> None:
    lines = [f"{n % 20},{n * 7 % 31}" + f",{n % 9 * 10}" * rated for n in range(300)]
    (tmp_path / "mine.csv").write_text("\n".join(["user,item" + ",rating" * rated, *lines]))
    flags = ["--ratings=mine.csv", "--folds=2", "--epochs=2", "--jobs=2"]
    done = subprocess.run(
        [sys.executable, ROOT / "experiments.py", *flags], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    logdir = tmp_path / "run" / "mine.csv"
    assert {path.name for path in logdir.glob("*/*/")} == {"fold=0", "fold=1"}
    assert ("MSE" in done.stdout) == rated
    assert ("the experiments train the ranking alone" in done.stderr) == (not rated)
    assert "The test set of each seed is a fold." in done.stdout
    assert (logdir / "summary.png").exists()
    tested = {row["mean"] for key, row in rows(logdir).items() if key[2:] == ("test_mrr", "last")}
    assert len(tested) > 1
    again = subprocess.run(
        [sys.executable, ROOT / "experiments.py", *flags], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "8 of 8 runs are finished already" in again.stderr
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    ("rule", "note"),
    [
        (Settings(folds=2), "The test set of each seed is a fold."),
        (Settings(split="last"), "All seeds have the same test set"),
        (Settings(split="user"), ""),
    ],
)
def test_the_tables_say_how_the_test_sets_are_related(rule: Settings, note: str) -> None:
    interactions = data.synthetic(num_users=20, num_items=40, num_interactions=200)
    interactions = dataclasses.replace(interactions, times=torch.arange(200.0, dtype=torch.float64))
    splits = [setup.split(interactions, dataclasses.replace(rule, seed=seed)) for seed in (0, 1)]
    prints = {seed: split.fingerprint for seed, split in enumerate(splits)}
    assert module.note_on_sets(prints, rule.folds).startswith(note)
    assert bool(module.note_on_sets(prints, rule.folds)) == bool(note)


def test_if_all_runs_fail_there_is_no_summary(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "run_all", lambda unfinished, *_: dict.fromkeys(unfinished, "no luck"))
    assert module.command_line([f"--logdir={tmp_path}", f"--data_dir={data_dir}", "--seeds=1"]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.splitlines() == [
        "4 of 4 runs failed:", *(f"  {tmp_path / name / 'seed=0'}: no luck" for name in FOLDERS)
    ]  # fmt: skip
    assert not list(tmp_path.glob("summary*"))


def raises(error: BaseException) -> Callable[..., None]:
    def function(*_: object) -> None:
        raise error

    return function


def test_ctrl_c_says_how_to_resume(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "run_all", raises(Stopped(signal.SIGINT)))
    monkeypatch.setattr(sys, "argv", ["experiments.py", "--logdir", "a b"])
    assert module.command_line([f"--logdir={tmp_path}", f"--data_dir={data_dir}"]) == 130
    assert capsys.readouterr().err == "stopped; resume with: python experiments.py --logdir 'a b'\n"


@pytest.mark.long
def test_a_run_has_its_own_session_and_its_failure_is_one_line(tmp_path: Path) -> None:
    child = processes.Child([f"--logdir={tmp_path / 'a'}"])
    assert os.getsid(child.process.pid) != os.getsid(0)
    child.process.kill()
    child.process.wait()
    assert child.failure() == "killed by SIGKILL"
    child = processes.Child(["--epochs=0"])
    assert child.process.wait() == 2
    assert child.failure() == "epochs is 0: expected at least 1"


@pytest.mark.long
def test_a_terminal_gets_one_bar_for_all(copy: Path, data_dir: Path) -> None:
    shutil.rmtree(copy / FOLDERS[2] / "seed=1")
    leader, follower = pty.openpty()
    with subprocess.Popen(command(copy, data_dir), stdout=subprocess.DEVNULL, stderr=follower) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:  # Linux reports a closed terminal in this way
                break
            if not part:
                break
            shown += part
    os.close(leader)
    assert process.returncode == 0
    assert b"28/32" in shown
    assert re.search(rb"100%\|.*\| 32/32 \[.*8 of 8 runs done\]", shown)
    assert b"test MSE" not in shown  # as in the bar of a single run


@pytest.mark.long
def test_without_matplotlib_only_the_picture_is_missing(copy: Path, data_dir: Path, tmp_path: Path) -> None:
    (copy / "summary.png").unlink()
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError")
    done = run(copy, data_dir, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0
    assert done.stderr.splitlines()[1:] == [
        "summary.png needs matplotlib: pip install -r requirements-dev.txt, then run this again"
    ]
    assert f"\nsummary.md and summary.csv are in {copy}; " in done.stdout
    assert not (copy / "summary.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--epochs 0", "epochs is 0: expected at least 1"),
        ("--seeds 0", "seeds is 0: expected at least 1"),
        ("--jobs -1", "jobs is -1: expected at least 1"),
        ("--jobs many", "argument --jobs: invalid int value: 'many'"),
        ("--folds 1", "folds is 1: expected at least 2"),
        ("--folds 3 --split user", "folds are random, and split is user"),
        ("--unrated 0", "unrated is for ratings of your own"),
        ("--seed 3", "unrecognized arguments: --seed 3"),
        ("--logdir file/below", "folder file/below cannot be written: Not a directory"),
        ("--data_dir file", "MovieLens 100K was not found: "),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(
    flags: str, message: str, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "read", raises(FileNotFoundError("MovieLens 100K was not found: file")))
    errors = refused("experiments.py", module.command_line, flags.split())
    assert re.fullmatch(r"experiments\.py: error: [^\n]+\n", errors), errors
    assert message in errors
