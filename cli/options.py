"""Options of a command as fields of a dataclass, each with its default, range and help in one place.

    @dataclass(frozen=True)
    class Settings:
        learning_rate: float = option(1e-3, "learning rate of Adam", above=0)

        def __post_init__(self) -> None:
            check_options(self)

``cli.arguments`` makes flags from the fields.
"""

import math
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Option:
    """The help and the range of an option.

    Attributes:
        help: the line in ``--help``, without the default.
        group: the option's heading in ``--help``.
        metavar: the placeholder of the value in ``--help``.
        parse: the function that makes a value from a string on the command line.
        several: whether the flag takes several values.
        choices: the allowed strings; () for any.
        words: strings that are allowed besides a whole number.
        least, above, most, below: the bounds of a number: value ≥ least, > above, ≤ most, < below.
        default_help: the default's description in ``--help``, instead of its value.
    """

    help: str
    group: str = ""
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    several: bool = False
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf
    default_help: str | None = None

    def contains(self, value: Any) -> bool:
        """Return whether a number is finite and within the bounds."""
        try:
            number = float(value)
        except OverflowError:
            return False
        return math.isfinite(number) and self.least <= number <= self.most and self.above < number < self.below

    @property
    def expected(self) -> str:
        """Return the bounds in words."""
        if math.isfinite(self.below) and math.isfinite(self.above):
            return f"a number between {self.above:g} and {self.below:g}"
        if math.isfinite(self.below):
            return f"a number from {self.least:g} to below {self.below:g}"
        if math.isfinite(self.most):
            return f"a number from {self.least:g} to {self.most:g}"
        if self.above == 0:
            return "a positive number"
        return f"at least {self.least:g}"


def option(default: Any, help: str, **rest: Any) -> Any:
    """Make a dataclass field that is an option; ``rest`` are further attributes of ``Option``."""
    return field(default=default, metadata={"option": Option(help, **rest)})


def option_of(each: "Field[Any]") -> Option:
    """Return the ``Option`` of a field."""
    found: Option = each.metadata["option"]
    return found


def check_options(options: Any) -> None:
    """Check each number, boolean and choice of a dataclass by itself, and convert whole numbers where floats belong.

    Raises:
        ValueError: one is wrong; the message names it and the expected values.
    """
    for each in fields(options):
        value, kind = getattr(options, each.name), type(each.default)
        check_option(each, value)
        if kind in (int, float) and value not in option_of(each).words:
            object.__setattr__(options, each.name, kind(value))


def check_option(each: "Field[Any]", value: object) -> None:
    """Check the type and the range of a number, a boolean or a choice.

    Raises:
        ValueError: it is wrong.
    """
    described = option_of(each)
    kind = int if described.words else type(each.default)
    if described.words and value in described.words:
        return
    if described.choices and value not in described.choices:
        raise ValueError(f"{each.name} is {value}: expected {_either(*described.choices)}")
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{each.name} is {value!r}: expected true or false")
    if kind is int and not is_whole(value):
        raise ValueError(f"{each.name} is {value!r}: expected {_either('a whole number', *described.words)}")
    if kind is float and (isinstance(value, bool) or not isinstance(value, Real)):
        raise ValueError(f"{each.name} is {value!r}: expected a number")
    if isinstance(value, Real) and kind in (int, float) and not described.contains(value):
        raise ValueError(f"{each.name} is {value}: expected {_either(described.expected, *described.words)}")


def _either(*expected: str) -> str:
    *others, last = expected
    return f"{', '.join(others)} or {last}" if others else last


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number, which booleans are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)
