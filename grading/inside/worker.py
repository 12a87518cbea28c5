"""The worker: it imports a submission's models.py and answers questions about it with plain arrays.

The expected answers are in another process.
"""

import builtins
import contextlib
import importlib.util
import inspect
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import UninitializedParameter

from grading.inside import arrays
from grading.inside.arrays import Unexpected, kind_of, outputs_of, parameters_of, to_array, weight_of
from grading.inside.messages import Values, pack, receive

# A submission can replace functions in builtins and torch: bind ours before it is loaded.
globals()["__builtins__"] = dict(vars(builtins))
data_ptr, set_num_threads = Tensor.data_ptr, torch.set_num_threads
Adam, sigmoid, tensor, manual_seed = torch.optim.Adam, torch.sigmoid, torch.tensor, torch.manual_seed

Ids = NDArray[np.integer[Any]]
Numbers = NDArray[np.float32]

BLOCK_PAIRS = 2**10  # pairs of IDs at a time in ``all_pairs``: some submissions compute a square of this size
SHOWN_FRAMES, SHOWN_CHARACTERS = 5, 4000  # of an error


class Submission:
    """A submission's models.py in a folder. Each public method answers a question with arrays and other values."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.sizes: tuple[int, int, int, list[int]] = (0, 0, 0, [])
        self.module: ModuleType | None = None
        self.net: Any = None
        self.mlp_layers: Any = None
        self.parameter_tensors: Callable[[], dict[str, Tensor]] = dict

    def import_models(self, num_users: int, num_items: int, embedding_dim: int, layer_sizes: list[int]) -> Values:
        """Import models.py, and note the sizes of its networks."""
        self.sizes = (num_users, num_items, embedding_dim, layer_sizes)
        sys.path.append(self.code)  # last: no file beside models.py can replace a real package
        spec = importlib.util.spec_from_file_location("models", os.path.join(self.code, "models.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["models"] = module
        spec.loader.exec_module(module)
        if not isinstance(getattr(module, "MultiTaskNet", None), type):
            raise Unexpected("models.py has no class MultiTaskNet")
        self.module = module
        return {}

    def tables(self, names: list[str]) -> Values:
        """Call init_shared_… or init_separate_user_and_item_embeddings, the one that makes tables of these names.

        For each table, there are its array, the names of its class and of the base classes, and its memory's address.
        """
        sharing = "U" in names
        method = f"init_{'shared' if sharing else 'separate'}_user_and_item_embeddings"
        returned = self._initialize(method, names, self.sizes[:3], sharing)
        try:
            tables = list(returned)
        except TypeError:
            raise Unexpected(f"{method} returned {kind_of(returned)}: expected {len(names)} embeddings") from None
        place = f"of the return value of {method}"
        weights = [weight_of(table, f"element {number} {place}") for number, table in enumerate(tables)]
        return {str(place): to_array(weight) for place, weight in enumerate(weights)} | {
            "classes": [" ".join(each.__name__ for each in type(table).__mro__) for table in tables],
            "memory": [data_ptr(weight) for weight in weights],
        }

    def bias(self) -> Values:
        """Call init_item_bias, and return its table."""
        returned = self._initialize("init_item_bias", ["B"], self.sizes[:2])
        return {"table": to_array(weight_of(returned, "the return value of init_item_bias"))}

    def mlp(self, layer_sizes: list[int]) -> Values:
        """Call init_mlp_layers; return the arrays of its parameters, as ``parameters`` does, and its layers.

        The names of the layers' classes are in the order of their application. There are none for containers whose
        order is unclear, which are those other than nn.Sequential, nn.ModuleList and nn.ModuleDict.
        """
        self.sizes = (*self.sizes[:2], layer_sizes[0] // 3, layer_sizes)  # for an MLP that is made in the constructor
        mlp = self._initialize("init_mlp_layers", ["mlp_layers"], [layer_sizes])
        if not isinstance(mlp, Module):
            raise Unexpected(
                f"init_mlp_layers returned {kind_of(mlp)}: expected an nn.Sequential or nn.ModuleList, whose "
                "parameters are the network's"
            )
        self.mlp_layers = mlp
        self.parameter_tensors = lambda: parameters_of(mlp, (), mlp)
        if is_lazy(mlp):
            self.outputs(np.zeros((2, layer_sizes[0]), np.float32))
        layers = [arrays.layer_name(layer) for layer in arrays.layers_in_order(mlp) or ()]
        return self.parameters() | {"layers": layers}

    def outputs(self, inputs: Numbers) -> Values:
        """Apply the MLP's layers to inputs of shape (n, width)."""
        dtype = arrays.dtype_of(self.mlp_layers)
        outputs: Any = tensor(inputs, dtype=dtype)
        for layer in arrays.parts_of(self.mlp_layers) or [self.mlp_layers]:
            outputs = layer(outputs)
        return {"outputs": to_array(arrays.plain_tensor(outputs, "the output", dtype))}

    def network(self, names: list[str], seed: int) -> Values:
        """Make the network for all further questions, with tables of these names."""
        manual_seed(seed)
        net = self.net = self._construct(sharing="U" in names)
        if is_lazy(net):
            outputs_of(net, torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
        self.parameter_tensors = lambda: parameters_of(net, [*names, "B"], getattr(net, "mlp_layers", None))
        set_num_threads(1)  # again: the submission can change it, and the other cores are for other checks
        return {}

    def parameters(self) -> Values:
        """Return all arrays of the network or MLP: the tables, B, mlp.0.weight, …; all others as "other.NAME"."""
        return {name: to_array(parameter) for name, parameter in self.parameter_tensors().items()}

    def assign(self, /, **values: Numbers) -> Values:
        """Set the parameters of these names."""
        parameters = self.parameter_tensors()
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(tensor(value))
        return {}

    def forward(self, user_ids: Ids, item_ids: Ids, training: bool) -> Values:
        """Return the network's predictions and score for pairs of IDs, in training mode or as in an evaluation."""
        self.net.train(training)
        with torch.set_grad_enabled(training):
            predictions, score = self._forward_again(tensor(user_ids), tensor(item_ids))
        self.net.train()
        return {"predictions": to_array(predictions), "score": to_array(score)}

    def gradients(self, user_ids: Ids, item_ids: Ids, negative_ids: Ids, ratings: Numbers) -> Values:
        """Return the gradients of the BPR loss and of the MSE: "bpr.U", …, "mse.U", … for all parameters."""
        users, items, negatives = tensor(user_ids), tensor(item_ids), tensor(negative_ids)
        parameters = self.parameter_tensors()
        learning = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}

        def gradients(loss: Tensor, title: str) -> Values:
            found = {name: np.zeros(parameter.shape, np.float32) for name, parameter in parameters.items()}
            if loss.requires_grad:
                all_found = torch.autograd.grad(loss, list(learning.values()), allow_unused=True)
                pairs = zip(learning, all_found, strict=True)
                found |= {name: to_array(gradient.to_dense()) for name, gradient in pairs if gradient is not None}
            return {f"{title}.{name}": gradient for name, gradient in found.items()}

        positive, _ = self._forward_again(users, items)
        negative, _ = self._forward_again(users, negatives)
        bpr = gradients((1 - sigmoid(positive - negative)).mean(), "bpr")
        _, score = self._forward_again(users, items)
        return bpr | gradients(((score - tensor(ratings)) ** 2).mean(), "mse")

    def train(self, user_ids: Ids, item_ids: Ids, negative_ids: Ids, ratings: Numbers, batch_size: int) -> Values:
        """Train both tasks with Adam and equal loss weights on batches of (epochs, n) triples, in this order.

        If the outputs of a batch differ in shape from its ratings, training stops, and the shapes are returned.
        """
        users, items, negatives = (tensor(ids).long() for ids in (user_ids, item_ids, negative_ids))
        targets = tensor(ratings)
        adam = Adam(self.net.parameters(), lr=1e-3, fused=True)
        self.net.train()
        for epoch in range(len(users)):
            for first in range(0, users.shape[1], batch_size):
                batch = (epoch, slice(first, first + batch_size))
                positive, score = outputs_of(self.net, users[batch], items[batch])
                negative, _ = outputs_of(self.net, users[batch], negatives[batch])
                shapes = {"expected": targets[batch].shape, "predictions": positive.shape, "score": score.shape}
                if len({*shapes.values()}) > 1:
                    return shapes
                bpr_loss = (1 - sigmoid(positive - negative)).mean()
                mse_loss = ((score - targets[batch]) ** 2).mean()
                adam.zero_grad()
                (0.5 * bpr_loss + 0.5 * mse_loss).backward()
                adam.step()
        return {}

    def all_pairs(self, num_users: int, num_items: int) -> Values:
        """Return both outputs for every user and item, (num_users, num_items), so that the test pairs stay secret."""
        users = torch.arange(num_users).repeat_interleave(num_items)
        items = torch.arange(num_items).repeat(num_users)
        # Fill arrays instead of collecting blocks: small blocks between freed large ones would fragment the memory.
        filled = {name: torch.empty(len(users)) for name in ("predictions", "score")}
        self.net.eval()
        with torch.no_grad():
            for start in range(0, len(users), BLOCK_PAIRS):
                pairs = slice(start, start + BLOCK_PAIRS)
                outputs = outputs_of(self.net, users[pairs], items[pairs])
                for values, output in zip(filled.values(), outputs, strict=True):
                    values[pairs] = output
        return {name: to_array(values).reshape(num_users, num_items) for name, values in filled.items()}

    def _initialize(self, method: str, attributes: list[str], arguments: Sequence[Any], sharing: bool = True) -> Any:
        """Call an init_* method, if possible on a bare object, as the course's grader does."""
        assert self.module is not None
        network: type = self.module.MultiTaskNet
        manual_seed(0)
        if not hasattr(network, method):  # the constructor does its work
            net = self._construct(sharing)
            missing = [name for name in attributes if not hasattr(net, name)]
            if missing:
                raise Unexpected(f"MultiTaskNet has neither a method {method} nor an attribute {missing[0]}")
            made = [getattr(net, name) for name in attributes]
            return made if len(made) > 1 else made[0]
        if issubclass(network, Module):
            bare = network.__new__(network)
            Module.__init__(bare)
            # A method that needs the constructor's attributes is called again below, on a whole network.
            with contextlib.suppress(AttributeError):
                return getattr(bare, method)(*arguments)
        return getattr(self._construct(sharing), method)(*arguments)

    def _construct(self, sharing: bool) -> Any:
        """Make a network with the parameters of its constructor in any order."""
        assert self.module is not None
        network = self.module.MultiTaskNet
        sizes = (*self.sizes[:3], list(self.sizes[3]))  # a copy: a submission can change the list
        named = dict(zip(("num_users", "num_items", "embedding_dim", "layer_sizes"), sizes, strict=True))
        ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((), named | {"embedding_sharing": sharing}),
            (sizes, {"embedding_sharing": sharing}),
            ((*sizes, sharing), {}),
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

    def _forward_again(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both outputs with the same random numbers each time."""
        manual_seed(0)
        return outputs_of(self.net, users, items)


def is_lazy(module: Module) -> bool:
    """Tell whether a module has parameters whose shapes its first forward decides."""
    return any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters())


def describe(error: BaseException, code: str) -> str:
    """Describe an exception to its author: the submission's own lines that led to it, and its message."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(code + os.sep)]
    lines = [
        f"  {os.path.relpath(frame.filename, code)}, line {frame.lineno}, in {frame.name}: {frame.line}"
        for frame in frames[-SHOWN_FRAMES:]
    ]
    said = "".join(traceback.format_exception_only(error)).strip()
    return "\n".join([*lines, said]).replace(code + os.sep, "")[:SHOWN_CHARACTERS]


def answer_questions(channel: socket.socket, submission: Submission) -> None:
    """Answer questions until the grader closes the channel."""
    while (message := receive(channel)) is not None:
        question, arguments = message
        token = question["token"]
        try:
            reply = pack(getattr(submission, question["method"])(**arguments), token=token)
        except Unexpected as error:
            reply = pack({}, token=token, error=str(error)[:SHOWN_CHARACTERS])
        except BaseException as error:  # SystemExit, too, is only an error in this answer
            reply = pack({}, token=token, error=describe(error, submission.code))
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        channel.sendall(reply)
