"""Command-line flags: a parser whose errors are one line, and flags made from a dataclass's options."""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from cli import VERSION
from cli.options import option_of
from cli.text import one_line

Options = TypeVar("Options")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose flags cannot be abbreviated.

    Arguments of ``type=Path`` are read by ``path_of``.

    Args:
        description: the first line of ``--help``.
        groups: the headings of ``--help``, in order.
    """

    def __init__(self, description: str, groups: Sequence[str] = ()) -> None:
        super().__init__(
            description=description,
            allow_abbrev=False,
            usage="%(prog)s [option ...]" if groups else None,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
        )
        for kind in (Path, type(Path())):  # the second is the type of a default
            self.register("type", kind, path_of)
        self._headings = {title: self.add_argument_group(title) for title in groups}
        self.add_argument("--version", action="version", version=VERSION, help="print the version and exit")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)  # argparse would ignore that the output is a closed pipe

    def group(self, title: str) -> argparse._ActionsContainer:
        """Return the group with this heading, or the parser if there is none."""
        return self._headings.get(title, self)


def name_or_path(string: str) -> str:
    """Read a name or a path from the command line; "~" or "~user" at its start is replaced by the home folder.

    The shell does that for ``--logdir ~/x``, but not for ``--logdir=~/x``.

    Raises:
        argparse.ArgumentTypeError: there is no such user, or the string is empty.
    """
    if not string:
        raise argparse.ArgumentTypeError("is an empty string: expected a path, or . for the working directory")
    expanded = os.path.expanduser(string)
    if expanded.startswith("~"):
        user = re.split(r"[/\\]", string[1:])[0]
        raise argparse.ArgumentTypeError(
            f"{string} is in the home folder of {user}, and there is no such user: give another path, "
            f"or ./{string} for a path with this name"
        )
    return expanded


def path_of(string: str) -> Path:
    """Read a path from the command line, as ``name_or_path`` does."""
    return Path(name_or_path(string))


def add_options(parser: Parser, options: type[Any], names: Sequence[str] = (), default_help: str | None = None) -> None:
    """Add a flag for each option of a dataclass, or only for the options with these names.

    ``default_help`` describes the defaults in ``--help`` where they are not those of the dataclass; see ``given``.
    """
    for each in fields(options):
        described = option_of(each)
        if names and each.name not in names:
            continue
        group = parser.group(described.group)
        default = f"{each.default:g}" if isinstance(each.default, float) else each.default
        shown = default if described.default_help is None else described.default_help
        shown = default_help or shown
        if isinstance(each.default, bool):
            help_line = f"{described.help} (default: {default_help or ('yes' if each.default else 'no')})"
            group.add_argument(
                f"--{each.name}", f"--no_{each.name}", action=_YesOrNo, nargs=0, default=each.default, help=help_line
            )
            hidden = argparse.SUPPRESS
            group.add_argument(f"--no-{each.name}", action="store_false", dest=each.name, default=hidden, help=hidden)
            continue
        group.add_argument(
            f"--{each.name}",
            type=described.parse or (_number_or_word if described.words else type(each.default)),
            nargs="+" if described.several else None,
            default=each.default,
            metavar=described.metavar,
            help=described.help if shown in (None, "") else f"{described.help} (default: {shown})",
        )


def _number_or_word(string: str) -> int | str:
    try:
        return int(string)
    except ValueError:
        return string


class _YesOrNo(argparse.Action):
    """An action that stores true for ``--name`` and false for ``--no_name``."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, option_string == f"--{self.dest}")


def options_of(options: type[Options], namespace: argparse.Namespace) -> Options:
    """Make a dataclass of options from parsed flags; an option without a flag has its default.

    Raises:
        ValueError: an option is out of range.
    """
    names = [each.name for each in fields(options) if hasattr(namespace, each.name)]  # type: ignore[arg-type]
    return options(**{name: getattr(namespace, name) for name in names})


def given(parser: Parser, arguments: Sequence[str] | None, options: type[Any]) -> dict[str, Any]:
    """Return the options of a dataclass that are on the command line, also if their values are the defaults."""
    absent = object()
    names = [each.name for each in fields(options)]
    found = vars(parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(names, absent))))
    return {name: found[name] for name in names if found[name] is not absent}


def flags_of(options: Any, names: Sequence[str] = ()) -> list[str]:
    """Return the flags that give the options of a dataclass, or those with these names; defaults are left out."""
    found = []
    for each in fields(options):
        value = getattr(options, each.name)
        if value == each.default or (names and each.name not in names):
            continue
        if isinstance(value, bool):
            found.append(f"--{each.name}" if value else f"--no_{each.name}")
        elif option_of(each).several:
            found += [f"--{each.name}", *map(str, value)]
        else:
            found.append(f"--{each.name}={value}")
    return found


def check_at_least(options: argparse.Namespace, **least: int) -> None:
    """Raise ValueError unless each of these flags has at least the value given."""
    for name, minimum in least.items():
        if getattr(options, name) < minimum:
            raise ValueError(f"{name} is {getattr(options, name)}: expected at least {minimum}")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
