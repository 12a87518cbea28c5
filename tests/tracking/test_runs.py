"""A run's folder: checkpoints that are whole or refused, bit-identical resuming, locks, signals, full disks, kills."""

import contextlib
import csv
import dataclasses
import fcntl
import io
import itertools
import os
import pty
import random
import re
import resource
import signal
import subprocess
import sys
import termios
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
import torch
from conftest import StandIn
from runs import curves, fit_in, same_result
from tensorboard.summary.writer import record_writer
from torch import nn

import main
import train
from cli.signals import Stopped
from data import Interactions
from metrics import RankingScores
from models import MultiTaskNet
from tracking import record, tensorboard
from tracking.checkpoint import BEST, FORMAT, Checkpoint, Run, load_checkpoint
from tracking.folder import RunFolder, contains_run
from tracking.metric_table import EpochMetrics
from tracking.resuming import restore
from training.evaluation import Evaluation
from training.settings import Settings

ROOT = Path(__file__).parent.parent.parent
Split = tuple[Interactions, Interactions]


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "main.py"), "--device", "cpu", *map(str, arguments)]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(folder: Path, *arguments: object) -> Done:
    """Run the command line in this process, without the start-up of another one."""
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        patch.chdir(folder)
        status = main.main(["--device", "cpu", *map(str, arguments)])
    return Done(status, output.getvalue(), errors.getvalue())


@pytest.fixture
def folder(tmp_path: Path, data_dir: Path) -> Path:
    (tmp_path / "data").symlink_to(data_dir)
    return tmp_path


@pytest.fixture
def trainer(split: Split) -> train.Trainer:
    data, _ = split
    torch.manual_seed(0)
    return train.Trainer(MultiTaskNet(data.num_users, data.num_items, 4, (12, 5)), data, Settings(epochs=9))


@pytest.fixture
def checkpoint(trainer: train.Trainer) -> Checkpoint:
    history = [EpochMetrics(0.5, 3.0, 1.0, 0.1, 2.0), EpochMetrics(0.25, 1 / 3, 1.0, 0.1, 2.0)]
    run = Run({"seed": 3, "layer_sizes": (12, 5)}, "data")
    return Checkpoint.of(run, history, [1.5, 2.5], trainer.state())


def equal(one: Checkpoint, other: Checkpoint) -> bool:
    return one.digest() == other.digest() and all(
        torch.equal(x, other.tensors[name]) for name, x in one.tensors.items()
    )


