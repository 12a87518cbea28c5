"""Processes that train together, for real: gloo on this machine, started by torchrun."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import same_result

from tracking.checkpoint import BEST, CHECKPOINT, load_checkpoint

ROOT = Path(__file__).parent.parent.parent
TUNED = ("--preset", "tuned", "--batch_size", "8192", "--embedding_dim", "8")

# Three epochs of eight steps of one process, then the same by several, twice: for several losses and ingredients, both
# kinds of tables, the plain and the fast way, with and without missing ratings.
STEPS = """
import itertools, os, sys, torch, data
from dataclasses import replace
from train import evaluation_of
from training import setup
from training.distributed import join
from training.group import ALONE
from training.settings import Settings

torch.set_num_threads(1)
whole = data.synthetic(400, 300, 30000, seed=1)
gaps = replace(whole, ratings=whole.ratings.masked_fill(torch.arange(30000) % 3 == 0, torch.nan))
test = whole.select(torch.arange(0, 30000, 17))
common = dict(batch_size=4096, epochs=3, embedding_dim=8, learning_rate=0.01, regression_weight=0.3, eval_users=150)
kinds = {
    "logistic": dict(ranking_loss="logistic"),
    "bounded": dict(negatives=20, unseen_negatives=True),
    "softmax": dict(ranking_loss="softmax", negatives=20),
    "ingredients": dict(ranking_loss="softmax", negatives=20, unseen_negatives=True, watched_items=True,
                        weight_decay=20, user_balance=0.5, lr_schedule="linear",
                        rating_baseline=True, pseudo_ratings=2),
    "dropout": dict(ranking_loss="softmax", negatives=20, dropout=0.4, embedding_dropout=0.4),
}
if sys.argv[2] == "sockets":
    del os.memfd_create
group, results = join(), {}
assert (group._memory is None) == (sys.argv[2] == "sockets")
for kind, sharing in itertools.product(kinds, (True, False)):
    settings = Settings(**common, **kinds[kind], shared_embeddings=sharing)
    for name, processes in (("one", ALONE), ("several", group), ("again", group)):
        eager = sharing and kind == "ingredients"
        trainer = setup.make_trainer(settings, whole if sharing else gaps, "cpu", eager, processes)
        losses = [trainer.run_epoch() for _ in range(3)]
        with trainer.as_evaluated():
            evaluation = evaluation_of(trainer, test)
            metrics = [evaluation.mrr(), evaluation.mse(), *evaluation.rankings([5])[5]]
        results[f"{kind} {sharing} {name}"] = (
            torch.tensor(losses), torch.tensor(metrics), {name: x.clone() for name, x in trainer.state().items()}
        )
torch.save(results, f"{sys.argv[1]}/{group.rank}.pt")
"""


def torchrun(*arguments: object, cwd: Path, restarts: int = 0, processes: int = 2) -> "subprocess.Popen[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return subprocess.Popen(
        [*launcher, "--max-restarts", str(restarts), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers(launcher: "subprocess.Popen[str]") -> list[int]:
    """Return the process IDs of rank 0, 1, … (Linux)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher.pid:
                variables = (path / "environ").read_text().split("\0")
                found.update({int(x[5:]): int(path.name) for x in variables if x.startswith("RANK=")})
        except OSError:
            continue
    return [found[rank] for rank in sorted(found)]


