"""What a submission is asked: its models.py is loaded, and each method of ``Submission`` answers one question.

This runs in the submission's process and knows nothing of what is expected. It hands back plain arrays.
"""

import builtins
import contextlib
import importlib.util
import inspect
import os
import socket
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import UninitializedParameter

from grading.arrays import (
    Unexpected,
    kind_of,
    layer_name,
    layers_in_order,
    mlp_parameters,
    parts_of,
    plain_tensor,
    to_array,
    weight_of,
)
from grading.messages import pack, receive

# A submission can replace what is in builtins and torch. What its answers are made with is bound here, before that.
globals()["__builtins__"] = dict(vars(builtins))
data_ptr, set_num_threads = Tensor.data_ptr, torch.set_num_threads
Adam, sigmoid, tensor, manual_seed = torch.optim.Adam, torch.sigmoid, torch.tensor, torch.manual_seed

BLOCK_PAIRS = 2**10  # pairs of ids at a time when all are asked for; some take the diagonal of a square of them
SHOWN_FRAMES, SHOWN_CHARACTERS = 5, 4000  # of an error


class Submission:
    """A submission's models.py. Each public method is a question; it takes and returns what ``pack`` can carry.

    Args:
        code: the folder that holds models.py.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        self.sizes: tuple[int, int, int, list[int]] = (0, 0, 0, [])
        self.module: ModuleType | None = None
        self.net: Any = None
        self.names: Sequence[str] = ()

    def load(self, num_users: int, num_items: int, embedding_dim: int, layer_sizes: list[int]) -> str:
        """Import models.py, whose networks will be of these sizes."""
        self.sizes = (num_users, num_items, embedding_dim, layer_sizes)
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

    def tables(self, names: list[str]) -> dict[str, Any]:
        """What init_shared_… or init_separate_user_and_item_embeddings returns, whichever makes tables of these names.

        Returns:
            classes: of each table, the names of its class and of those it derives from.
            weights: their arrays.
            memory: numbers, equal where two tables are the same memory.
        """
        sharing = "U" in names
        method = f"init_{'shared' if sharing else 'separate'}_user_and_item_embeddings"
        returned = self._initialize(method, names, self.sizes[:3], sharing)
        try:
            tables = list(returned)
        except TypeError:
            raise Unexpected(f"{method} returned {kind_of(returned)}: expected {len(names)} embeddings") from None
        weights = [weight_of(table, f"element {place} of what {method} returned") for place, table in enumerate(tables)]
        return {
            "classes": [[each.__name__ for each in type(table).__mro__] for table in tables],
            "weights": [to_array(weight) for weight in weights],
            "memory": [data_ptr(weight) for weight in weights],
        }

    def bias(self) -> dict[str, Any]:
        """What init_item_bias returns: its array."""
        returned = self._initialize("init_item_bias", ["B"], self.sizes[:2])
        return {"weights": to_array(weight_of(returned, "what init_item_bias returned"))}

    def mlp(self, layer_sizes: list[int], inputs: NDArray[np.float32]) -> dict[str, Any]:
        """What init_mlp_layers returns.

        Returns:
            layers: the names of the layers' classes, in the order in which they are applied; of layers that are
                neither in an nn.Sequential nor in an nn.ModuleList the order is not known, and this is empty.
            parameters: "mlp.0.weight", "mlp.0.bias", …: the linear layers' arrays.
            outputs: for the (n, layer_sizes[0]) inputs.
        """
        self.sizes = (*self.sizes[:2], layer_sizes[0] // 3, layer_sizes)  # for those who build it in the constructor
        mlp = self._initialize("init_mlp_layers", ["mlp_layers"], [layer_sizes])
        if not isinstance(mlp, Module):
            raise Unexpected(
                f"init_mlp_layers returned {kind_of(mlp)}: expected an nn.Sequential or nn.ModuleList, whose "
                "parameters are the network's"
            )
        dtype = next((parameter.dtype for parameter in mlp.parameters()), torch.float32)
        outputs: Any = tensor(inputs, dtype=dtype)
        for layer in parts_of(mlp) or [mlp]:
            outputs = layer(outputs)
        layers = [layer_name(layer) for layer in layers_in_order(mlp) or ()]
        parameters = {name: to_array(parameter) for name, parameter in mlp_parameters(mlp).items()}
        return {
            "layers": layers,
            "parameters": parameters,
            "outputs": to_array(plain_tensor(outputs, "the output", dtype)),
        }

    def network(self, names: list[str], seed: int) -> dict[str, Any]:
        """Make the network of all further questions, with tables of these names; returns ``parameters()``."""
        manual_seed(seed)
        self.names = [*names, "B"]
        self.net = self._construct(sharing="U" in names)
        if any(isinstance(parameter, UninitializedParameter) for parameter in self.net.parameters()):
            self._forward(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))  # lazy layers
        set_num_threads(1)  # as the warden had it: more would wait for cores that other checks have
        return self.parameters()

    def parameters(self) -> dict[str, Any]:
        """The network's arrays by what they are: the tables, B, mlp.0.weight, …; all others as "other.NAME"."""
        return {name: to_array(parameter) for name, parameter in self._parameters().items()}

    def assign(self, values: dict[str, NDArray[np.float32]]) -> None:
        """Put values into the arrays of these names."""
        parameters = self._parameters()
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(tensor(value))

    def forward(self, user_ids: NDArray[np.int64], item_ids: NDArray[np.int64]) -> dict[str, Any]:
        """The network's two outputs for pairs of ids: predictions and score."""
        predictions, score = self._forward_again(tensor(user_ids), tensor(item_ids))
        return {"predictions": to_array(predictions), "score": to_array(score)}

    def gradients(
        self,
        user_ids: NDArray[np.int64],
        item_ids: NDArray[np.int64],
        negative_ids: NDArray[np.int64],
        ratings: NDArray[np.float32],
    ) -> dict[str, Any]:
        """The gradients of the BPR loss and of the MSE, each by the names of ``parameters()``."""
        users, items, negatives = tensor(user_ids), tensor(item_ids), tensor(negative_ids)
        parameters = self._parameters()
        learning = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}

        def gradients(loss: Tensor) -> dict[str, Any]:
            zeros = {name: np.zeros(parameter.shape, np.float32) for name, parameter in parameters.items()}
            if not loss.requires_grad:
                return zeros
            found = torch.autograd.grad(loss, list(learning.values()), allow_unused=True)
            return zeros | {n: to_array(g.to_dense()) for n, g in zip(learning, found, strict=True) if g is not None}

        positive, _ = self._forward_again(users, items)
        negative, _ = self._forward_again(users, negatives)
        bpr = gradients((1 - sigmoid(positive - negative)).mean())
        _, score = self._forward_again(users, items)
        return {"bpr": bpr, "mse": gradients(((score - tensor(ratings)) ** 2).mean())}

    def train(
        self,
        user_ids: NDArray[np.int32],
        item_ids: NDArray[np.int32],
        negative_ids: NDArray[np.int32],
        ratings: NDArray[np.float32],
        batch_size: int,
    ) -> dict[str, Any]:
        """Train both tasks with Adam and equal weights on batches of (epochs, n) triples, in the order given.

        Returns:
            Nothing; or, of the first batch whose outputs have another shape than its ratings, which is the last:
            expected: that shape.
            got: the shapes of predictions and score.
        """
        users, items, negatives = (tensor(ids).long() for ids in (user_ids, item_ids, negative_ids))
        targets = tensor(ratings)
        adam = Adam(self.net.parameters(), lr=1e-3, fused=True)
        self.net.train()
        for epoch in range(len(users)):
            for first in range(0, users.shape[1], batch_size):
                batch = (epoch, slice(first, first + batch_size))
                positive, score = self._forward(users[batch], items[batch])
                negative, _ = self._forward(users[batch], negatives[batch])
                if positive.shape != targets[batch].shape or score.shape != targets[batch].shape:
                    return {"expected": list(targets[batch].shape), "got": [list(positive.shape), list(score.shape)]}
                bpr_loss = (1 - sigmoid(positive - negative)).mean()
                mse_loss = ((score - targets[batch]) ** 2).mean()
                adam.zero_grad()
                (0.5 * bpr_loss + 0.5 * mse_loss).backward()
                adam.step()
        return {}

    def all_pairs(self, num_users: int, num_items: int) -> dict[str, Any]:
        """Both outputs for every user and item, (num_users, num_items): nobody learns here which of them count."""
        users = torch.arange(num_users).repeat_interleave(num_items)
        items = torch.arange(num_items).repeat(num_users)
        # Filled, not collected: small pieces that are kept between large ones that are freed would scatter the memory.
        filled = {name: torch.empty(len(users)) for name in ("predictions", "score")}
        self.net.eval()
        with torch.no_grad():
            for start in range(0, len(users), BLOCK_PAIRS):
                pairs = slice(start, start + BLOCK_PAIRS)
                for values, output in zip(filled.values(), self._forward(users[pairs], items[pairs]), strict=True):
                    values[pairs] = output
        return {name: to_array(values).reshape(num_users, num_items) for name, values in filled.items()}

    def _initialize(self, method: str, attributes: list[str], arguments: Sequence[Any], sharing: bool = True) -> Any:
        """Call an init_* method, on an object that has nothing else where possible, as the course's grader does."""
        assert self.module is not None
        network: type = self.module.MultiTaskNet
        manual_seed(0)
        if not hasattr(network, method):  # written into the constructor
            net = self._construct(sharing)
            missing = [name for name in attributes if not hasattr(net, name)]
            if missing:
                raise Unexpected(f"MultiTaskNet has neither a method {method} nor an attribute {missing[0]}")
            made = [getattr(net, name) for name in attributes]
            return made if len(made) > 1 else made[0]
        if issubclass(network, Module):
            bare = network.__new__(network)
            Module.__init__(bare)
            # One that reads what the constructor set is called again, on a whole network.
            with contextlib.suppress(AttributeError):
                return getattr(bare, method)(*arguments)
        return getattr(self._construct(sharing), method)(*arguments)

    def _construct(self, sharing: bool) -> Any:
        """A network, whatever the order of the constructor's parameters."""
        assert self.module is not None
        network = self.module.MultiTaskNet
        sizes = (*self.sizes[:3], list(self.sizes[3]))  # a copy: some take the sizes out of the list
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

    def _forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.net(users, items)
        try:
            predictions, score = outputs
        except (TypeError, ValueError):
            raise Unexpected(
                f"forward returned {kind_of(outputs)}: expected two tensors, predictions and score"
            ) from None
        dtype = next((parameter.dtype for parameter in self.net.parameters()), torch.float32)
        return plain_tensor(predictions, "predictions", dtype), plain_tensor(score, "score", dtype)

    def _forward_again(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """``_forward``, in which random numbers, should there be any, are the same for each call."""
        manual_seed(0)
        return self._forward(users, items)

    def _parameters(self) -> dict[str, Tensor]:
        found = {name: weight_of(getattr(self.net, name), name) for name in self.names if hasattr(self.net, name)}
        if hasattr(self.net, "mlp_layers"):
            found |= mlp_parameters(self.net.mlp_layers)
        known = {id(parameter) for parameter in found.values()}
        others = {f"other.{n}": p for n, p in self.net.named_parameters() if id(p) not in known}
        return found | others


def describe(error: BaseException, code: str) -> str:
    """An exception as its author needs it: the lines of the submission that led to it, and what it says."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(code + os.sep)]
    lines = [
        f"  {os.path.relpath(frame.filename, code)}, line {frame.lineno}, in {frame.name}: {frame.line}"
        for frame in frames[-SHOWN_FRAMES:]
    ]
    said = "".join(traceback.format_exception_only(error)).strip()
    return "\n".join([*lines, said]).replace(code + os.sep, "")[:SHOWN_CHARACTERS]


def answer_questions(channel: socket.socket, submission: Submission) -> None:
    """Answer until the other side closes."""
    while (message := receive(channel)) is not None:
        token, question, arguments = message
        reply: dict[str, Any] = {"token": token}
        try:
            reply["answer"] = getattr(submission, question)(**arguments)
        except Unexpected as error:
            reply["error"] = str(error)
        except BaseException as error:  # SystemExit, too, only ends the answer
            reply["error"] = describe(error, submission.code)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        channel.sendall(pack(reply))
