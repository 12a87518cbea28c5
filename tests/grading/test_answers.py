"""Damaged and made-up answers: each check ends soon, needs little memory, and raises no other error than its own.

    python -m pytest tests/grading/test_answers.py                   # 150 answers
    python -m pytest -m exhaustive tests/grading/test_answers.py     # 10,000 answers

A thread in this process answers in the place of a worker, with a right network, and changes its answers at random.
"""

import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memory import memory_below

from grading import session as session_module
from grading.checks import Check, Wrong, import_models
from grading.inside.messages import LENGTHS, Values, pack, receive
from grading.inside.worker import Submission
from grading.rubric import RUBRIC
from grading.session import NO_ANSWER, TOO_LONG, Session, Unanswered

ROOT = Path(__file__).parent.parent.parent
UNTRAINED = [check for check in RUBRIC if not check.needs_data]
BIAS = next(check for check in RUBRIC if check.id == "1a-2-basic")
EQUATIONS = next(check for check in RUBRIC if check.id == "2-4-hidden")
Reply = Callable[[str, Values], bytes]  # makes the bytes of an answer with this token and these values
SECONDS = 10.0
SOON = 5.0  # seconds of a check on a busy machine


class Last(bytes):
    """The last answer of its process."""


@contextmanager
def answering(submission: Submission, reply: Reply) -> Iterator[Session]:
    """Make a session whose answers are changed on their way."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def answer() -> None:
        with theirs, suppress(OSError):
            while (question := receive(theirs)) is not None:
                message, arguments = question
                try:
                    values = getattr(submission, message["method"])(**arguments)
                except (KeyError, RuntimeError) as error:  # parameters that do not exist, or have another shape
                    values = {"error": str(error)}
                sent = reply(message["token"], values)
                theirs.sendall(sent)
                if isinstance(sent, Last):
                    break

    thread = threading.Thread(target=answer)
    thread.start()
    output, closed = os.pipe()
    os.close(closed)
    session = Session(ours, output, lambda: (None, ""), SECONDS)
    try:
        yield session
    finally:
        session.close()
        thread.join()


@pytest.fixture(scope="module")
def submission() -> Submission:
    return Submission(str(ROOT))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "EXITING", 0.0)


def outcome(check: Check, submission: Submission, reply: Reply) -> str:
    """Run a check, and return the reason of its failure, "" if it passes."""
    with answering(submission, reply) as session:
        try:
            import_models(session.ask)
            with np.errstate(all="ignore"):
                check.run(session.ask, None)
        except (Wrong, Unanswered) as error:
            return str(error)
    return ""


def honest(token: str, values: Values) -> bytes:
    return pack(values, token=token)


def described(arrays: object, content: bytes = b"", **more: object) -> Reply:
    """Answer with this description of arrays, and this content."""

    def reply(token: str, _: Values) -> bytes:
        text = json.dumps({"arrays": arrays, "values": {}, "token": token} | more).encode()
        return LENGTHS.pack(len(text), len(content)) + text + content

    return reply


def raw(text: bytes) -> Reply:
    return lambda token, _: LENGTHS.pack(len(text), 0) + text


COLUMN = bytes(4 * 1683)


@pytest.mark.parametrize("check", UNTRAINED, ids=lambda check: check.id)
def test_right_answers_pass(check: Check, submission: Submission) -> None:
    assert outcome(check, submission, honest) == ""


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (described({"table": ["float32", [1] * 460_000]}), TOO_LONG),
        (described({"table": ["float32", [1] * 5]}, bytes(4)), NO_ANSWER),
        (described({"table": ["float32", [1683, -1]]}), NO_ANSWER),
        (described({"table": ["float32", [1683, True]]}, COLUMN), NO_ANSWER),
        (described({"table": ["float32", [1683, 1.0]]}, COLUMN), NO_ANSWER),
        (described({"table": ["float32", [10**4000]]}), NO_ANSWER),
        (described({"table": ["float64", [1683, 1]]}, 2 * COLUMN), NO_ANSWER),
        (described({"table": ["object", [1683, 1]]}, COLUMN), NO_ANSWER),
        (described({"table": ["float32", [1683, 1], 0]}, COLUMN), NO_ANSWER),
        (described({"table": ["float32", [1683, 1]]}, COLUMN[:-1]), NO_ANSWER),
        (described({"table": ["float32", [1683, 1]]}, COLUMN + b"0"), NO_ANSWER),
        (described({"table": ["float32", [1683, 1]], "more": ["float32", [1]]}, COLUMN + bytes(4)), NO_ANSWER),
        (described([]), NO_ANSWER),
        (described({}, values=1), NO_ANSWER),
        (described({}, token="0" * 16), NO_ANSWER),
        (described({}, token=0), NO_ANSWER),
        (lambda token, _: b"\xff" * 8, TOO_LONG),
        (raw(b"[" * 60_000), NO_ANSWER),
        (raw(b"1" * 60_000), NO_ANSWER),
        (raw(b"\xff"), NO_ANSWER),
        (raw(b"[]"), NO_ANSWER),
        (raw(b""), NO_ANSWER),
    ],
)
def test_a_hostile_answer_is_refused_at_once(reply: Reply, reason: str, submission: Submission) -> None:
    def after_import(token: str, values: Values) -> bytes:
        return reply(token, values) if values else honest(token, values)

    started = time.monotonic()
    assert outcome(BIAS, submission, after_import) == reason
    assert time.monotonic() - started < SOON


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        ({f"other.{n}": (1,) for n in range(1_000)}, r"the network has 10\d\d parameters .*at most 64"),
        ({f"other.{n}": (1,) for n in range(50_000)}, TOO_LONG),
        ({"mlp.0.weight": (1_000_000, 96), "mlp.1.weight": (1, 1_000_000)}, "expected about 92,.* at most 64"),
        ({"mlp.1.weight": (1_000_000, 1)}, "1,091,956 numbers: expected about 92,020"),
        ({"mlp.1.weight": (64, 1)}, "linear layers of input and output width"),
        ({"mlp.0.weight": (0, 96), "mlp.0.bias": (0,), "mlp.1.weight": (1, 0)}, r"width \[\(96, 0\), \(0, 1\)\]"),
        ({"mlp.0.weight": (64, 96, 1)}, "linear layers of input and output width"),
        ({"mlp.0.bias": (64, 1)}, r"a bias of shape \(64, 1\)"),
        ({"U": (944,)}, r"U has shape \(944,\)"),
        ({"B": (1682, 1)}, r"B has shape \(1682, 1\)"),
        ({"U": (2**31 - 1,) * 4}, "expected about"),
    ],
)
def test_forged_shapes_are_refused_before_their_content(
    forged: dict[str, tuple[int, ...]], reason: str, submission: Submission
) -> None:
    def reply(token: str, values: Values) -> bytes:
        if "U" not in values:
            return honest(token, values)
        shapes = {name: array.shape for name, array in values.items()} | forged
        content = sum(4 * int(np.prod(shape)) for shape in shapes.values()) % 2**31
        text = json.dumps(
            {"arrays": {name: ["float32", shape] for name, shape in shapes.items()}, "values": {}, "token": token}
        ).encode()
        return LENGTHS.pack(len(text), content) + text

    started = time.monotonic()
    with memory_below(2**26):
        message = outcome(EQUATIONS, submission, reply)
    assert re.search(reason, message), message
    assert time.monotonic() - started < SOON


ODD_NUMBERS = (np.nan, np.inf, -np.inf, 0.0, 1e38, -1e-45)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, 10**300, 1.5, "", "U", "x" * 5000, "\ud800", "\0"),
    *([], [[]], {}, {"array": 0}),
)
ODD_SHAPES = (
    *((), (0,), (1,), (1, 1), (256, 256), (64, 0), (0, 96), (1,) * 9),
    *((2**31,), (2**20, 2**20), (944, 32), (1683, 1)),
)


def odd_numbers(draw: random.Random, token: str, values: Values) -> bytes:
    """Replace some numbers of one array."""
    arrays = [name for name, each in values.items() if isinstance(each, np.ndarray) and each.size]
    if arrays:
        name = draw.choice(arrays)
        array = np.array(values[name], np.float32)
        array.reshape(-1)[draw.randrange(array.size) :: draw.choice((1, 2, 10**9))] = draw.choice(ODD_NUMBERS)
        values[name] = array
    return pack(values, token=token)


def odd_shapes(draw: random.Random, token: str, values: Values) -> bytes:
    """Replace an array by one of another shape and type, with its content."""
    if values:
        shape = draw.choice(ODD_SHAPES)
        array = np.zeros(shape if np.prod(shape) < 10**6 else (), draw.choice(("float32", "float64", "int64", "bool")))
        values[draw.choice([*values])] = array
    return pack(values, token=token)


def odd_names(draw: random.Random, token: str, values: Values) -> bytes:
    """Remove a value, rename it, or add others."""
    names = [*values]
    odd = draw.choice(
        ("", "U", "B", "mlp.0.weight", "mlp.7.weight", "mlp.0.bias", "other.", "other.x", "bpr.U", "\ud800")
    )
    action = draw.randrange(3)
    if names and action < 2:
        value = values.pop(draw.choice(names))
        if action:
            values[odd] = value
    else:
        count = draw.choice((1, 30, 100, 1000))
        values |= {f"{odd}{number or ''}": np.zeros((1,), np.float32) for number in range(count)}
    return pack(values, token=token)


def odd_description(draw: random.Random, token: str, values: Values) -> bytes:
    """Replace a part of the description by another value."""
    whole = pack(values, token=token)
    text, content = LENGTHS.unpack(whole[: LENGTHS.size])
    message = json.loads(whole[LENGTHS.size : LENGTHS.size + text])
    place: Any = message
    while True:
        keys = [*place] if isinstance(place, dict) else [*range(len(place))]
        if not keys:
            break
        key = draw.choice(keys)
        if not isinstance(place[key], dict | list) or not place[key] or draw.random() < 0.2:
            place[key] = draw.choice(ODD_VALUES)
            break
        place = place[key]
    new = json.dumps(message).encode()
    return LENGTHS.pack(len(new), content) + new + whole[LENGTHS.size + text :]


def odd_bytes(draw: random.Random, token: str, values: Values) -> bytes:
    """Change some bytes, mostly of the lengths and the text; or cut the answer, or make it longer."""
    whole = bytearray(pack(values, token=token))
    for _ in range(draw.randint(1, 4)):
        whole[draw.randrange(min(len(whole), draw.choice((8, 400, 10**9))))] = draw.randrange(256)
    return Last(whole[: draw.choice((10**9, draw.randrange(len(whole))))] + bytes(draw.choice((0, 0, 8, 10**5))))


DAMAGES = (odd_numbers, odd_shapes, odd_names, odd_description, odd_bytes)


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_damaged_answers(count: int, submission: Submission) -> None:
    draw = random.Random(count)
    threads = torch.get_num_threads()
    answers = failures = 0
    torch.set_num_threads(1)
    while answers < count:
        spared = draw.randrange(8)  # the answers before the damaged ones

        def reply(token: str, values: Values) -> bytes:
            nonlocal answers, spared
            spared -= 1
            if spared >= 0:
                return honest(token, values)
            answers += 1
            return draw.choice(DAMAGES)(draw, token, dict(values))

        started = time.monotonic()
        with memory_below(2**26):
            failures += bool(outcome(draw.choice(UNTRAINED), submission, reply))
        assert time.monotonic() - started < SOON
    torch.set_num_threads(threads)
    assert failures > count / 10
