"""The process in which a submission runs: it answers questions about it, and knows nothing of what is expected.

``sandbox.py`` starts a copy of this file with clean surroundings. It stays as the *warden*: for each check it forks a
*worker*, which loads the submission's models.py and answers questions (the methods of ``Submission``) with plain
arrays, and it ends whatever the worker leaves behind. Torch is loaded once, before the first fork.

What comes from a worker is only as honest as the submission, which can change everything in its process. Whoever
asks must therefore check each answer's form, and compute from the arrays themselves what they are worth.

A message is two lengths (bytes of JSON, bytes of arrays; uint32 big-endian), JSON {"value": …, "arrays": [[dtype,
shape], …]} in which {"array": k} stands for the k-th array, and the arrays' bytes in C order.
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib.util
import inspect
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path += sys.argv[2:]  # where torch and numpy are

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LENGTHS = struct.Struct(">II")
LARGEST_JSON, LARGEST_ARRAYS = 2**22, 2**27  # bytes
DTYPES = ("float32", "float64", "int64", "int32", "int16")

PARENT_DIED, BECOME_SUBREAPER = 1, 36  # prctl(2)
LOOK_EVERY = 0.05  # seconds between looks at a worker's memory
LARGEST_FILE = 2**26  # bytes that a submission can write into one file
BLOCK_PAIRS = 2**13  # pairs of ids at a time when all are asked for: what fits into a processor's cache


def pack(value: Any) -> bytes:
    """A message of dicts, lists, strings, numbers and numpy arrays."""
    arrays: list[NDArray[Any]] = []

    def without_arrays(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            arrays.append(np.ascontiguousarray(part).reshape(part.shape))
            return {"array": len(arrays) - 1}
        if isinstance(part, dict):
            return {name: without_arrays(each) for name, each in part.items()}
        if isinstance(part, list | tuple):
            return [without_arrays(each) for each in part]
        return part

    text = json.dumps({"value": without_arrays(value), "arrays": [[x.dtype.name, x.shape] for x in arrays]}).encode()
    payload = b"".join(x.tobytes() for x in arrays)
    return LENGTHS.pack(len(text), len(payload)) + text + payload


def lengths(header: bytes) -> tuple[int, int]:
    """The two lengths with which a message begins.

    Raises:
        ValueError: they are larger than any message.
    """
    text, payload = LENGTHS.unpack(header)
    if text > LARGEST_JSON or payload > LARGEST_ARRAYS:
        raise ValueError(f"a message of {text} + {payload} bytes")
    return text, payload


def unpack(text: bytes, payload: bytes) -> Any:
    """The value of a message, from its two parts. Nothing in it is trusted.

    Raises:
        ValueError: it is not well-formed.
    """
    try:
        message = json.loads(text)
        arrays, start = [], 0
        for dtype, shape in message["arrays"]:
            if dtype not in DTYPES or not all(type(size) is int and 0 <= size <= LARGEST_ARRAYS for size in shape):
                raise ValueError(f"an array of type {dtype!r} and shape {shape!r}")
            count = 1
            for size in shape:
                count *= size
            end = start + count * np.dtype(dtype).itemsize
            if end > len(payload):
                raise ValueError("an array that is not there")
            arrays.append(np.frombuffer(payload[start:end], dtype).reshape(shape))
            start = end

        def with_arrays(part: Any) -> Any:
            if isinstance(part, dict):
                if part.keys() == {"array"}:
                    return arrays[part["array"]]
                return {name: with_arrays(each) for name, each in part.items()}
            return [with_arrays(each) for each in part] if isinstance(part, list) else part

        return with_arrays(message["value"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise ValueError(f"not a message: {error}") from error


class Unexpected(Exception):
    """The submission's code ran, but gave something that cannot be used."""


