"""Files that are never half written, even if the writer is killed; checks of output folders."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cli import files

BODY = bytes(range(256)) * 4000


def test_a_file_gets_its_name_only_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        files.write_whole(BODY, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(OSError, match="file cannot be written: No such file or directory"):
        files.write_whole(BODY, tmp_path / "none" / "file")


def test_concurrent_writers_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writers = [threading.Thread(target=files.write_whole, args=(bytes([k]) * 300_000, path)) for k in range(8)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 300_000
            assert len(set(content)) == 1
    assert len(set(path.read_bytes())) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_killed_writer_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    """The process is killed while it waits for the disk."""
    program = (
        "import os, sys, time, pathlib\n"
        "from cli import files\n"
        "os.fsync = lambda _: (print('in', flush=True), time.sleep(60))\n"
        "files.write_whole(b'x' * 10**6, pathlib.Path(sys.argv[1]))\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, tmp_path / "file"], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"in\n"
    writer.kill()
    writer.wait()
    writer.stdout.close()
    assert not (tmp_path / "file").exists()
    (unfinished,) = tmp_path.iterdir()
    files.write_whole(b"whole", tmp_path / "file")
    assert unfinished.exists()  # its writer may still be running
    os.utime(unfinished, (0, 0))
    files.write_whole(b"whole", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file: expected a folder"):
        files.check_folder(tmp_path / "file")
    with pytest.raises(OSError, match="cannot be written: Not a directory"):
        files.check_folder(tmp_path / "file" / "below")
    files.check_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_pipe_is_written_directly(tmp_path: Path) -> None:
    """A file in its place would be seen by nobody, and one in the place of /dev/null by everybody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write_whole(b"whole", pipe)
    assert os.read(reader, 100) == b"whole"
    os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
