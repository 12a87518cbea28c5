"""The starter ``models.py``: ours, with the bodies of the exercises' functions removed.

``ast`` gives the positions of these bodies. All other lines stay as they are.
"""

import ast

from training.exercises import EXERCISES


def starter(source: str) -> str:
    """Replace the bodies of the exercises' functions in the source of ``models.py``; keep their docstrings.

    Raises:
        ValueError: one of the functions is missing, occurs twice, or is written on one line.
    """
    lines = source.splitlines(keepends=True)
    functions = [
        node
        for network in ast.parse(source).body
        if isinstance(network, ast.ClassDef) and network.name == "MultiTaskNet"
        for node in network.body
        if isinstance(node, ast.FunctionDef) and node.name in EXERCISES
    ]
    found = [function.name for function in functions]
    for name in EXERCISES:
        if found.count(name) != 1:
            raise ValueError(f"models.py has {found.count(name)} functions MultiTaskNet.{name}: expected 1")
    for function in reversed(functions):  # from the last one, so that the positions of the others stay valid
        indent, exercise = " " * function.body[0].col_offset, EXERCISES[function.name]
        emptied = f'{indent}raise NotImplementedError("exercise {exercise}: {function.name}")\n'
        lines[_body(function, lines)] = [emptied]
    return "".join(lines)


def _body(function: ast.FunctionDef, lines: list[str]) -> slice:
    """Find the lines of a function below its docstring, including comments before and after its statements."""
    first, documented = function.body[0], ast.get_docstring(function) is not None
    start = first.end_lineno if documented else first.lineno - 1
    end = function.end_lineno
    assert start is not None
    assert end is not None
    if start == end or lines[first.lineno - 1][: first.col_offset].strip():
        raise ValueError(f"models.py, line {function.lineno}: {function.name} has no body on lines of its own")
    while end < len(lines) and lines[end].startswith(" " * first.col_offset + "#"):
        end += 1
    return slice(start, end)