class Submission:
    """A submission's models.py. Each public method is a question; it takes and returns what ``pack`` can carry.

    Args:
        code: the folder that holds models.py.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        self.module: ModuleType | None = None
        self.net: Any = None

    def load(self) -> str:
        """Import models.py."""
        sys.path.append(self.code)  # at the end: what lies beside models.py cannot take the place of a real package
        spec = importlib.util.spec_from_file_location("models", os.path.join(self.code, "models.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["models"] = module
        spec.loader.exec_module(module)
        if not isinstance(getattr(module, "MultiTaskNet", None), type):
            raise Unexpected("models.py has no class MultiTaskNet")
        self.module = module
        return "loaded"

    def tables(self, sharing: bool) -> dict[str, Any]:
        """What init_shared_… or init_separate_user_and_item_embeddings returns.

        Returns:
            classes: of each table, the names of its class and of those it derives from.
            weights: their arrays.
            memory: numbers, equal where two tables are the same memory.
        """
        kind, names = ("shared", ["U", "Q"]) if sharing else ("separate", ["U_reg", "Q_reg", "U_fact", "Q_fact"])
        method = f"init_{kind}_user_and_item_embeddings"
        returned = self._initialize(method, sharing, names, 944, 1683, 32)
        try:
            tables = list(returned)
        except TypeError:
            raise Unexpected(f"{method} returned {_kind(returned)}: expected {len(names)} embeddings") from None
        weights = [_weight(table, f"element {place} of what {method} returned") for place, table in enumerate(tables)]
        return {
            "classes": [[each.__name__ for each in type(table).__mro__] for table in tables],
            "weights": [_numpy(weight) for weight in weights],
            "memory": [weight.data_ptr() for weight in weights],
        }

    def bias(self) -> dict[str, Any]:
        """What init_item_bias returns: its array."""
        returned = self._initialize("init_item_bias", True, ["B"], 944, 1683)
        return {"weights": _numpy(_weight(returned, "what init_item_bias returned"))}

    def mlp(self, layer_sizes: list[int], inputs: NDArray[np.float32]) -> dict[str, Any]:
        """What init_mlp_layers returns.

        Returns:
            layers: the names of the layers' classes, in the order in which they are applied; of layers that are
                neither in an nn.Sequential nor in an nn.ModuleList the order is not known, and this is empty.
            parameters: "mlp.0.weight", "mlp.0.bias", …: the linear layers' arrays.
            outputs: for the (n, layer_sizes[0]) inputs.
        """
        mlp = self._initialize("init_mlp_layers", True, ["mlp_layers"], layer_sizes)
        if not isinstance(mlp, nn.Module):
            raise Unexpected(
                f"init_mlp_layers returned {_kind(mlp)}: expected an nn.Sequential or nn.ModuleList, whose parameters "
                "are the network's"
            )
        outputs: Any = torch.tensor(inputs)
        if isinstance(mlp, nn.ModuleList):
            for layer in mlp:
                outputs = layer(outputs)
        else:
            outputs = mlp(outputs)
        layers = [_layer_name(layer) for layer in _in_order(mlp) or ()]
        parameters = {name: _numpy(parameter) for name, parameter in _mlp_parameters(mlp).items()}
        return {"layers": layers, "parameters": parameters, "outputs": _numpy(_plain(outputs, "the output"))}

    def network(self, sharing: bool, seed: int) -> dict[str, Any]:
        """Make the network of all further questions, with 944 users and 1683 items; returns ``parameters()``."""
        torch.manual_seed(seed)
        self.net = self._construct(sharing)
        return self.parameters()

    def parameters(self) -> dict[str, Any]:
        """The network's arrays by what they are: U, Q, U_reg, …, B, mlp.0.weight, …; all others as "other.NAME"."""
        return {name: _numpy(parameter) for name, parameter in self._parameters().items()}

    def assign(self, values: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
        """Put values into the arrays of these names; returns ``parameters()``, in which aliases show."""
        parameters = self._parameters()
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(torch.tensor(value))
        return self.parameters()

    def forward(self, user_ids: NDArray[np.int64], item_ids: NDArray[np.int64]) -> dict[str, Any]:
        """The network's two outputs for pairs of ids: predictions and score."""
        predictions, score = self._forward(torch.tensor(user_ids), torch.tensor(item_ids))
        return {"predictions": _numpy(predictions), "score": _numpy(score)}

    def gradients(
        self,
        user_ids: NDArray[np.int64],
        item_ids: NDArray[np.int64],
        negative_ids: NDArray[np.int64],
        ratings: NDArray[np.float32],
    ) -> dict[str, Any]:
        """The gradients of the BPR loss and of the MSE, each by the names of ``parameters()``."""
        users, items, negatives = torch.tensor(user_ids), torch.tensor(item_ids), torch.tensor(negative_ids)
        parameters = self._parameters()
        learning = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}

        def gradients(loss: Tensor) -> dict[str, Any]:
            zeros = {name: np.zeros(parameter.shape, np.float32) for name, parameter in parameters.items()}
            if not loss.requires_grad:
                return zeros
            found = torch.autograd.grad(loss, list(learning.values()), allow_unused=True)
            return zeros | {n: _numpy(g.to_dense()) for n, g in zip(learning, found, strict=True) if g is not None}

        positive, _ = self._forward(users, items)
        negative, _ = self._forward(users, negatives)
        bpr = gradients((1 - torch.sigmoid(positive - negative)).mean())
        _, score = self._forward(users, items)
        return {"bpr": bpr, "mse": gradients(((score - torch.tensor(ratings)) ** 2).mean())}

    def train(
        self,
        user_ids: NDArray[np.int64],
        item_ids: NDArray[np.int64],
        negative_ids: NDArray[np.int64],
        ratings: NDArray[np.float32],
        batch_size: int,
    ) -> dict[str, Any]:
        """Train both tasks with Adam and equal weights on batches of (epochs, n) triples, in the order given.

        Returns:
            Nothing; or, of the first batch whose outputs have another shape than its ratings, which is the last:
            expected: that shape.
            got: the shapes of predictions and score.
        """
        users, items, negatives = torch.tensor(user_ids), torch.tensor(item_ids), torch.tensor(negative_ids)
        targets = torch.tensor(ratings)
        adam = torch.optim.Adam(self.net.parameters(), lr=1e-3, fused=True)
        self.net.train()
        for epoch in range(len(users)):
            for first in range(0, users.shape[1], batch_size):
                batch = (epoch, slice(first, first + batch_size))
                positive, score = self._forward(users[batch], items[batch])
                negative, _ = self._forward(users[batch], negatives[batch])
                if positive.shape != targets[batch].shape or score.shape != targets[batch].shape:
                    return {"expected": list(targets[batch].shape), "got": [list(positive.shape), list(score.shape)]}
                bpr_loss = (1 - torch.sigmoid(positive - negative)).mean()
                mse_loss = ((score - targets[batch]) ** 2).mean()
                adam.zero_grad()
                (0.5 * bpr_loss + 0.5 * mse_loss).backward()
                adam.step()
        return {}

    def all_pairs(self, num_users: int, num_items: int) -> dict[str, Any]:
        """Both outputs for every user and item, (num_users, num_items): nobody learns here which of them count."""
        users = torch.arange(num_users).repeat_interleave(num_items)
        items = torch.arange(num_items).repeat(num_users)
        self.net.eval()
        with torch.no_grad():
            blocks = [
                self._forward(*pairs) for pairs in zip(users.split(BLOCK_PAIRS), items.split(BLOCK_PAIRS), strict=True)
            ]
        return {
            name: _numpy(torch.cat(parts)).astype(np.float32).reshape(num_users, num_items)
            for name, parts in zip(("predictions", "score"), zip(*blocks, strict=True), strict=True)
        }

    def _initialize(self, method: str, sharing: bool, attributes: list[str], *arguments: Any) -> Any:
        """Call an init_* method, on an object that has nothing else where possible, as the course's grader does."""
        assert self.module is not None
        network: type = self.module.MultiTaskNet
        torch.manual_seed(0)
        if not hasattr(network, method):  # written into the constructor
            net = self._construct(sharing)
            missing = [name for name in attributes if not hasattr(net, name)]
            if missing:
                raise Unexpected(f"MultiTaskNet has neither a method {method} nor an attribute {missing[0]}")
            made = [getattr(net, name) for name in attributes]
            return made if len(made) > 1 else made[0]
        if issubclass(network, nn.Module):
            bare = network.__new__(network)
            nn.Module.__init__(bare)
            # One that reads what the constructor set is called again, on a whole network.
            with contextlib.suppress(AttributeError):
                return getattr(bare, method)(*arguments)
        return getattr(self._construct(sharing), method)(*arguments)

    def _construct(self, sharing: bool) -> Any:
        """A network of the course's size, whatever the order of the constructor's parameters."""
        assert self.module is not None
        network = self.module.MultiTaskNet
        named = {"num_users": 944, "num_items": 1683, "embedding_dim": 32, "layer_sizes": [96, 64]}
        ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((), named | {"embedding_sharing": sharing}),
            (tuple(named.values()), {"embedding_sharing": sharing}),
            ((*named.values(), sharing), {}),
        ]
        signature = inspect.signature(network)
        for positional, keywords in ways:
            try:
                signature.bind(*positional, **keywords)
            except TypeError:
                continue
            return network(*positional, **keywords)
        raise Unexpected(
            "the constructor takes other arguments: expected (num_users, num_items, embedding_dim, layer_sizes, "
            f"embedding_sharing), found {signature}"
        )

    def _forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.net(users, items)
        try:
            predictions, score = outputs
        except (TypeError, ValueError):
            raise Unexpected(
                f"forward returned {_kind(outputs)}: expected two tensors, predictions and score"
            ) from None
        dtype = next((parameter.dtype for parameter in self.net.parameters()), torch.float32)
        return _plain(predictions, "predictions", dtype), _plain(score, "score", dtype)

    def _parameters(self) -> dict[str, Tensor]:
        names = ["U", "Q", "U_reg", "Q_reg", "U_fact", "Q_fact", "B"]
        found = {name: _weight(getattr(self.net, name), name) for name in names if hasattr(self.net, name)}
        if hasattr(self.net, "mlp_layers"):
            found |= _mlp_parameters(self.net.mlp_layers)
        known = {id(parameter) for parameter in found.values()}
        others = {f"other.{n}": p for n, p in self.net.named_parameters() if id(p) not in known}
        return found | others


