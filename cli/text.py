"""Text that is safe on a terminal, in a table and in JSON: printable, on one line, of bounded length."""

LONGEST_LINE = 1000  # characters


def printable(string: str) -> str:
    """Escape each character that is not printable: control characters, invisible ones and lone surrogates."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in string)


def one_line(string: str, longest: int = LONGEST_LINE) -> str:
    """Make one printable line; from a long one, the middle is cut out."""
    line = printable(" ".join(string.split()))
    half = (longest - 1) // 2
    return line if len(line) <= longest else f"{line[:half]}…{line[-half:]}"
