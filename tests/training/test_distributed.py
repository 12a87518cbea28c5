"""Two processes that train together, for real: gloo on this machine, started by torchrun."""

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
from training.distributed import Group

ROOT = Path(__file__).parent.parent.parent

# Twenty steps of one process, then the same by two, for each Adam, both kinds of tables and several batch
# sizes, at one of which a third of the ratings are missing.
STEPS = """
import itertools, sys, torch, data
from dataclasses import replace
from models import MultiTaskNet
from training.adam import Adam
from training.distributed import ALONE, join
from training.fused import ways
from training.rated_items import RatedItems
from training.steps import Triples, LossWeights
folder = sys.argv[1]
torch.set_num_threads(1)
whole = data.synthetic(60, 90, 1000, seed=1)
missing = torch.arange(1000) % 3 == 0
gaps = replace(whole, ratings=whole.ratings.masked_fill(missing, torch.nan))
group, results = join(), {}
kinds = {"adam": (False, 0), "eager": (False, 1), "rows": (True, 0)}  # row-wise? which of the ways?
for kind, sharing, batch in itertools.product(kinds, (True, False), (64, 37, 1)):
    n = 20 * batch - batch // 2
    known = whole if batch != 37 else gaps
    chosen = torch.randint(1000, (n,), generator=torch.Generator().manual_seed(1))
    triples = Triples(known.user_ids[chosen], known.item_ids[chosen], (chosen * 7) % 90, known.ratings[chosen])
    for processes in (ALONE, group):
        torch.manual_seed(0)
        net = MultiTaskNet(60, 90, 8, (24, 16), sharing)
        lazy, place = kinds[kind]
        way = ways(lazy, torch.device("cpu"), processes)[0 if processes is ALONE else place]
        step = way.make(net, Adam(net, 1e-3), LossWeights(0.7, 0.3), RatedItems(known), None)
        losses = step.run(triples, batch).clone()
        weights = torch.cat([x.detach().reshape(-1) for x in net.parameters()])
        results[f"{kind} {sharing} {batch} {processes is ALONE}"] = losses, weights
torch.save(results, f"{folder}/{group.rank}.pt")
"""


def torchrun(*arguments: object, cwd: Path, restarts: int = 0) -> "subprocess.Popen[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
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


def test_two_processes_take_the_steps_that_one_takes(tmp_path: Path) -> None:
    """The losses of 20 steps to 1e-5, and both processes bit-identical. A batch of 1 leaves one idle."""
    (tmp_path / "steps.py").write_text(STEPS)
    process = torchrun(tmp_path / "steps.py", tmp_path, cwd=tmp_path)
    output = process.communicate(timeout=100)
    assert process.returncode == 0, output
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(first) == 36
    for name, (losses, weights) in first.items():
        assert torch.equal(losses, second[name][0]), name
        assert torch.equal(weights, second[name][1]), name
        one_losses, one_weights = first[f"{name.rpartition(' ')[0]} True"]
        assert losses.shape == (20, 2)
        torch.testing.assert_close(losses, one_losses, rtol=1e-5, atol=1e-5)
        assert float((weights - one_weights).abs().mean()) < 1e-5, name


@pytest.fixture
def folder(tmp_path: Path, data_dir: Path) -> Path:
    (tmp_path / "data").symlink_to(data_dir)
    return tmp_path


def start(folder: Path, logdir: str, epochs: int, *flags: str, restarts: int = 0) -> "subprocess.Popen[str]":
    return torchrun(
        ROOT / "main.py", "--device", "cpu", "--batch_size", 1024, "--epochs", epochs, "--logdir", logdir, *flags,
        cwd=folder, restarts=restarts,
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
    assert line.startswith("main.py: rank 0 ended without a word or does not answer: killed, or on a machine")
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
    assert line.startswith(f"main.py: rank {rank} ended without a word or does not answer")
    assert number == signal.SIGSTOP or own_lines(errors) == []
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
def test_an_error_is_printed_once(folder: Path) -> None:
    process = start(folder, "a", 1, "--eager")
    _, errors = process.communicate(timeout=60)
    assert own_lines(errors) == [
        "main.py: error: the eager step is taken by one process: leave out eager, or start without torchrun"
    ]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 256])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_the_parts_of_a_batch_are_the_batch(n: int, size: int) -> None:
    groups = [Group(rank, size) for rank in range(size)]
    parts = [list(range(n))[group.part(n)] for group in groups]
    assert [x for part in parts for x in part] == list(range(n))
    assert all(len(part) <= groups[0].longest_part(n) for part in parts)
    assert all(len(part) == groups[0].longest_part(n) for part in parts[: n // max(1, groups[0].longest_part(n))])


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