def _in_order(module: nn.Module) -> list[nn.Module] | None:
    """The layers of nested nn.Sequentials and nn.ModuleLists in their order; None where another container is in it."""
    if not isinstance(module, nn.Sequential | nn.ModuleList):
        return None if any(True for _ in module.children()) else [module]
    layers: list[nn.Module] = []
    for child in module:
        inner = _in_order(child)
        if inner is None:
            return None
        layers += inner
    return layers


def _layer_name(layer: nn.Module) -> str:
    return next((kind.__name__ for kind in (nn.Linear, nn.ReLU) if isinstance(layer, kind)), type(layer).__name__)


def _mlp_parameters(mlp: Any) -> dict[str, Tensor]:
    """The weights and biases of the linear layers in something that holds layers, in the order of registration."""
    modules = mlp.modules() if isinstance(mlp, nn.Module) else mlp if isinstance(mlp, list | tuple) else ()
    linears = [layer for layer in modules if isinstance(layer, nn.Linear)]
    return {
        f"mlp.{place}.{name}": parameter
        for place, layer in enumerate(linears)
        for name, parameter in (("weight", layer.weight), ("bias", layer.bias))
        if parameter is not None
    }


def _weight(table: Any, what: str) -> Tensor:
    """The parameter of an embedding, or a parameter itself."""
    weight = getattr(table, "weight", table)
    if not isinstance(weight, Tensor):
        raise Unexpected(f"{what} is {_kind(table)}: expected an embedding")
    return weight


