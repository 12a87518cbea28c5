"""The network of models.py, made and checked.

The contract: ``MultiTaskNet(num_users, num_items, embedding_dim, layer_sizes, embedding_sharing)`` is an nn.Module
with ``forward(user_ids, item_ids)`` → (predictions, score). Nothing else is required of models.py here. A mistake in it
is reported in one line, with the file, the line, the function and, for a function that students fill in, its exercise.
"""

import contextlib
import functools
import importlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.exercises import EXERCISES
from training.settings import Settings

FILE = Path(__file__).parent.parent / "models.py"
PACKAGES = Path(torch.__file__).parent.parent  # the folder that pip installs into


class NetworkError(ValueError):
    """A mistake in models.py, in one line with its place."""


def make(settings: Settings, num_users: int, num_items: int) -> nn.Module:
    """Make the MultiTaskNet of models.py for this many users and items, and run its ``forward`` once.

    Raises:
        NetworkError: models.py does not keep the contract.
        ValueError: the network does not fit into memory.
    """
    network = network_class()
    tables = [(num_users, settings.embedding_dim), (num_items, settings.embedding_dim)]
    shapes = {
        "init_shared_user_and_item_embeddings": tables,
        "init_separate_user_and_item_embeddings": tables * 2,
        "init_item_bias": [(num_items, 1)],
    }
    users = torch.tensor([0, num_users - 1, num_users // 2])
    items = torch.tensor([0, num_items // 2, num_items - 1])
    try:
        with _recorded(network) as returned, _in_one_line(returned, shapes):
            model = _construct(network, num_users, num_items, settings)
            if not isinstance(model, nn.Module):
                raise NetworkError(f"models.py: {network.__name__} is not an nn.Module: expected it to be one")
            model.eval()
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                outputs = model(users, items)
            model.train()
    except MemoryError as error:
        raise ValueError(f"the network does not fit into memory: {_first_line(error)}") from error
    except NetworkError as error:
        first, expected = settings.layer_sizes[0], 3 * settings.embedding_dim
        if first == expected or "shapes cannot be multiplied" not in str(error):
            raise
        hint = f"layer_sizes starts with {first}: [u, q, u ∗ q] has 3·embedding_dim = {expected} elements"
        raise NetworkError(f"{error} ({hint})") from error
    forward = next((name for name in returned if EXERCISES[name] == "B"), "forward")
    check_outputs(outputs, len(users), forward, _first_line_of(getattr(network, forward)))
    _check_trained(model, returned.get("init_mlp_layers"))
    return model


def _check_trained(model: nn.Module, layers: Any) -> None:
    """Raise NetworkError if the network has no parameters to train, or lacks those of its MLP's layers."""
    if isinstance(layers, list | tuple) and not {*map(id, layers)} <= {*map(id, model.modules())}:
        name = "init_mlp_layers"
        mistake = f"returned {_kind_of(layers)}, whose layers would not be trained: expected an nn.Sequential"
        raise NetworkError(_blame(name, mistake, _first_line_of(getattr(model, name))))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise NetworkError(
            "models.py: MultiTaskNet has no parameters to train: expected embeddings and layers that are "
            "attributes of the nn.Module"
        )


def network_class() -> type:
    """Import models.py and return its MultiTaskNet; NetworkError if that fails.

    Call this before setting seeds or threads, because models.py may draw random numbers or set threads on import.
    """
    with _in_one_line({}, {}):
        module = importlib.import_module("models")
    network = getattr(module, "MultiTaskNet", None)
    if not isinstance(network, type):
        raise NetworkError("models.py has no class MultiTaskNet: expected one, an nn.Module")
    return network


def _construct(network: type, num_users: int, num_items: int, settings: Settings) -> Any:
    """Call the constructor in the first way that its signature accepts: by names, or by position."""
    names = ("num_users", "num_items", "embedding_dim", "layer_sizes")
    sizes: list[Any] = [num_users, num_items, settings.embedding_dim, [*settings.layer_sizes]]
    sharing = {"embedding_sharing": settings.shared_embeddings}
    ways: list[tuple[list[Any], dict[str, Any]]] = [
        ([], dict(zip(names, sizes, strict=True)) | sharing),
        (sizes, sharing),
        ([*sizes, settings.shared_embeddings], {}),
    ]
    signature = inspect.signature(network)
    for positional, named in ways:
        with contextlib.suppress(TypeError):
            signature.bind(*positional, **named)
            break
    else:
        raise NetworkError(
            f"models.py: the constructor of MultiTaskNet takes {signature}: expected (num_users, num_items, "
            "embedding_dim, layer_sizes, embedding_sharing)"
        )
    return network(*positional, **named)


Returned = dict[str, Any]  # the value that each function of the exercises returned, by the function's name


@contextlib.contextmanager
def _recorded(network: type) -> Iterator[Returned]:
    """Record the values that the functions of the exercises return."""
    returned: Returned = {}

    def recording(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            result = function(*arguments, **keywords)
            returned[name] = result
            return result

        return call

    own = {name: function for name in EXERCISES if inspect.isfunction(function := vars(network).get(name))}
    for name, function in own.items():
        setattr(network, name, recording(name, function))
    try:
        yield returned
    finally:
        for name, function in own.items():
            setattr(network, name, function)


def check_outputs(outputs: Any, batch: int, function: str = "forward", line: int | None = None) -> None:
    """Raise NetworkError, with this function and its line, unless these are two float tensors of shape (batch,)."""

    def check(right: bool, mistake: str) -> None:
        if not right:
            raise NetworkError(_blame(function, f"returned {mistake}", line))

    pair = isinstance(outputs, tuple | list) and len(outputs) == 2
    check(pair, f"{_kind_of(outputs)}: expected two tensors, predictions and score")
    for name, output in zip(("predictions", "score"), outputs, strict=True):
        floats = isinstance(output, Tensor) and output.is_floating_point()
        check(floats, f"{name} that are {_kind_of(output)}: expected a float tensor")
        shape = tuple(output.shape)
        check(shape == (batch,), f"{name} of shape {shape} for a batch of {batch}: expected {(batch,)}")


@contextlib.contextmanager
def _in_one_line(returned: Returned, shapes: Mapping[str, list[tuple[int, int]]]) -> Iterator[None]:
    """Turn any error of models.py into one line that blames a function that did not return its embeddings first."""
    try:
        yield
    except (NetworkError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error):
            raise MemoryError(_first_line(error)) from error
        for name, value in returned.items():
            mistake = _unexpected(value, shapes.get(name))
            if mistake is not None:
                line = _first_line_of(getattr(network_class(), name))
                raise NetworkError(_blame(name, f"returned {mistake}", line)) from error
        raise NetworkError(_line_of(error)) from error


def _unexpected(value: Any, shapes: list[tuple[int, int]] | None) -> str | None:
    """Describe a value that a function of the exercises should not return: None, or embeddings of other shapes."""
    if value is None or shapes is None:
        return "None" if value is None else None
    found = [getattr(each, "weight", each) for each in (value if isinstance(value, tuple | list) else [value])]
    got = [tuple(each.shape) for each in found if isinstance(each, Tensor)]
    expected = ", ".join(map(str, shapes))
    if len(got) < len(found):
        return f"{_kind_of(value)}: expected embeddings of shapes {expected}"
    return None if got == shapes else f"embeddings of shapes {', '.join(map(str, got))}: expected {expected}"


def error_of(error: Exception) -> NetworkError | None:
    """Describe an error of a step in one line if it comes from models.py or from autograd."""
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    if FILE in files:
        return NetworkError(_line_of(error))
    if any(file.parent == PACKAGES / "torch" / "autograd" for file in files):
        return NetworkError(
            "the gradient of the losses, of models.py and training/steps.py, cannot be computed: "
            f"{type(error).__name__}: {_first_line(error)}"
        )
    return None


def _line_of(error: BaseException) -> str:
    """Describe an error with the last line of models.py that led to it, and the exercise of that line."""
    said = ": ".join(filter(None, (type(error).__name__, _first_line(error))))
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or FILE).name}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    every = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in every if Path(frame.filename) == FILE]
    if not frames or frames[-1].name == "<module>":
        return f"models.py{f', line {frames[-1].lineno}' if frames else ''}: {said}"
    name = next((frame.name for frame in reversed(frames) if frame.name in EXERCISES), frames[-1].name)
    unfilled = isinstance(error, NotImplementedError) and name in EXERCISES and every[-1] is frames[-1]
    return _blame(name, "is not filled in" if unfilled else f"raised {said}", frames[-1].lineno)


def _blame(name: str, mistake: str, line: int | None) -> str:
    place = f"models.py, line {line}" if line else "models.py"
    exercise = f": exercise {EXERCISES[name]}, see HOMEWORK.md" if name in EXERCISES else ""
    return f"{place}: {name} {mistake}{exercise}"


def _first_line_of(function: Callable[..., Any]) -> int | None:
    """Return the line on which a function begins, also if it is recorded, or None if it has no code."""
    line: int | None = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_firstlineno", None)
    return line


def _kind_of(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    return f"a {type(value).__name__}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def own_traceback(error: BaseException) -> str | None:
    """Format an error of models.py with its author's frames only; return None for an error of other files."""
    frames = traceback.extract_tb(error.__traceback__)
    first = next((place for place, frame in enumerate(frames) if Path(frame.filename) == FILE), None)
    if first is None:
        return None
    own = [frame for frame in frames[first:] if PACKAGES not in Path(frame.filename).parents]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(own)]
    return "".join([*lines, *traceback.format_exception_only(error)]).rstrip()
