"""The starter models.py, which is ours except for the bodies of six functions."""

from typing import Any

import pytest
from classroom import MODELS, bodies

from course.starter import starter
from training.exercises import EXERCISES


def test_the_starter_is_our_file_except_for_the_bodies_of_the_exercises() -> None:
    expected = MODELS
    for function, body in bodies().items():
        head, signature, rest = expected.partition(f"def {function}(")
        emptied = f'        raise NotImplementedError("exercise {EXERCISES[function]}: {function}")\n'
        expected = head + signature + rest.replace("".join(body), emptied, 1)
    assert starter(MODELS) == expected
    assert expected.count("raise NotImplementedError") == len(EXERCISES) == 6


def test_an_emptied_function_keeps_its_docstring_and_names_its_exercise() -> None:
    names: dict[str, Any] = {"__name__": "starter"}
    exec(starter(MODELS), names)
    network = names["MultiTaskNet"]
    assert "(num_items, 1)" in network.init_item_bias.__doc__
    with pytest.raises(NotImplementedError, match="exercise A1: init_shared_user_and_item_embeddings"):
        network(3, 4)


def test_comments_in_a_body_are_removed_with_it() -> None:
    (line, *_) = bodies()["init_item_bias"]
    commented = MODELS.replace(line, f"        # one for each item\n{line}        # and they are zero\n", 1)
    assert starter(commented) == starter(MODELS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def init_item_bias(", "def init_bias(", "0 functions MultiTaskNet.init_item_bias: expected 1"),
        ("class MultiTaskNet(", "class Network(", "0 functions MultiTaskNet.init_shared_"),
        ("def init_mlp_layers(", "def init_item_bias(", "2 functions MultiTaskNet.init_item_bias"),
        ("        return ZeroEmbedding(num_items, 1)\n", "", ": init_item_bias has no body on lines of its"),
    ],
)
def test_a_function_that_cannot_be_emptied_is_an_error(old: str, new: str, message: str) -> None:
    assert MODELS.count(old) == 1
    with pytest.raises(ValueError, match=message):
        starter(MODELS.replace(old, new))


def test_a_function_written_on_one_line_is_an_error() -> None:
    (body,) = bodies()["init_item_bias"]
    before, after = MODELS.partition(" -> ZeroEmbedding:\n")[0], MODELS.partition(body)[2]
    with pytest.raises(ValueError, match=": init_item_bias has no body on lines of its own"):
        starter(f"{before} -> ZeroEmbedding: {body.strip()}\n{after}")