def _plain(output: Any, what: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """An output, if it is a tensor and no subclass, which could say of itself what it likes."""
    if type(output) is not Tensor:
        raise Unexpected(f"{what}: {_kind(output)}; expected a torch.Tensor")
    if output.dtype != dtype:
        raise Unexpected(f"{what}: a tensor of {output.dtype}; expected {dtype}")
    return output


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.detach().cpu().to(torch.float32))


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Tensor):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def describe(error: BaseException, code: str) -> str:
    """An exception as its author needs it: the lines of the submission that led to it, and what it says."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(code + os.sep)]
    lines = [f"  models.py, line {f.lineno}, in {f.name}: {f.line}" for f in frames[-5:]]
    for line, frame in enumerate(frames[-5:]):
        lines[line] = lines[line].replace("models.py", os.path.relpath(frame.filename, code), 1)
    said = "".join(traceback.format_exception_only(error)).strip()
    return "\n".join([*lines, said]).replace(code + os.sep, "")[:4000]


def receive(channel: socket.socket) -> Any:
    """The next message; None when the other side has closed."""

    def exactly(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count and (part := channel.recv(min(count - len(parts), 2**20))):
            parts += part
        return bytes(parts)

    header = exactly(LENGTHS.size)
    if len(header) < LENGTHS.size:
        return None
    text, payload = lengths(header)
    return unpack(exactly(text), exactly(payload))


def answer_questions(channel: socket.socket, code: str) -> None:
    """Answer until the other side closes: {"answer": …}, or {"error": text} where the submission fails."""
    submission = Submission(code)
    while (message := receive(channel)) is not None:
        question, arguments = message
        try:
            reply = {"answer": getattr(submission, question)(**arguments)}
        except Unexpected as error:
            reply = {"error": str(error)}
        except BaseException as error:  # SystemExit, too, only ends the answer
            reply = {"error": describe(error, code)}
        channel.sendall(pack(reply))


def work(job: dict[str, Any], answers: int, output: int) -> NoReturn:
    """Become the worker: leave everything of the warden's behind, and answer."""
    try:
        os.setsid()
        prctl(PARENT_DIED, signal.SIGKILL)
        null = os.open(os.devnull, os.O_RDONLY)
        # First out of the way of 0 to 3, whatever their numbers are.
        null, output, answers = (fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in (null, output, answers))
        for place, fd in enumerate((null, output, output, answers)):
            os.dup2(fd, place)
        os.closerange(4, 2**20)
        for kind, limit in (
            (resource.RLIMIT_DATA, job["memory"]),
            (resource.RLIMIT_CPU, int(job["seconds"]) * 4 + 4),
            (resource.RLIMIT_FSIZE, LARGEST_FILE),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            with contextlib.suppress(ValueError, OSError):  # on systems without this one
                resource.setrlimit(kind, (soft, soft))
        os.environ["HOME"] = os.environ["TMPDIR"] = job["folder"]
        os.chdir(job["folder"])
        answer_questions(socket.socket(fileno=3), job["code"])
        sys.stdout.flush()
    finally:
        os._exit(0)


def prctl(option: int, value: int) -> None:
    """Linux's prctl(2); nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def parents() -> Iterator[tuple[int, int]]:
    """Every process and its parent; none on systems without /proc."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, can hold anything; the parent is the second field after it.
            yield int(entry.parent.name), int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])