def test_a_checkpoint_loads_as_it_was_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    checkpoint.save(tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert equal(loaded, checkpoint)
    assert (loaded.run, loaded.times) == (Run({"seed": 3, "layer_sizes": (12, 5)}, "data"), [1.5, 2.5])
    assert loaded.history == [[0.5, 3.0, 1.0, 0.1, 2.0], [0.25, 1 / 3, 1.0, 0.1, 2.0]]
    rows = list(csv.reader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert rows[0] == ["epoch", "factorization_loss", "training_mse", "joint_loss", "test_mrr", "test_mse"]
    assert [[float(cell) for cell in row] for row in rows[1:]] == [[i, *row] for i, row in enumerate(loaded.history)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "metrics.csv"]


def test_a_damaged_checkpoint_is_refused_or_unchanged(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """There are 150 truncations and 250 flipped bits, more of them in the small parts than in the tensors."""
    checkpoint.save(tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    choose = random.Random(0)
    with zipfile.ZipFile(path) as archive:
        pickled = archive.getinfo(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    refused: list[str] = []
    for trial in range(400):
        damaged = bytearray(whole)
        if trial < 150:
            del damaged[choose.randrange(len(whole)) :]
        else:
            ranges = [(0, len(whole)), (pickled.header_offset, pickled.file_size), (len(whole) - 2500, 2500)]
            first, length = ranges[trial % 3]
            damaged[first + choose.randrange(length)] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(tmp_path)
        except ValueError as error:
            refused.append(str(error))
        else:
            assert loaded is not None
            assert equal(loaded, checkpoint)
    assert len(refused) > 300
    assert all(re.fullmatch(r"[^\n]*checkpoint\.pt (is|was) [^\n]*", message) for message in refused)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_foreign_old_and_malicious_checkpoints_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path, content = tmp_path / "checkpoint.pt", vars(checkpoint) | {"run": vars(checkpoint.run)}
    for saved, message in (
        ([1, 2], "but not a checkpoint of this program"),
        ({"model": torch.ones(3)}, "but not a checkpoint of this program"),
        ({"format": 0, **content}, "was written by another version of this program"),
        ({"format": FORMAT, "digest": "0" * 64, **content}, "its content differs from its digest"),
        ({"format": FORMAT, "digest": "0" * 64}, "is damaged: KeyError"),
        ({"format": FORMAT, "digest": "", "x": Malicious(tmp_path / "done")}, "damaged or not a checkpoint"),
    ):
        torch.save(saved, path)
        with pytest.raises(ValueError, match=message):
            load_checkpoint(tmp_path)
    assert not (tmp_path / "done").exists()
    path.write_text("not a checkpoint")
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path)


class Stateful(MultiTaskNet):
    """A network that draws random numbers in forward, and has buffers beside its parameters."""

    def init_mlp_layers(self, layer_sizes: Sequence[int]) -> nn.Sequential:
        return nn.Sequential(nn.Linear(96, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def fit(
    logdir: Path,
    split: Split,
    epochs: int,
    network: type[MultiTaskNet] = MultiTaskNet,
    eager: bool = False,
    seed: int = 0,
) -> Checkpoint:
    """Train or resume a network whose first parameters come from the seed."""
    data, test = split
    torch.manual_seed(seed)
    net = network(data.num_users, data.num_items, embedding_sharing=False)
    fit_in(logdir, train.Trainer(net, data, Settings(epochs=epochs, seed=7), eager=eager), test)
    loaded = load_checkpoint(logdir)
    assert loaded is not None
    return loaded


@pytest.mark.parametrize(("network", "eager"), [(MultiTaskNet, True), (MultiTaskNet, False), (Stateful, False)])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(
    network: type[MultiTaskNet], eager: bool, split: Split, tmp_path: Path
) -> None:
    whole = fit(tmp_path / "whole", split, 5, network, eager)
    part = fit(tmp_path / "part", split, 2, network, eager)
    rest = fit(
        tmp_path / "part", split, 5, network, eager, seed=1
    )  # the parameters come from the checkpoint, not from the seed
    assert all(torch.equal(x, rest.tensors[name]) for name, x in whole.tensors.items())
    assert whole.history == rest.history
    assert part.times == rest.times[:2]
    assert same_result(tmp_path / "whole", tmp_path / "part")
    assert [step for step, _ in curves(tmp_path / "part")["eval/MSE"]] == [0, 1, 2, 3, 4]
    assert len(list((tmp_path / "part").glob("events*"))) == 1


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_ends_during_its_last_ranking_is_not_finished(
    killed: bool, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metrics of the end are in the event file before the checkpoint says so: a resumed run misses none."""
    rankings, calls = Evaluation.rankings, []

    def ends(evaluation: Evaluation, topk: Sequence[int]) -> dict[int, RankingScores]:
        calls.append(evaluation)
        if len(calls) > 1:  # the first call is before the first epoch
            raise SystemExit if killed else Stopped(15)
        return rankings(evaluation, topk)

    monkeypatch.setattr(record, "CHECKPOINT_SECONDS", 0)
    whole = fit(tmp_path / "whole", split, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "rankings", ends)
        with pytest.raises(BaseException, match=r"^(15)?$"):
            fit(tmp_path / "part", split, 3)
    part = load_checkpoint(tmp_path / "part")
    assert part is not None
    assert (len(whole.closing), part.closing) == (8, ())
    assert len(part.history) == 3
    fit(tmp_path / "part", split, 3)
    assert same_result(tmp_path / "whole", tmp_path / "part")
    assert "users/NDCG@10" in curves(tmp_path / "part")


@pytest.mark.parametrize("seconds", [0, 9])
def test_a_signal_at_any_line_leaves_one_whole_state(
    seconds: int, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop at any line of the record's code: best.pt, metrics.csv and the curves have the checkpoint's epochs."""
    monkeypatch.setattr(record, "CHECKPOINT_SECONDS", seconds)
    files = {module.__file__ for module in (record, tensorboard, record_writer)}
    metrics = checkpoint.metrics[0]

    def add(logdir: Path, line: int) -> None:
        """Record two epochs, and stop at a line of the second one's."""
        left = line

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            left -= event == "line"
            if event == "line" and left == 0:
                raise Stopped(signal.SIGTERM)
            return trace

        with RunFolder(logdir) as opened, record.RunRecord(opened, checkpoint.run, 2, [10]) as written:
            written.add(metrics, checkpoint.tensors, True)
            sys.settrace(trace)
            try:
                written.add(metrics, checkpoint.tensors, True)
            finally:
                sys.settrace(None)

    counts = set()
    for line in itertools.count(1):
        logdir = tmp_path / str(line)
        try:
            add(logdir, line)
            break
        except Stopped:
            saved, best = load_checkpoint(logdir), load_checkpoint(logdir, BEST)
        assert saved is not None
        assert best is not None
        epochs = len(saved.history)
        assert len(best.history) == epochs
        assert {epoch for epoch, _ in curves(logdir)["eval/MSE"]} == set(range(epochs))
        assert len((logdir / "metrics.csv").read_text().splitlines()) == epochs + 1
        counts.add(epochs)
    assert line > 20
    assert counts == {1, 2}


def test_a_run_is_resumed_for_more_epochs(folder: Path) -> None:
    assert run(folder, "--epochs", 3, "--logdir", "whole").returncode == 0
    first = run(folder, "--epochs", 1, "--logdir", "part", "--resume")
    assert first.stderr == "nothing to resume in part: starting\n"
    second = run(folder, "--epochs", 3, "--logdir", "part", "--resume")
    assert second.stderr == "resuming part after epoch 0\n"
    assert second.stdout.splitlines()[-1].startswith("2 epochs (1 to 2) in ")
    third = run(folder, "--epochs", 3, "--logdir", "part", "--resume")
    assert third.stderr == "resuming part after epoch 2; nothing is left to train\n"
    assert third.returncode == 0
    assert same_result(folder / "whole", folder / "part")


def test_other_settings_are_refused_and_nothing_changes(folder: Path) -> None:
    assert run(folder, "--epochs", 1, "--logdir", "a").returncode == 0
    before = {path.name: path.read_bytes() for path in (folder / "a").iterdir()}
    for flags, difference in (
        ("--learning_rate 0.01", "learning_rate was 0.001, now 0.01"),
        ("--seed 1 --batch_size 128", "batch_size was 256, now 128; seed was 0, now 1"),
        ("--no_shared_embeddings", "shared_embeddings was True, now False"),
        ("--layer_sizes 96 32", "layer_sizes was 96 64, now 96 32"),
    ):
        done = run(folder, "--epochs", 2, "--logdir", "a", "--resume", *flags.split())
        assert done.returncode == 2
        assert done.stderr == f"main.py: error: a holds a run with other settings: {difference}\n"
        assert {path.name: path.read_bytes() for path in (folder / "a").iterdir()} == before


def test_an_occupied_folder_is_moved_aside(folder: Path) -> None:
    for expected in ("", "a holds a run: moved to a.1\n", "a holds a run: moved to a.2\n"):
        done = run(folder, "--epochs", 1, "--logdir", "a")
        assert (done.returncode, done.stderr) == (0, expected)
    for logdir in ("a", "a.1", "a.2"):
        assert len(curves(folder / logdir)["eval/MSE"]) == 1
        assert load_checkpoint(folder / logdir) is not None


def test_a_folder_of_other_things_is_not_moved(tmp_path: Path) -> None:
    (tmp_path / "run" / "shared").mkdir(parents=True)
    (tmp_path / "run" / "shared" / "checkpoint.pt").write_text("")
    (tmp_path / "run" / "notes.txt").write_text("")
    assert not contains_run(tmp_path / "run")
    assert contains_run(tmp_path / "run" / "shared")


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    owner = RunFolder(tmp_path / "a")
    with pytest.raises(BlockingIOError, match=r"another run is writing to .*a: choose another folder"):
        RunFolder(tmp_path / "a")
    (tmp_path / "a" / "metrics.csv").write_text("")
    assert owner.move_aside() == tmp_path / "a.1"
    with pytest.raises(BlockingIOError):  # the new folder is locked, too
        RunFolder(tmp_path / "a")
    owner.__exit__()
    with RunFolder(tmp_path / "a"), RunFolder(tmp_path / "a.1"):
        pass


def test_a_moved_folder_is_not_written_to(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a") as one:
        one.save(checkpoint)
        (tmp_path / "a").rename(tmp_path / "moved")
        with pytest.raises(OSError, match="a was moved or removed"):
            one.save(checkpoint)
        assert not (tmp_path / "a").exists()
        with RunFolder(tmp_path / "a"), pytest.raises(OSError, match="a was moved or removed"):
            one.save(checkpoint)
        assert not contains_run(tmp_path / "a")


def test_a_link_to_a_folder_remains_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "run")
    (tmp_path / "link" / "metrics.csv").write_text("")
    with RunFolder(tmp_path / "link") as folder:
        assert folder.move_aside() == tmp_path / "disk" / "run.1"
        assert not contains_run(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(tmp_path / "disk" / "run.1")
    with RunFolder(Path()) as folder, pytest.raises(OSError, match="is the working directory: choose another folder"):
        folder.move_aside()


def test_fit_does_not_overwrite_a_run(trainer: train.Trainer, split: Split, tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1").write_text("somebody's")
    with pytest.raises(ValueError, match="holds a run already"):
        fit_in(tmp_path, trainer, split[1])


def test_a_missing_metrics_file_is_written_again(folder: Path) -> None:
    assert run(folder, "--epochs", 2, "--logdir", "a").returncode == 0
    whole = (folder / "a" / "metrics.csv").read_text()
    (folder / "a" / "metrics.csv").write_text(whole[: whole.index("\n1,")])
    (folder / "a" / "events.out.tfevents.1.other").write_text("somebody's")
    assert run(folder, "--epochs", 2, "--logdir", "a", "--resume").returncode == 0
    assert (folder / "a" / "metrics.csv").read_text() == whole
    assert (folder / "a" / "events.out.tfevents.1.other").exists()


CRAFTED: dict[str, Callable[[Checkpoint], dict[str, Any]]] = {
    "no generator": lambda right: {"tensors": {k: x for k, x in right.tensors.items() if k != "generator"}},
    "another shape": lambda right: {
        "tensors": right.tensors | {"network.B.weight": right.tensors["network.B.weight"].T}
    },
    "another type": lambda right: {
        "tensors": right.tensors | {"adam.first_moment": right.tensors["adam.first_moment"].double()}
    },
    "no times": lambda _: {"times": []},
    "no history": lambda _: {"history": [], "times": []},
}


@pytest.mark.parametrize("change", [*CRAFTED, "damaged"])
def test_a_crafted_checkpoint_is_one_line(change: str, folder: Path) -> None:
    assert run(folder, "--epochs", 1, "--logdir", "a").returncode == 0
    path = folder / "a" / "checkpoint.pt"
    right = load_checkpoint(folder / "a")
    assert right is not None
    if change == "damaged":
        path.write_text("damaged")
    else:
        dataclasses.replace(right, **CRAFTED[change](right)).save(folder / "a")
    before = path.read_bytes()
    done = run(folder, "--epochs", 2, "--logdir", "a", "--resume")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"main\.py: error: [^\n]*checkpoint[^\n]*\n", done.stderr)
    assert path.read_bytes() == before


def test_a_run_resumed_with_another_kind_of_step_prints_a_line(folder: Path) -> None:
    assert run(folder, "--epochs", 1, "--logdir", "a", "--eager").returncode == 0
    done = run(folder, "--epochs", 2, "--logdir", "a", "--resume")
    assert done.returncode == 0
    assert "not bit-identical, because the device or the kind of step differs" in done.stderr


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_run_is_refused_only_while_the_first_one_lives(folder: Path) -> None:
    with subprocess.Popen(command("--logdir", "a"), cwd=folder, stdout=subprocess.DEVNULL, text=True) as first:
        wait_for(folder / "a" / "checkpoint.pt", first)
        for flags in ([], ["--resume"]):
            second = run(folder, "--epochs", 1, "--logdir", "a", *flags)
            assert second.returncode == 2
            assert second.stderr == "main.py: error: another run is writing to a: choose another folder\n"
        assert first.poll() is None
        first.kill()
    assert run(folder, "--epochs", 1, "--logdir", "a", "--resume").returncode == 0


def test_a_run_that_is_stopped_by_a_signal_loses_nothing(folder: Path) -> None:
    with subprocess.Popen(
        command("--logdir", "a"), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(folder / "a" / "checkpoint.pt", process)
        time.sleep(0.7)
        process.terminate()
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output) == (143, "")
    assert re.fullmatch(r"stopped; resume with: python \S*main\.py --device cpu --logdir a --resume\n", errors)
    checkpoint = load_checkpoint(folder / "a")
    assert checkpoint is not None
    done = len(checkpoint.history)
    assert done > 1
    assert len((folder / "a" / "metrics.csv").read_text().splitlines()) == done + 1
    assert [step for step, _ in curves(folder / "a")["eval/MSE"]][:done] == list(range(done))
    assert run(folder, "--epochs", done + 1, "--logdir", "a", "--resume").returncode == 0
    assert run(folder, "--epochs", done + 1, "--logdir", "b").returncode == 0
    assert same_result(folder / "a", folder / "b")


@contextlib.contextmanager
def training_at_a_terminal(folder: Path, stderr: int | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Train in a process of a terminal until its first checkpoint; yield it with the terminal's descriptor.

    Args:
        stderr: the process's standard error, as for Popen; by default the terminal.
    """
    terminal, follower = pty.openpty()
    with subprocess.Popen(
        command("--logdir", "a"),
        cwd=folder,
        stdin=follower,
        stdout=follower,
        stderr=follower if stderr is None else stderr,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        text=True,
    ) as process:
        os.close(follower)
        wait_for(folder / "a" / "checkpoint.pt", process)
        yield process, terminal


@pytest.mark.long
def test_ctrl_c_typed_twice_at_a_terminal(folder: Path) -> None:
    with training_at_a_terminal(folder) as (process, terminal):
        os.write(terminal, b"\x03")
        os.write(terminal, b"\x03")
        with contextlib.suppress(OSError):  # the end of the process
            while os.read(terminal, 4096):
                pass
        assert process.wait(timeout=10) in (130, -signal.SIGINT)  # the second signal may come before or after the end
    os.close(terminal)
    assert load_checkpoint(folder / "a") is not None
    assert run(folder, "--epochs", 1, "--logdir", "a", "--resume").returncode == 0


@pytest.mark.long
def test_a_closed_terminal_leaves_a_run_that_can_be_resumed(folder: Path) -> None:
    with training_at_a_terminal(folder, stderr=subprocess.PIPE) as (process, terminal):
        os.close(terminal)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 129, errors
    assert re.fullmatch(r"stopped; resume with: python \S*main\.py --device cpu --logdir a --resume\n", errors)
    checkpoint = load_checkpoint(folder / "a")
    assert checkpoint is not None
    done = len(checkpoint.history)
    resumed = run(folder, "--epochs", done + 1, "--logdir", "a", "--resume")
    assert (resumed.returncode, resumed.stderr) == (0, f"resuming a after epoch {done - 1}\n")


def test_a_signal_before_training_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: object) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr("data.read", stopped)
    done = run(folder, "--logdir", "a")
    assert (done.returncode, done.stderr) == (143, "stopped before the training began\n")


def test_a_signal_during_the_imports_is_one_line(folder: Path) -> None:
    with subprocess.Popen(command("--logdir", "a"), cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        if not maps.exists():
            pytest.skip("needs Linux's /proc, which shows how far the imports are")
        deadline = time.monotonic() + 60
        while "libtorch" not in maps.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "stopped before the training began\n")


def test_a_full_disk_is_one_line_and_leaves_the_last_good_checkpoint(folder: Path) -> None:
    assert run(folder, "--epochs", 2, "--logdir", "a").returncode == 0
    before = (folder / "a" / "checkpoint.pt").read_bytes()

    def limit() -> None:  # files may not grow beyond 200 kB: the event file fits, a checkpoint does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        command("--epochs", 4, "--logdir", "a", "--resume"),
        cwd=folder, capture_output=True, text=True, preexec_fn=limit, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(
        r"resuming a after epoch 1\nmain\.py: error: a/checkpoint\.pt cannot be written: File too large\n", done.stderr
    )
    assert (folder / "a" / "checkpoint.pt").read_bytes() == before
    assert not list((folder / "a").glob(".checkpoint*"))
    assert run(folder, "--epochs", 4, "--logdir", "a", "--resume").returncode == 0
    assert run(folder, "--epochs", 4, "--logdir", "b").returncode == 0
    assert same_result(folder / "a", folder / "b")


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    trainer: train.Trainer, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, test = split
    healthy = trainer.run_epoch
    monkeypatch.setattr(record, "CHECKPOINT_SECONDS", 1e9)

    def run_epoch() -> train.Losses:
        if trainer.epoch == 3:
            with torch.no_grad():
                trainer.adam.flat[0] = torch.inf
        return healthy()

    monkeypatch.setattr(trainer, "run_epoch", run_epoch)
    with pytest.raises(FloatingPointError, match="epoch 3, step 1 of 4"):
        fit_in(tmp_path, trainer, test)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert len(checkpoint.history) == 3
    assert all(bool(tensor.float().isfinite().all()) for tensor in checkpoint.tensors.values())


def test_a_checkpoint_of_another_device_is_resumed_with_other_random_numbers(
    trainer: train.Trainer, checkpoint: Checkpoint
) -> None:
    elsewhere = dataclasses.replace(checkpoint, run=dataclasses.replace(checkpoint.run, device="cuda"))
    restore(trainer, elsewhere)
    one = torch.rand(3, generator=trainer.generator)
    restore(trainer, elsewhere)
    assert torch.equal(one, torch.rand(3, generator=trainer.generator))
    restore(trainer, checkpoint)
    assert not torch.equal(one, torch.rand(3, generator=trainer.generator))


@pytest.mark.long
def test_a_run_killed_during_the_download_leaves_the_data_whole_or_absent(tmp_path: Path, wheel: StandIn) -> None:
    """The source is a copy that arrives slowly; kills fall before, during and after it."""
    program = """
import hashlib, pathlib, sys, time
from datasets import download, releases
import data
from cli import files
content = pathlib.Path(sys.argv[1]).read_bytes()
grouplens, wheel = releases.RELEASES["ml-100k"]
wheel = wheel._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
releases.RELEASES["ml-100k"] = (grouplens, wheel)
def slowly(*_):
    time.sleep(0.2)
    return content
def refuse(*_):
    raise OSError("not here")
download.from_url, download.from_package_index = refuse, slowly
fsync = files.os.fsync
files.os.fsync = lambda file: (time.sleep(0.2), fsync(file))
data.load(sys.argv[2])
"""
    source = tmp_path / "source"
    source.write_bytes(wheel.content)
    choose = random.Random(1)
    for trial in range(4):
        target = tmp_path / str(trial)
        process = subprocess.Popen([sys.executable, "-c", program, source, target], cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(choose.uniform(0, 0.5))
        process.kill()
        process.wait()
        wheels = list(target.glob("recbole*"))
        assert all(path.read_bytes() == wheel.content for path in wheels)
