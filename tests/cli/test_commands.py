"""Every command on terminals that know little, with streams that are closed or full, and stopped while it starts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COMMANDS = {
    "main": ["main.py"],
    "grader": ["grader.py"],
    "experiments": ["experiments.py"],
    "recommend": ["recommend.py"],
    "probes": ["-m", "study.probes"],
    "search": ["-m", "study.search"],
    "ablation": ["-m", "study.ablation"],
    **{path.stem: [f"benchmarks/{path.name}"] for path in sorted((ROOT / "benchmarks").glob("*.py"))},
}
for part in ("peer_models", "peer_fits", "tuned_peers"):  # of peers.py
    COMMANDS.pop(part)
FOR_USERS = ("main", "grader", "recommend", "experiments", "probes")
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}
REDIRECTIONS = {
    "output closed": ">&-",
    "errors closed": "2>&-",
    "both closed": ">&- 2>&-",
    "all closed": "<&- >&- 2>&-",
    "output full": ">/dev/full",
    "errors full": "2>/dev/full",
    "both full": ">/dev/full 2>&1",
}


def long_for(*names: str, leave_out: tuple[str, ...] = ()) -> "list[object]":
    """The commands: these among the long tests, the others, whose code for it is theirs, among the exhaustive ones."""
    return [
        pytest.param(name, marks=pytest.mark.long if name in names else pytest.mark.exhaustive)
        for name in COMMANDS
        if name not in leave_out
    ]


def run(
    command: list[str], redirection: str = "", environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """A command as a shell starts it, in the project's folder."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, *command],
        cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", long_for(*FOR_USERS))
def test_help_on_an_ascii_terminal(name: str) -> None:
    done = run([*COMMANDS[name], "--help"], environment=PLAIN)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"usage: ")
    assert done.stdout.isascii()


@pytest.mark.long
@pytest.mark.parametrize("name", ["main", "grader", "recommend", "experiments", "probes"])
def test_a_full_disk_is_one_line_on_the_other_stream(name: str) -> None:
    done = run([*COMMANDS[name], "--help"], ">/dev/full")
    assert (done.returncode, done.stderr) == (0, b"standard output could not be written: No space left on device\n")


@pytest.mark.long
def test_what_a_stream_cannot_carry_is_escaped() -> None:
    assert b"\\u03bb_F, weight of the BPR loss" in run(["main.py", "--help"], environment=PLAIN).stdout
    utf8 = run(["main.py", "--help"], environment={"PYTHONIOENCODING": "utf-8"})
    assert "λ_F, weight of the BPR loss" in utf8.stdout.decode()


@pytest.mark.long
@pytest.mark.parametrize(
    "redirection",
    [pytest.param(name, marks=pytest.mark.long if name.startswith("errors") else ()) for name in REDIRECTIONS],
)
def test_a_run_trains_to_its_end_whatever_its_streams_are(redirection: str, tmp_path: Path, data_dir: Path) -> None:
    arguments = ["--epochs=1", f"--logdir={tmp_path / 'run'}", f"--data_dir={data_dir}"]
    done = run(["main.py", *arguments], REDIRECTIONS[redirection])
    assert done.returncode == 0, done
    assert b"Traceback" not in done.stderr
    assert {"checkpoint.pt", "metrics.csv"} <= {path.name for path in (tmp_path / "run").iterdir()}
    # No file of the run has taken a closed stream's number, and what is printed with it.
    for path in (tmp_path / "run").iterdir():
        assert b"logs in" not in path.read_bytes()