def descendants(of: int) -> list[int]:
    """The processes that come from one, itself not among them."""
    children: dict[int, list[int]] = {}
    for process, parent in parents():
        children.setdefault(parent, []).append(process)
    found = list(children.get(of, []))
    for process in found:
        found += children.get(process, [])
    return found


def resident_memory(process: int) -> int:
    """Bytes; 0 of a process that is gone."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def end_all(worker: int) -> None:
    """End the worker and everything that it started, and wait until nothing of it is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker, signal.SIGKILL)
    while True:
        # Stopped first, so that none can start others while the list is made.
        stopped: set[int] = set()
        while new := set(descendants(os.getpid())) - stopped:
            for process in new:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGSTOP)
            stopped |= new
        for process in stopped:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        try:
            while os.waitpid(-1, 0)[0]:
                pass
        except ChildProcessError:  # orphans come to the warden, so that none is left when it has no children
            return


def supervise(control: socket.socket, job: dict[str, Any], answers: int, output: int) -> bool:
    """Run one worker until the other side says so, and report its end: status, and why it was ended.

    Returns:
        False when the other side is gone.
    """
    worker = os.fork()
    if worker == 0:
        work(job, answers, output)
    os.close(answers)
    os.close(output)
    status: int | None = None
    reason = ""
    while not select.select([control], [], [], LOOK_EVERY)[0]:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == worker:
                    status = os.waitstatus_to_exitcode(ended[1])
        family = descendants(os.getpid())
        if len(family) > job["processes"]:
            reason = "processes"
        elif sum(map(resident_memory, family)) > job["memory"]:
            reason = "memory"
        if reason:
            end_all(worker)
    with contextlib.suppress(ChildProcessError):
        while status is None and (ended := os.waitpid(worker, os.WNOHANG))[0]:
            status = os.waitstatus_to_exitcode(ended[1])
    there = bool(control.recv(64))
    end_all(worker)
    if there:
        control.send(json.dumps({"status": status, "reason": reason}).encode())
    return there


def main() -> None:
    """Be the warden: a job a message, with the two file descriptors for its worker."""
    control = socket.socket(fileno=int(sys.argv[1]))
    sys.dont_write_bytecode = True
    prctl(BECOME_SUBREAPER, 1)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.optim.Adam([nn.Parameter(torch.zeros(1))], fused=True)  # its imports take a second
    del sys.argv[1:]
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not message or not supervise(control, json.loads(message), *descriptors):
            return


if __name__ == "__main__":
    main()
