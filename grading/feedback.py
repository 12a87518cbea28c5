"""Feedback for students: a page for each submission in Markdown and in HTML, and the names of these files.

A page shows a submission's text as text, even if it contains Markdown or HTML.
"""

import hashlib
import html
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from grading.results import Grade, explanation, total
from grading.table import short_label

LONGEST_NAME = 180  # bytes of a file's name, without its ending
KEPT = "-_.,+=@() "  # beside letters, their marks, and digits
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(?![^.])", re.IGNORECASE)  # Windows has no files of these names
OUTPUT = 'Lines that begin with "|" are the output of your code.'
STYLE = (
    "body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em } "
    "table { border-collapse: collapse } "
    "th, td { padding: .2em .8em; border-bottom: 1px solid #ccc; text-align: left } "
    "pre { background: #f4f4f4; padding: .8em; white-space: pre-wrap; overflow-wrap: anywhere }"
)


def markdown(graded: Grade) -> str:
    """Write a page in Markdown: the checks with their points, and the reasons of the failures with the output."""
    rows = [
        f"| {result.check.id} | {result.points} / {result.check.points} | {result.check.title} |"
        for result in graded.results
    ]
    blocks = [
        f"# {_plain(short_label(graded.name))}",
        total(graded),
        *([_plain(graded.note)] if graded.note else []),
        "\n".join(["| check | points | subject |", "| --- | --- | --- |", *rows]),
    ]
    if any(result.printed for result in graded.results if not result.passed):
        blocks.append(OUTPUT)
    for heading, reason in _failures(graded):
        blocks += [f"## Failed: {heading}", _fenced(reason)]
    return "\n\n".join(blocks) + "\n"


def _plain(string: str) -> str:
    """Escape the characters with a meaning in Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>&~|!$#@:])", r"\\\1", string)


def _fenced(text: str) -> str:
    """Put a text between fences that are longer than any row of backticks in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def web_page(graded: Grade) -> str:
    """Write the same page in HTML, without links to other files."""
    name = html.escape(short_label(graded.name))
    rows = [
        f"<tr><td>{result.check.id}<td>{result.points} / {result.check.points}<td>{html.escape(result.check.title)}"
        for result in graded.results
    ]
    parts = [
        f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{name}</title>\n<style>{STYLE}</style>',
        f"<h1>{name}</h1>\n<p>{total(graded)}</p>",
        *([f"<p>{html.escape(graded.note)}</p>"] if graded.note else []),
        "\n".join(["<table>", "<tr><th>check<th>points<th>subject", *rows, "</table>"]),
    ]
    if any(result.printed for result in graded.results if not result.passed):
        parts.append(f"<p>{html.escape(OUTPUT)}</p>")
    for heading, reason in _failures(graded):
        parts.append(f"<h2>Failed: {heading}</h2>\n<pre>{html.escape(reason)}</pre>")
    return "\n".join(parts) + "\n"


def _failures(graded: Grade) -> list[tuple[str, str]]:
    """Group neighbouring failed checks that have the same reason."""
    failed = [result for result in graded.results if not result.passed]
    return [
        (", ".join(result.check.id for result in results), reason)
        for reason, results in itertools.groupby(failed, explanation)
    ]


def file_names(labels: Iterable[str]) -> dict[str, str]:
    """Name the pages of submissions by their labels: readable, one name each, and valid on any disk.

    A name is the end of the label's path, with "~" between its parts, and as short as no other label has it. Odd
    characters are percent-encoded. A digest follows if the name is too long, or if a disk would confuse two names.
    """
    parts = {each: [_safe(part) for part in each.split("/") if part] or ["%2F"] for each in dict.fromkeys(labels)}
    names: dict[str, str] = {}
    for depth in range(1, max(map(len, parts.values()), default=0) + 1):
        ends = {each: "~".join(found[-depth:]) for each, found in parts.items()}
        times = Counter(map(_as_disks_compare, ends.values()))
        for each, end in ends.items():
            if each not in names and times[_as_disks_compare(end)] == 1 and len(end.encode()) <= LONGEST_NAME:
                names[each] = end
    for each in parts:
        if each not in names:
            names[each] = f"{parts[each][-1][:40]}~~{hashlib.sha256(each.encode()).hexdigest()[:32]}"
    return names


def _safe(part: str) -> str:
    """Percent-encode the characters of a part of a path that a disk or a shell could misread."""
    kept = [c if c.isalnum() or c in KEPT or unicodedata.category(c)[0] == "M" else _encoded(c) for c in part]
    if part[0] in "-. " or DEVICES.match(part):
        kept[0] = _encoded(part[0])
    return "".join(kept)


def _encoded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def _as_disks_compare(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