SHORT = {  # each command on a small piece of its real work
    "main": "--epochs 1 --logdir {folder} --data_dir {data}",
    "grader": "1a-2-basic --csv {folder}/grades.csv",
    "experiments": "--epochs 1 --seeds 1 --logdir {folder} --data_dir {data}",
    "recommend": "--logdir {run} --data_dir {data} --user 42",
    "probes": "--epochs 1 --seeds 1 --logdir {folder} --data_dir {data}",
    "search": "--epochs 1 --draws 1 --again 1 --logdir {folder} --data_dir {data}",
    "ablation": "--epochs 1 --seeds 1 --logdir {folder} --data_dir {data}",
    "optimizers": "--sizes 100k --epochs 1 --seeds 1 --data_dir {data}",
    "peers": "--epochs 1 --seeds 1 --peers --data_dir {data}",
    "plain_trainer": "--epochs 1 --logdir {folder} --data_dir {data}",
    "reading": "--ratings 2000",
    "ranking_library": "--epochs 1 --data_dir {data}",
    "rubric_bands": "--seeds 2",
    "scale": "--sizes 100k --rounds 1 --ratings 512 --batch_size 128",
    "speed": "--rounds 1 --epochs 2 --threads 1 --embeddings shared --synthetic 2000",
}
WRITTEN = {
    "main": "metrics.csv",
    "grader": "grades.csv",
    "experiments": "summary.csv",
    "probes": "probes.md",
    "search": "search.csv",
}


def test_every_command_is_among_those_tried_on_real_work() -> None:
    assert set(SHORT) == set(COMMANDS)


def short(name: str, folder: Path, data: Path) -> list[str]:
    trained = folder / "trained"
    if name == "recommend":
        run(["main.py", "--epochs=1", f"--logdir={trained}", f"--data_dir={data}"])
    return [*COMMANDS[name], *SHORT[name].format(folder=folder, data=data, run=trained).split()]


@pytest.mark.parametrize("redirection", ["output full", "all closed"])
@pytest.mark.parametrize("name", long_for("main", "grader", "recommend"))
def test_every_command_does_its_work_whatever_its_streams_are(
    name: str, redirection: str, tmp_path: Path, data_dir: Path
) -> None:
    done = run(short(name, tmp_path, data_dir), REDIRECTIONS[redirection])
    assert done.returncode == 0, done
    assert b"Traceback" not in done.stdout + done.stderr
    if redirection == "output full":
        assert done.stderr.splitlines()[-1] == b"standard output could not be written: No space left on device"
    if name in WRITTEN:
        assert (tmp_path / WRITTEN[name]).stat().st_size > 0


@pytest.mark.parametrize("name", long_for("main", "grader", "recommend", "experiments"))
def test_output_that_nobody_reads_ends_every_command_in_status_1_with_its_files_written(
    name: str, tmp_path: Path, data_dir: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [sys.executable, *short(name, tmp_path, data_dir)], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE
    ) as process:
        os.close(writer)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"Traceback" not in errors
    assert b"Broken" not in errors
    if name in WRITTEN:
        assert (tmp_path / WRITTEN[name]).stat().st_size > 0


