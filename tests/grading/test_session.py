"""Questions to a submission's process: messages, forged answers, processes that stay."""

import socket
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from grading.checks import import_models
from grading.inside.messages import Values, pack, receive
from grading.inside.processes import DYING
from grading.sandbox import Sandbox, start_removing
from grading.session import WARDEN_TIMEOUT, Unanswered

MODELS = (Path(__file__).parent.parent.parent / "models.py").read_bytes()


def test_received_values_equal_the_packed_ones() -> None:
    values: Values = {
        "matrix": np.arange(6, dtype=np.int32).reshape(2, 3),
        "transposed": np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
        "empty": np.zeros((0, 4), np.float32),
        "number": np.array(3.0),
        "list": [1, 2.5, None, "ü"],
    }
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(pack(values, token="t"))
        received = receive(theirs)
        assert received is not None
        message, got = received
        assert message["token"] == "t"
        assert got.keys() == values.keys()
        assert got["list"] == values["list"]
        for name in ("matrix", "transposed", "empty", "number"):
            np.testing.assert_array_equal(got[name], values[name])
            assert (got[name].dtype, got[name].shape) == (values[name].dtype, values[name].shape)
        ours.close()
        assert receive(theirs) is None


def test_an_answer_that_was_written_before_its_question_does_not_count() -> None:
    """The submission forges a bias of zeros in the protocol's own form; its real bias is not zero."""
    forged = MODELS + (
        b"import os, numpy\n"
        b"class MultiTaskNet(MultiTaskNet):\n"
        b"    def init_item_bias(self, num_users, num_items):\n"
        b"        return nn.Embedding(num_items, 1)\n"
        b"from grading.inside.messages import pack\n"
        b"for number in range(3, 32):\n"
        b"    try:\n"
        b"        os.write(number, pack({'table': numpy.zeros((1683, 1), 'float32')}, token=''))\n"
        b"    except OSError:\n"
        b"        pass\n"
    )
    with Sandbox() as sandbox, sandbox.session({"models.py": forged}, 20) as session:
        with pytest.raises(Unanswered, match="not an answer"):
            import_models(session.ask)
        with pytest.raises(Unanswered, match="not an answer"):
            session.ask("bias")


DAEMON = b"""
import os, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(writer, b"x")
    time.sleep(8)
    os._exit(0)
os.read(reader, 1)  # waits until it has left the group
class MultiTaskNet: pass
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="finds a daemon as Linux does")
def test_a_process_that_cannot_be_ended_is_reported() -> None:
    """Without the walls that keep a process in its group. The next submission is graded as usual."""
    assert WARDEN_TIMEOUT > DYING + 1
    with Sandbox((), unconfined=True) as sandbox:
        with (
            pytest.raises(OSError, match="has left processes that cannot be ended"),
            sandbox.session({"models.py": DAEMON}, 20) as session,
        ):
            import_models(session.ask)
        with sandbox.session({"models.py": b"class MultiTaskNet: pass"}, 20) as session:
            import_models(session.ask)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
def test_nothing_outlives_a_sandbox_whose_warden_was_killed() -> None:
    """Not even a process that has left the session and has an empty environment."""
    code = b"""import os, signal, subprocess
subprocess.Popen(['/bin/sleep', '4242.5'], env={}, start_new_session=True)
os.kill(os.getppid(), signal.SIGKILL)
"""
    with Sandbox() as sandbox:
        with sandbox.session({"models.py": code}, 20) as session, pytest.raises(Unanswered):
            import_models(session.ask)
        assert not any(b"4242.5" in path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
        with sandbox.session({"models.py": MODELS}, 20) as session:
            import_models(session.ask)


def test_a_folder_is_removed_however_deep_and_closed_it_is(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    folder = tmp_path / "folder"
    inner = folder
    for _ in range(3):
        inner = inner / "x" / "y"
        inner.mkdir(parents=True)
    (inner / "link").symlink_to(outside)
    inner.chmod(0)
    start_removing(folder).wait()
    assert not folder.exists()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o500
