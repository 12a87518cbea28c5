"""Start and end of a command: poor, closed, full and broken standard streams, signals, errors.

A small command shows each behaviour, and the last tests show that real commands work on such streams. That every
command begins and ends in this way is checked by test_import_order.py in the source.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import command

ROOT = Path(__file__).parent.parent.parent
SMALL = """
import os, signal, sys
from cli import command
command.begin(when_stopped="stopped early")
{early}
def main():
    with open(sys.argv[1], "x") as file:
        print("written", file=file, flush=True)
        {work}
    return 0
command.end(main)
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}
Done = subprocess.CompletedProcess[bytes]


def run(*arguments: object, shell: str = '"$@"', environment: dict[str, str] | None = None) -> Done:
    """Run Python as a shell starts it, in the project's folder, with buffered output by default."""
    return subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "", **(environment or {})}, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip


def small(folder: Path, work: str, early: str = "") -> tuple[object, ...]:
    """Return Python's arguments for a command that writes a file and then does this work."""
    (folder / "file").unlink(missing_ok=True)
    return "-c", SMALL.format(work=work, early=early), folder / "file"


def run_without_reader(*arguments: object, stream: str = "stdout") -> tuple[int, bytes]:
    """Run Python with a closed pipe as this stream; return its status and the content of the other stream."""
    reader, writer = os.pipe()
    os.close(reader)
    output, errors = (writer, subprocess.PIPE) if stream == "stdout" else (subprocess.PIPE, writer)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": ""}, stdout=output, stderr=errors, timeout=120, check=False,
    )  # fmt: skip
    os.close(writer)
    return done.returncode, done.stdout or done.stderr or b""


def test_characters_that_a_stream_cannot_encode_are_escaped(tmp_path: Path) -> None:
    both = small(tmp_path, r"print('\u03bb \udcff'); print('gr\xf6\xdfe', file=sys.stderr)")
    done = run(*both, environment=ASCII)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\u03bb \\udcff\n", b"gr\\xf6\\xdfe\n")
    (tmp_path / "file").unlink()
    done = run(*both, environment={"PYTHONIOENCODING": "utf-8"})
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "λ \\udcff\n", "größe\n")


@pytest.mark.parametrize(
    ("closed", "output", "errors"),
    [(">&-", b"", b"err"), ("2>&-", b"outout\n", b""), (">&- 2>&-", b"", b""), ("<&- >&- 2>&-", b"", b"")],
)
def test_a_closed_stream_is_the_null_device(closed: str, output: bytes, errors: bytes, tmp_path: Path) -> None:
    """No file gets the number of the stream and then its output."""
    work = "print('out'); os.write(1, b'out'); os.write(2, b'err')"
    done = run(*small(tmp_path, work), shell=f'"$@" {closed}')
    assert (done.returncode, done.stdout, done.stderr) == (0, output, errors)
    assert (tmp_path / "file").read_text() == "written\n"


@pytest.mark.parametrize("flags", [(), ("-u",)])
def test_a_full_disk_is_one_line_and_status_1(flags: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*flags, *small(tmp_path, "print('x')"), shell='"$@" >/dev/full')
    assert (done.returncode, done.stderr) == (1, b"output cannot be written: No space left on device\n")


@pytest.mark.parametrize("flags", [(), ("-u",)])
@pytest.mark.parametrize("body", ["print('x')", "from cli.arguments import Parser; Parser('x').parse_args(['--help'])"])
def test_output_into_a_closed_pipe_is_status_1_and_silence(flags: tuple[str, ...], body: str, tmp_path: Path) -> None:
    assert run_without_reader(*flags, *small(tmp_path, body)) == (1, b"")


@pytest.mark.parametrize("flags", [(), ("-u",)])
def test_a_command_continues_where_stderr_cannot_be_written(flags: tuple[str, ...], tmp_path: Path) -> None:
    command_line = small(tmp_path, "print('x', file=sys.stderr)")
    assert run_without_reader(*flags, *command_line, stream="stderr") == (0, b"")
    (tmp_path / "file").unlink()
    assert run(*flags, *command_line, shell='"$@" 2>/dev/full').returncode == 0


def test_another_error_keeps_its_traceback(tmp_path: Path) -> None:
    done = run(*small(tmp_path, "raise OSError(5, 'Input/output error')"))
    assert done.returncode == 1
    assert done.stderr.startswith(b"Traceback")