@pytest.mark.parametrize(
    "name",
    long_for(
        "main", "grader", "experiments", "search",
        leave_out=("recommend",),  # which is over in no time
    ),
)  # fmt: skip
def test_every_command_is_stopped_in_one_line_and_leaves_no_process(name: str, tmp_path: Path, data_dir: Path) -> None:
    trainers = ("main", "experiments", "probes", "search", "ablation", "plain_trainer", "ranking_library", "optimizers")
    more = {name: ["--epochs", "1000000"] for name in trainers}
    more |= {"speed": ["--rounds", "9999"], "scale": ["--rounds", "9999"]}
    more |= {"rubric_bands": ["--seeds", "9999"], "reading": ["--ratings", "9999999"], "peers": ["--epochs", "9999"]}
    with subprocess.Popen(
        [sys.executable, *short(name, tmp_path, data_dir), *more.get(name, [])],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        time.sleep(4 if name != "grader" else 0.8)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert len([line for line in errors.splitlines() if "stopped" in line]) == 1
    deadline = time.monotonic() + 10
    while _something_runs(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _something_runs(process.pid)


def _something_runs(leader: int) -> bool:
    """Whether a process that a command left behind runs, but for those that only wait to be noticed (Linux)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_leader = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(its_leader) == leader and state != "Z":
            return True
    return False


@pytest.mark.long
def test_the_grader_keeps_its_status_whatever_its_streams_are(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("class MultiTaskNet: pass\n")
    for status, arguments in ((0, []), (1, ["--submission", str(tmp_path / "models.py")])):
        command = ["grader.py", "1a-2-basic", "--csv", str(tmp_path / "grades.csv"), *arguments]
        done = run(command, REDIRECTIONS["both full"])
        assert done.returncode == status, done
        assert b"Traceback" not in done.stderr
        assert (tmp_path / "grades.csv").read_text().splitlines()[1].split(",")[2] == str(1 - status)


def test_a_pipe_that_does_not_wait_gets_everything() -> None:
    """As some terminals and schedulers hand one over: a write to it may take a part, or nothing."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    program = "from cli import command; command.begin(); print('x' * 10**6); print('end')"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        time.sleep(0.5)
        with open(reader, "rb") as pipe:
            assert pipe.read() == b"x" * 10**6 + b"\nend\n"
        assert process.communicate(timeout=20)[1] == b""
    assert process.returncode == 0


def test_a_folder_with_letters_that_the_terminal_does_not_know(tmp_path: Path, data_dir: Path) -> None:
    arguments = ["--epochs=1", f"--logdir={tmp_path / 'größe'}", f"--data_dir={data_dir}"]
    done = run(["main.py", *arguments], environment=PLAIN)
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"logs in {tmp_path / 'größe'}\n".encode() in done.stdout  # its bytes, to be copied from there
    assert (tmp_path / "größe" / "checkpoint.pt").exists()


@pytest.mark.parametrize("name", ["main", "grader", "experiments"])
def test_a_pipe_that_nobody_reads_ends_in_status_1_and_silence(name: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [sys.executable, *COMMANDS[name], "--help"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE
    ) as process:
        os.close(writer)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, b"")


@pytest.mark.parametrize(
    ("name", "message"),
    [("grader", "stopped"), ("probes", "stopped before the first probe began")],
)
def test_a_signal_while_a_command_starts_is_one_line(name: str, message: str) -> None:
    with subprocess.Popen([sys.executable, *COMMANDS[name]], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        if not maps.exists():
            process.kill()
            pytest.skip("sees how far the imports are in Linux's /proc")
        deadline = time.monotonic() + 60
        while "libtorch" not in maps.read_text() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (143, f"{message}\n")


@pytest.mark.long
@pytest.mark.parametrize("name", ["main", pytest.param("experiments", marks=pytest.mark.exhaustive)])
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(name: str, tmp_path: Path, data_dir: Path) -> None:
    """As Ctrl-C is by the jobs that a script puts into the background."""
    script = 'trap "" INT; "$@" & sleep 1; for n in 1 2 3 4; do kill -INT $!; sleep 0.3; done; wait $!'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, *short(name, tmp_path, data_dir)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "stopped" not in done.stderr
    assert (tmp_path / WRITTEN[name]).exists()


def test_unbuffered_output_comes_at_once_and_files_come_before_a_broken_pipe(tmp_path: Path) -> None:
    program = "import time; from cli import command; command.begin(); print('early'); time.sleep(20)"
    with subprocess.Popen([sys.executable, "-u", "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        started = time.monotonic()
        assert process.stdout.readline() == b"early\n"
        assert time.monotonic() - started < 10
        process.kill()
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-u", "grader.py", "1a-2-basic", "--csv", str(tmp_path / "grades.csv")]
    with subprocess.Popen(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE) as grader:
        os.close(writer)
        _, errors = grader.communicate(timeout=60)
    assert (grader.returncode, len(errors.splitlines())) == (1, 1)
    assert errors.startswith(b"confined by: ")
    assert (tmp_path / "grades.csv").exists()
