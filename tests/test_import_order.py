"""The order of the rooms: imports point downwards only, and the drop-in files import nothing of this project."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the commands down. A module may import modules of its own room, and of the rooms below it.
ORDER = (
    ("benchmarks",),
    ("main", "experiments", "grader", "handout", "recommend", "tune"),
    ("course",),
    ("study", "grading", "serving"),
    ("train",),
    ("tracking",),
    ("training",),
    ("data",),
    ("datasets",),
    ("metrics", "models", "cli"),
)
LEVEL = {room: level for level, rooms in enumerate(reversed(ORDER)) for room in rooms}
ALONE = ("metrics", "models")
MODULES = sorted(
    path
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0].removesuffix(".py") in LEVEL and ".peers" not in path.parts
)  # tests may import anything


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Return all modules of this project that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    known = {module_of(each) for each in MODULES} | {each.stem for each in (ROOT / "benchmarks").glob("*.py")}
    return names & known


def test_every_python_file_has_a_place_in_the_order() -> None:
    tops = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert tops - {"tests"} == set(LEVEL) - {"benchmarks"}


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    for name in imported(path):
        other = "benchmarks" if (ROOT / "benchmarks" / f"{name}.py").exists() else name.partition(".")[0]
        assert other == room or LEVEL[other] < LEVEL[room], f"{module_of(path)} imports {name}"
        assert room not in ALONE, f"{module_of(path)} imports {name}, but has to work without"


def test_only_commands_import_argparse() -> None:
    """A command is a file that calls ``command.end``; ``cli/arguments.py`` makes its flags."""
    for path in MODULES:
        text = path.read_text()
        if "import argparse" in text and path != ROOT / "cli" / "arguments.py":
            assert "command.end(" in text, module_of(path)


def test_there_are_no_import_cycles() -> None:
    uses = {module_of(path): imported(path) for path in MODULES if room_of(path) != "benchmarks"}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join([*way, module])
        if module not in done:
            for other in uses.get(module, ()):
                visit(other, (*way, module))
            done.add(module)

    for module in uses:
        visit(module, ())


@pytest.mark.parametrize("room", sorted({room_of(path) for path in MODULES if path.name == "__init__.py"}))
def test_a_rooms_init_names_all_its_files(room: str) -> None:
    """The docstring also names the file to start reading with."""
    page = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))
    assert page is not None
    assert "start reading here" in page
    missing = {path.name for path in (ROOT / room).glob("*.py")} - set(page.split()) - {"__init__.py"}
    assert not missing


def test_a_command_starts_without_waiting_for_torch() -> None:
    """Nothing slow is imported before signals are handled and the streams are safe."""
    for path in (ROOT / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert all(name.partition(".")[0] in {"cli", *sys.stdlib_module_names} for name in names), path


COMMANDS = [
    *(
        ROOT / f"{name}.py"
        for name in (
            "main",
            "experiments",
            "grader",
            "handout",
            "recommend",
            "tune",
            "course/hand_in",
            "study/probes",
            "study/ablation",
        )
    ),
    # peer_models.py runs in another environment, without this project; harness.py is no command.
    *(path for path in sorted((ROOT / "benchmarks").glob("*.py")) if path.stem not in ("peer_models", "harness")),
]


@pytest.mark.parametrize("path", COMMANDS, ids=module_of)
def test_a_commands_first_act_is_to_make_its_streams_safe(path: Path) -> None:
    """``command.begin`` comes before every import that takes time or can fail."""
    statements = ast.parse(path.read_text()).body
    place = next(n for n, statement in enumerate(statements) if "command.begin(" in ast.unparse(statement))
    for statement in statements[:place]:
        names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
        names += [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
        assert {name.partition(".")[0] for name in names} <= {"cli", "sys", "pathlib"}
    assert "command.end(" in ast.unparse(statements[-1])