def test_a_pipe_that_does_not_block_gets_all_output(tmp_path: Path) -> None:
    """Some terminals and schedulers pass such a pipe to a process."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command_line = [sys.executable, *map(str, small(tmp_path, "print('x' * 10**6)"))]
    with subprocess.Popen(command_line, cwd=ROOT, stdout=writer) as process:
        os.close(writer)
        while not (tmp_path / "file").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        with open(reader, "rb") as pipe:
            assert pipe.read() == b"x" * 10**6 + b"\n"
    assert process.returncode == 0


def test_unbuffered_output_is_written_at_once(tmp_path: Path) -> None:
    command_line = [sys.executable, "-u", *map(str, small(tmp_path, "print('now'); signal.pause()"))]
    with subprocess.Popen(command_line, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.kill()


@pytest.mark.parametrize(("name", "status"), [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_a_signal_is_one_line_and_its_status(name: str, status: int, tmp_path: Path) -> None:
    """This holds before and during the work; a signal that is ignored from the start stays ignored."""
    kill = f"os.kill(os.getpid(), signal.SIG{name})"
    done = run(*small(tmp_path, "", early=kill))
    assert (done.returncode, done.stderr) == (status, b"stopped early\n")
    assert not (tmp_path / "file").exists()
    done = run(*small(tmp_path, kill))
    assert (done.returncode, done.stderr) == (status, b"stopped\n")
    done = run(*small(tmp_path, kill, early=kill), shell=f'trap "" {name}; "$@"')
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("second", ["TERM", "HUP"])
def test_a_second_signal_does_not_interrupt_the_end(second: str, tmp_path: Path) -> None:
    """A closing terminal sends SIGHUP twice: from the system and from the shell."""
    kill = "os.kill(os.getpid(), signal.SIG{})"
    work = f"\n        try: {kill.format('HUP')}\n        finally: {kill.format(second)}"
    done = run(*small(tmp_path, work))
    assert (done.returncode, done.stderr) == (129, b"stopped\n")


def test_a_system_without_sighup_has_the_other_signals(tmp_path: Path) -> None:
    """The deleted name is what Python for Windows lacks."""
    kill = "os.kill(os.getpid(), signal.SIGTERM)"
    without = SMALL.replace("from cli", "del signal.SIGHUP\nfrom cli")
    done = run("-c", without.format(work=kill, early=""), tmp_path / "file")
    assert (done.returncode, done.stderr) == (143, b"stopped\n")


def test_a_second_ctrl_c_ends_the_process_at_once(tmp_path: Path) -> None:
    kill = "os.kill(os.getpid(), signal.SIGINT)"
    done = run(*small(tmp_path, f"\n        try: {kill}\n        finally: {kill}"), shell='"$@"; echo $?')
    assert (done.stdout, done.stderr) == (b"130\n", b"")


def test_an_error_that_a_user_can_correct_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.fail("main.py", ValueError("epochs is 0:\n  expected at least 1")) == 2
    assert capsys.readouterr().err == "main.py: error: epochs is 0: expected at least 1\n"
    with pytest.raises(BrokenPipeError):
        command.fail("main.py", BrokenPipeError())


@pytest.mark.parametrize(
    ("shell", "environment", "status", "errors"),
    [
        ('"$@" <&- >&- 2>&-', {}, 0, b""),
        pytest.param('"$@"', ASCII, 0, b"", marks=pytest.mark.long),
        ('"$@" >/dev/full', {}, 1, b"output cannot be written: No space left on device\n"),
    ],
    ids=["closed", "ascii", "full"],
)
def test_a_run_trains_to_its_end_on_poor_streams(
    shell: str, environment: dict[str, str], status: int, errors: bytes, tmp_path: Path, data_dir: Path
) -> None:
    logdir = tmp_path / "größe"
    arguments = ("--epochs=1", f"--logdir={logdir}", f"--data_dir={data_dir}")
    done = run("main.py", *arguments, shell=shell, environment=environment)
    assert (done.returncode, done.stderr) == (status, errors)
    assert done.stdout.isascii()
    assert {"checkpoint.pt", "metrics.csv"} <= {path.name for path in logdir.iterdir()}
    assert not [path for path in logdir.iterdir() if b"logs in" in path.read_bytes()]


@pytest.mark.parametrize(
    ("command_line", "written"),
    [
        ("grader.py 1a-2-basic --csv {folder}/grades.csv", "grades.csv"),
        pytest.param(
            "experiments.py --epochs 1 --seeds 1 --logdir {folder} --data_dir {data}",
            "summary.csv",
            marks=pytest.mark.long,
        ),
    ],
)
def test_files_are_written_before_output_into_a_closed_pipe(
    command_line: str, written: str, tmp_path: Path, data_dir: Path
) -> None:
    status, errors = run_without_reader("-u", *command_line.format(folder=tmp_path, data=data_dir).split())
    assert status == 1
    assert b"Traceback" not in errors
    assert b"Broken" not in errors
    assert (tmp_path / written).stat().st_size > 0


@pytest.mark.long
def test_the_grader_keeps_its_status_where_all_streams_are_closed(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("class MultiTaskNet: pass\n")
    for status, submission in ((0, ()), (1, ("--submission", tmp_path / "models.py"))):
        table = tmp_path / "grades.csv"
        done = run("grader.py", "1a-2-basic", "--csv", table, *submission, shell='"$@" <&- >&- 2>&-')
        assert done.returncode == status
        assert table.read_text().splitlines()[1].split(",")[2] == str(1 - status)


@pytest.mark.long
@pytest.mark.parametrize(
    ("command_line", "seconds"),
    [
        ("grader.py 1a-2-basic", 0.8),
        ("experiments.py --epochs 1000000 --seeds 1 --logdir {folder} --data_dir {data}", 4),
        ("tune.py --jobs 2 --logdir {folder} --data_dir {data}", 8),
    ],
)
def test_a_command_with_child_processes_is_stopped_in_one_line_and_leaves_none(
    command_line: str, seconds: float, tmp_path: Path, data_dir: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, *command_line.format(folder=tmp_path, data=data_dir).split()],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert len([line for line in errors.splitlines() if "stopped" in line]) == 1
    deadline = time.monotonic() + 10
    while _is_any_process_left(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_any_process_left(process.pid)


def _is_any_process_left(session: int) -> bool:
    """Return whether a process that the command started still runs; zombies do not count (Linux)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just exited
            continue
        if int(its_session) == session and state != "Z":
            return True
    return False


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP of other systems is not GNU's")
@pytest.mark.parametrize(("before", "spins"), [("unset OMP_WAIT_POLICY", 0), ("export OMP_WAIT_POLICY=active", 3e10)])
def test_threads_of_torch_sleep_while_they_wait(before: str, spins: float) -> None:
    code = 'from cli import command; command.begin(); __import__("torch")'
    shown = run("-c", code, shell=f'{before}; "$@"', environment={"OMP_DISPLAY_ENV": "verbose"}).stderr.decode()
    assert f"GOMP_SPINCOUNT = '{spins:.0f}'" in shown
