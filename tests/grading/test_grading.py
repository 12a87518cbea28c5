"""The grader's parts: messages that nobody has to trust, the float64 oracle, and finding models.py."""

import random
import socket
import stat
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from grading import guard, submissions
from grading.compare import Wrong, close, mlp
from grading.messages import LENGTHS, Answer, Unanswered, pack, receive, unpack
from grading.oracle import look_up
from grading.sandbox import Sandbox, remove
from grading.session import WARDEN_TIMEOUT
from models import MultiTaskNet

MODELS = (Path(__file__).parent.parent.parent / "models.py").read_bytes()


def parts(message: bytes) -> tuple[bytes, bytes]:
    text, _ = LENGTHS.unpack(message[: LENGTHS.size])
    return message[LENGTHS.size : LENGTHS.size + text], message[LENGTHS.size + text :]


def test_what_is_packed_is_what_is_unpacked() -> None:
    matrix, empty, number = np.arange(6, dtype=np.int32).reshape(2, 3), np.zeros((0, 4), np.float32), np.array(3.0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(pack({"a": [1, 2.5, None, "ü", matrix], "b": {"c": empty, "d": number}}))
        got = receive(theirs)
        assert got["a"][:4] == [1, 2.5, None, "ü"]
        for array, expected in ((got["a"][4], matrix), (got["b"]["c"], empty), (got["b"]["d"], number)):
            np.testing.assert_array_equal(array, expected)
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        ours.close()
        assert receive(theirs) is None


def test_a_damaged_message_is_an_error_or_a_value_and_nothing_else() -> None:
    draw = random.Random(0)
    whole = pack({"x": np.arange(10.0), "y": [np.ones((2, 2), np.float32), "text", {"z": 1}]})
    refused = 0
    for _ in range(2000):
        text, payload = map(bytearray, parts(whole))
        for _ in range(draw.randint(1, 4)):
            text[draw.randrange(len(text))] = draw.choice(b'{}[]",:0123456789aexy-')
        try:
            unpack(bytes(text), bytes(payload[: draw.randrange(len(payload) + 1)]))
        except ValueError:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    "text",
    [
        b'{"value": {"array": 0}, "arrays": [["object", [1]]]}',
        b'{"value": {"array": 0}, "arrays": [["float32", [1000000000000]]]}',
        b'{"value": {"array": 0}, "arrays": [["float32", [-1]]]}',
        b'{"value": {"array": 0}, "arrays": [["float32", [true]]]}',
        b'{"value": {"array": 1}, "arrays": [["float32", [2]]]}',
        b'{"value": [{"array": 0}, {"array": 0}], "arrays": [["float32", [2]]]}',
        b'{"value": 1}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_hostile_messages_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        unpack(text, bytes(8))


def test_an_answer_of_another_form_is_no_answer() -> None:
    answer = Answer({"array": np.zeros(2), "list": [1, "a"], "number": 3})
    np.testing.assert_array_equal(answer.array("array"), [0, 0])
    for wrong in (
        lambda: answer.array("number"),
        lambda: answer.array("missing"),
        lambda: answer.arrays("list"),
        lambda: answer.named_arrays(),
        lambda: answer.texts("list"),
        lambda: answer.integers("list"),
        lambda: answer.text_lists("list"),
        lambda: answer.shapes("list"),
        lambda: Answer([1]).array("array"),
    ):
        with pytest.raises(Unanswered):
            wrong()


@pytest.mark.parametrize("sharing", [True, False])
def test_the_oracle_is_the_equations(sharing: bool) -> None:
    """Against the network in double precision, pair by pair."""
    torch.manual_seed(0)
    net = MultiTaskNet(20, 30, 4, (12, 7, 5), sharing).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    tables = ("U", "Q") if sharing else ("U_reg", "Q_reg", "U_fact", "Q_fact")
    parameters = {name: getattr(net, name).weight.detach().numpy() for name in (*tables, "B")}
    for place, layer in enumerate(each for each in net.mlp_layers if isinstance(each, torch.nn.Linear)):
        parameters[f"mlp.{place}.weight"] = layer.weight.detach().numpy()
        parameters[f"mlp.{place}.bias"] = layer.bias.detach().numpy()
    users, items = np.arange(20), np.arange(20) + 7
    predictions, score = net(torch.tensor(users), torch.tensor(items))
    pairs = look_up(parameters, tables, users, items, 4)
    np.testing.assert_allclose(pairs.interactions(), predictions.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(pairs.ratings(), score.detach().numpy(), rtol=1e-12)
    for mistakes, right, other_task in (
        (pairs.mistaken_interactions(), pairs.interactions(), "regression tables"),
        (pairs.mistaken_ratings(), pairs.ratings(), "factorization tables"),
    ):
        same = [name for name, values in mistakes.items() if close(values, right)]
        assert len(same) == sharing  # where there are no other tables to take by mistake
        assert all(other_task in name for name in same)
    with pytest.raises(Wrong, match=f"{tables[-1]} has shape"):
        look_up(parameters | {tables[-1]: np.zeros((30, 3))}, tables, users, items, 4)


def test_layers_of_odd_shapes_are_not_computed_with() -> None:
    ones = np.ones((5, 12))
    parameters = {"mlp.0.weight": np.ones((1, 12)), "mlp.0.bias": np.zeros(1)}
    np.testing.assert_array_equal(mlp(ones, parameters), np.full(5, 12.0))
    assert np.isnan(mlp(ones, {"mlp.0.weight": np.ones((2, 12))})).all()
    assert np.isnan(mlp(ones, {"mlp.0.weight": np.ones((1, 12, 1))})).all()
    with pytest.raises(Wrong, match="a linear layer has a weight of shape"):
        mlp(ones, parameters | {"mlp.0.bias": np.zeros((60_000, 1, 1))})


def test_an_answer_that_was_written_before_its_question_does_not_count() -> None:
    """Zeros for the bias, forged in the protocol's own form, ahead of the bias that is not zero."""
    forged = MODELS + (
        b"import os, numpy\n"
        b"class MultiTaskNet(MultiTaskNet):\n"
        b"    def init_item_bias(self, num_users, num_items):\n"
        b"        return nn.Embedding(num_items, 1)\n"
        b"from grading.messages import pack\n"
        b"for number in range(3, 32):\n"
        b"    try:\n"
        b"        os.write(number, pack({'token': '', 'answer': {'weights': numpy.zeros((1683, 1), 'float32')}}))\n"
        b"    except OSError:\n"
        b"        pass\n"
    )
    with Sandbox() as sandbox, sandbox.session({"models.py": forged}, 20) as session:
        with pytest.raises(Unanswered, match="no answer"):
            session.ask("load", num_users=944, num_items=1683, embedding_dim=32, layer_sizes=[96, 64])
        with pytest.raises(Unanswered, match="no answer"):
            session.ask("bias")


DAEMON = b"""
import os, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(writer, b"x")
    time.sleep(8)
    os._exit(0)
os.read(reader, 1)  # not before it has left the group
class MultiTaskNet: pass
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="finds a daemon as Linux does")
def test_what_cannot_be_ended_is_said() -> None:
    """Without the walls that keep a process in its group; and the next submission is asked as if nothing had been."""
    assert WARDEN_TIMEOUT > guard.DYING + 1  # who waits for the warden waits longer than the warden tries
    sizes = {"num_users": 1, "num_items": 1, "embedding_dim": 1, "layer_sizes": [3]}
    with Sandbox((), unconfined=True) as sandbox:
        with (
            pytest.raises(OSError, match="has left processes that cannot be ended"),
            sandbox.session({"models.py": DAEMON}, 20) as session,
        ):
            session.ask("load", **sizes)
        with sandbox.session({"models.py": b"class MultiTaskNet: pass"}, 20) as session:
            session.ask("load", **sizes)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
def test_nothing_outlives_a_sandbox_whose_warden_was_killed() -> None:
    """Not even what has left the session, and has an environment by which nobody would know it."""
    code = (
        b"import os, signal, subprocess\nsubprocess.Popen(['/bin/sleep', '4242.5'], env={}, start_new_session=True)\n"
    )
    with Sandbox() as sandbox:
        files = {"models.py": code + b"os.kill(os.getppid(), signal.SIGKILL)\n"}
        with sandbox.session(files, 20) as session, pytest.raises(Unanswered):
            session.ask("load", num_users=944, num_items=1683, embedding_dim=32, layer_sizes=[96, 64])
        assert not any(b"4242.5" in path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
        with sandbox.session({"models.py": MODELS}, 20) as session:
            session.ask("load", num_users=944, num_items=1683, embedding_dim=32, layer_sizes=[96, 64])


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
    remove(folder)
    assert not folder.exists()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o500


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"models.py": b"1"}, {"models.py"}),
        ({"models.py": b"1", "submission/models.py": b"2"}, {"models.py", "submission/models.py"}),
        ({"submission/models.py": b"1", "submission/a/b.py": b"", "c.py": b""}, {"models.py", "a/b.py"}),
        ({"hw/submission/models.py": b"1", "__MACOSX/models.py": b"", ".git/models.py": b""}, {"models.py"}),
        ({"models.py": b"1", "data.csv": b"", "run/events": b""}, {"models.py"}),
    ],
)
def test_models_py_is_found_in_zips_and_folders(files: dict[str, bytes], found: set[str], tmp_path: Path) -> None:
    read = submissions.read(make_zip(tmp_path / "submission.zip", files))
    assert set(read) == found
    assert read["models.py"] == b"1"
    folder = tmp_path / "folder"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert submissions.read(folder)["models.py"] == b"1"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"/models.py": b""}, "leads out of it"),
        ({"../models.py": b""}, "leads out of it"),
        ({"a\\..\\models.py": b""}, "leads out of it"),
        ({"C:/models.py": b""}, "leads out of it"),
        ({"models.py": bytes(2**20 + 1)}, "models.py is larger than 1,048,576 bytes"),
        ({"models.py": b"", "x\n.py": b""}, "odd characters"),
        ({"models.py": b"", "x" * 300: b""}, "odd characters or too many of them"),
        ({"models.py": b"", "x.py": b"", "x.py/y.py": b""}, "a file and a folder of one name, above x.py/y.py"),
        ({"a/models.py": b"", "b/models.py": b""}, "there is more than one, in a, b: expected one models.py"),
        ({"main.py": b""}, "there is none: expected one models.py"),
        ({"models.py": b"\0"}, "neither Python source nor a zip"),
        ({str(n): b"" for n in range(20_001)}, "20,001 files"),
    ],
)
def test_zips_that_are_refused(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "submission.zip", files)
    with pytest.raises(submissions.Unreadable, match=message):
        submissions.read(path)


def test_a_zip_that_unpacks_to_gigabytes_links_or_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models.py", MODELS)
        with archive.open("zeros", "w", force_zip64=True) as file:
            for _ in range(2**10 // 16 + 1):
                file.write(bytes(2**24))
    with pytest.raises(submissions.Unreadable, match="would unpack to"):
        submissions.read(path)
    # One that says less than it holds.
    make_zip(path, {"models.py": bytes(2**22)})
    lying = path.read_bytes().replace((2**22).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    path.write_bytes(lying)
    with pytest.raises(submissions.Unreadable):
        submissions.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("models.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(submissions.Unreadable, match="a link"):
        submissions.read(path)
    whole = make_zip(path, {"models.py": MODELS}).read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            files = submissions.read(path)
        except submissions.Unreadable:
            continue
        assert files.keys() == {"models.py"}


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "solution.py").write_bytes(MODELS)
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "models.py").symlink_to(tmp_path / "solution.py")
    with pytest.raises(submissions.Unreadable, match=r"models\.py is a link that leads out of the submission"):
        submissions.read(tmp_path / "student")
    assert submissions.read(tmp_path / "student" / "models.py") == {"models.py": MODELS}