@pytest.mark.long
@pytest.mark.parametrize(("processes", "sums_by"), [(2, "shared memory"), (3, "shared memory"), (2, "sockets")])
def test_processes_take_the_steps_of_one(processes: int, sums_by: str, tmp_path: Path) -> None:
    """Losses, metrics and all parameters agree; with dropout, a run is repeated bit-identically."""
    (tmp_path / "steps.py").write_text(STEPS)
    process = torchrun(tmp_path / "steps.py", tmp_path, sums_by, cwd=tmp_path, processes=processes)
    output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    first, *others = (torch.load(tmp_path / f"{rank}.pt") for rank in range(processes))
    assert len(first) == 30
    for name, (losses, metrics, state) in first.items():
        kind, _, processes_there = name.rpartition(" ")
        for other in others:
            assert torch.equal(losses, other[name][0]), name
            assert torch.equal(metrics, other[name][1]), name
        one_losses, one_metrics, one_state = first[f"{kind} one"]
        if processes_there == "again":
            several = first[f"{kind} several"]
            assert torch.equal(losses, several[0])
            assert torch.equal(metrics, several[1])
            assert all(torch.equal(tensor, several[2][each]) for each, tensor in state.items())
        elif processes_there == "several" and not kind.startswith("dropout"):
            torch.testing.assert_close(losses, one_losses, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(metrics, one_metrics, rtol=1e-3, atol=1e-3)
            assert torch.equal(state["generator"], one_state["generator"])
            for each in state.keys() - {"torch"}:
                torch.testing.assert_close(state[each], one_state[each], rtol=1e-3, atol=1e-3)


@pytest.fixture
def folder(tmp_path: Path, data_dir: Path) -> Path:
    (tmp_path / "data").symlink_to(data_dir)
    return tmp_path


def start(
    folder: Path, logdir: str, epochs: int, *flags: str, restarts: int = 0, processes: int = 2
) -> "subprocess.Popen[str]":
    return torchrun(
        ROOT / "main.py", "--device", "cpu", *TUNED, "--epochs", epochs, "--logdir", logdir, *flags,
        cwd=folder, restarts=restarts, processes=processes,
    )  # fmt: skip


def wait_for_a_checkpoint(process: "subprocess.Popen[str]", folder: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while not (folder / CHECKPOINT).exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    return workers(process)


def own_lines(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("main.py: ")]


@pytest.mark.long
def test_a_killed_run_is_restarted_and_ends_bit_identically(folder: Path) -> None:
    """The process that writes is killed, torchrun starts both again, and they resume from the checkpoint."""
    whole = start(folder, "whole", 20)
    output, errors = whole.communicate(timeout=100)
    assert whole.returncode == 0, errors
    assert len(re.findall(r"epochs? \(.*\) in", output)) == 1  # one process speaks
    part = start(folder, "part", 20, "--resume", restarts=1)
    os.kill(wait_for_a_checkpoint(part, folder / "part")[0], signal.SIGKILL)
    _, errors = part.communicate(timeout=100)
    assert part.returncode == 0, errors
    assert re.search(r"^resuming part after epoch \d+$", errors, re.MULTILINE), errors
    (line,) = own_lines(errors)
    assert line == "main.py: rank 0 was killed or crashed: its process is gone"
    assert same_result(folder / "whole", folder / "part")


@pytest.mark.parametrize(
    ("number", "rank"),
    [
        pytest.param(signal.SIGKILL, 1, marks=pytest.mark.long),
        pytest.param(signal.SIGSTOP, 0, marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGSTOP, 1, marks=pytest.mark.long),
    ],
)
def test_a_process_that_is_killed_or_hangs_is_named_and_no_process_waits_for_it(
    number: int, rank: int, folder: Path
) -> None:
    """The other process ends by itself, and torchrun then ends all."""
    process = start(folder, "a", 5000)
    victim = wait_for_a_checkpoint(process, folder / "a")[rank]
    started = time.monotonic()
    os.kill(victim, number)
    line = ""
    try:
        assert process.stderr is not None
        while not line.startswith("main.py: "):
            line = process.stderr.readline()
        assert time.monotonic() - started < 30
    finally:
        with contextlib.suppress(ProcessLookupError):  # a stopped process gets torchrun's SIGTERM once it continues
            os.kill(victim, signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    reasons = {
        signal.SIGKILL: "was killed or crashed: its process is gone",
        signal.SIGSTOP: "did not answer for 20 s: its process is stopped or hangs",
    }
    assert line.strip() == f"main.py: rank {rank} {reasons[signal.Signals(number)]}"
    assert own_lines(errors) == []
    assert f"traceback : {line}" in errors  # of torchrun's report
    assert process.returncode != 0
    assert load_checkpoint(folder / "a") is not None


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_to_one_process_stops_all_with_everything_kept(number: int, status: int, folder: Path) -> None:
    process = start(folder, "a", 5000)
    os.kill(wait_for_a_checkpoint(process, folder / "a")[0], number)
    _, errors = process.communicate(timeout=40)
    assert "\nstopped; resume with: torchrun --standalone --nproc_per_node 2 " in f"\n{errors}"
    assert own_lines(errors) == []
    assert f"exitcode  : {status} " in errors
    assert load_checkpoint(folder / "a") is not None


@pytest.mark.long
def test_the_homeworks_batch_is_refused_in_one_line_which_ends_torchruns_report(folder: Path) -> None:
    process = torchrun(ROOT / "main.py", "--logdir", "a", cwd=folder)
    _, errors = process.communicate(timeout=60)
    (line,) = own_lines(errors)
    assert line.startswith("main.py: error: the homework's step is for one process, because it is meant for batches")
    assert line.endswith("give preset tuned and batch_size 4096 or more, or start without torchrun")
    assert "exitcode  : 2 " in errors
    assert errors.splitlines()[-2] == f"  traceback : {line}"
    assert not (folder / "a").exists()


@pytest.mark.long
def test_a_run_resumes_with_another_number_of_processes(folder: Path) -> None:
    """One process, then three, then two, then one: without dropout the metrics are those of one process alone."""
    flags = ("--dropout", "0", "--embedding_dropout", "0", "--validation_fraction", "0.1", "--lr_schedule", "constant")
    for logdir, epochs, processes in (("whole", 4, 1), ("a", 1, 1), ("a", 2, 3), ("a", 3, 2), ("a", 4, 1)):
        process = start(folder, logdir, epochs, *flags, "--resume", processes=processes)
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        assert ("not bit-identical, because the number of processes differs" in errors) == (
            epochs > 1 and logdir == "a"
        )
    whole, parts = (load_checkpoint(folder / name) for name in ("whole", "a"))
    assert whole is not None
    assert parts is not None
    assert parts.history == [pytest.approx(metrics, rel=1e-3) for metrics in whole.history]
    assert parts.closing == pytest.approx(whole.closing, rel=0.02)
    assert torch.equal(parts.tensors["generator"], whole.tensors["generator"])
    for name in whole.tensors.keys() - {"torch", "generator"}:
        assert float((parts.tensors[name] - whole.tensors[name]).abs().mean()) < 1e-4, name


@pytest.mark.long
def test_two_processes_agree_on_the_best_epoch_and_stop_together(folder: Path) -> None:
    flags = ["--validation_fraction", "0.1", "--patience", "2", "--learning_rate", "0.05"]
    process = start(folder, "a", 40, *flags)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    kept, latest = load_checkpoint(folder / "a", BEST), load_checkpoint(folder / "a")
    assert kept is not None
    assert latest is not None
    assert len(latest.history) == len(kept.history) + 2 < 40
    assert output.count("stopped after epoch") == 1
    assert output.count("recall@10") == 1
