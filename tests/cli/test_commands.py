"""Every command on terminals that know little, with streams that are closed or full, and stopped while it starts."""

import os
import re
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
    "probes": ["-m", "study.probes"],
    **{path.stem: [f"benchmarks/{path.name}"] for path in sorted((ROOT / "benchmarks").glob("*.py"))},
}
COMMANDS.pop("peer_models")  # which peers.py starts, in an environment of its own
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


def run(
    command: list[str], redirection: str = "", environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """A command as a shell starts it, in the project's folder."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, *command],
        cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_help_on_an_ascii_terminal(name: str) -> None:
    done = run([*COMMANDS[name], "--help"], environment=PLAIN)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"usage: ")
    assert done.stdout.isascii()


@pytest.mark.parametrize("name", ["main", "grader", "experiments", "probes"])
def test_a_full_disk_is_one_line_on_the_other_stream(name: str) -> None:
    done = run([*COMMANDS[name], "--help"], ">/dev/full")
    assert (done.returncode, done.stderr) == (0, b"standard output could not be written: No space left on device\n")


def test_what_a_stream_cannot_carry_is_escaped() -> None:
    assert b"\\u03bb_F, weight of the BPR loss" in run(["main.py", "--help"], environment=PLAIN).stdout
    utf8 = run(["main.py", "--help"], environment={"PYTHONIOENCODING": "utf-8"})
    assert "λ_F, weight of the BPR loss" in utf8.stdout.decode()


@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_a_run_trains_to_its_end_whatever_its_streams_are(redirection: str, tmp_path: Path, data_dir: Path) -> None:
    arguments = ["--epochs=1", f"--logdir={tmp_path / 'run'}", f"--data_dir={data_dir}"]
    done = run(["main.py", *arguments], REDIRECTIONS[redirection])
    assert done.returncode == 0, done
    assert b"Traceback" not in done.stderr
    assert {"checkpoint.pt", "metrics.csv"} <= {path.name for path in (tmp_path / "run").iterdir()}
    # No file of the run has taken a closed stream's number, and what is printed with it.
    for path in (tmp_path / "run").iterdir():
        assert b"logs in" not in path.read_bytes()


@pytest.mark.parametrize("redirection", ["all closed", "output full", "both full"])
def test_the_grader_keeps_its_status_whatever_its_streams_are(redirection: str, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("class MultiTaskNet: pass\n")
    for status, arguments in ((0, []), (1, ["--submission", str(tmp_path / "models.py")])):
        command = ["grader.py", "1a-2-basic", "--csv", str(tmp_path / "grades.csv"), *arguments]
        done = run(command, REDIRECTIONS[redirection])
        assert done.returncode == status, done
        assert b"Traceback" not in done.stderr
        assert (tmp_path / "grades.csv").read_text().splitlines()[1].split(",")[2] == str(1 - status)


def test_the_experiments_finish_on_streams_that_are_closed(tmp_path: Path, data_dir: Path) -> None:
    arguments = ["--epochs=1", "--seeds=1", f"--logdir={tmp_path}", f"--data_dir={data_dir}"]
    done = run(["experiments.py", *arguments], REDIRECTIONS["all closed"])
    assert done.returncode == 0, done
    assert (tmp_path / "summary.csv").exists()


def test_a_folder_with_letters_that_the_terminal_does_not_know(tmp_path: Path, data_dir: Path) -> None:
    arguments = ["--epochs=1", f"--logdir={tmp_path / 'größe'}", f"--data_dir={data_dir}"]
    done = run(["main.py", *arguments], environment=PLAIN)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"logs in " in done.stdout
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
    [("grader", "stopped before the grading began"), ("probes", "stopped before the first probe began")],
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


def test_a_signal_that_was_ignored_from_the_start_stays_ignored() -> None:
    """As Ctrl-C is by the jobs that a script puts into the background."""
    program = "import signal; from cli import signals; signals.end_process('x'); print(signal.getsignal(signal.SIGINT))"
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", program],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.fullmatch(r"Handlers.SIG_IGN|1", done.stdout.strip())


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
