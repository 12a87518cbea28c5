"""Python source in a file, told by its content: source as it is, or the code cells of a notebook."""

import json
import re

from grading.archives import FILE, Entry, Unreadable, read, read_start, shown

LARGEST_FILE = 2**20  # bytes
LARGEST_NOTEBOOK = 2**22  # parsed, 30 times as much in memory
OTHER_KINDS = (  # by first bytes
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf'\x1c", "a 7z archive"),
    (b"\x1f\x8b", "a gzip or tar.gz archive"),
    (b"BZh91AY&SY", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"%PDF", "a PDF document"),
    (b"\xd0\xcf\x11\xe0", "a Word document or other office file"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"<!DOCTYPE", "a web page"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
)
ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz")
EXPECTED = f"expected {FILE}, or a folder or zip that contains it"

_NOTEBOOK = re.compile(rb'\s*\{\s*"(cells|metadata|nbformat)"')
_MAGIC = re.compile(r"^([ \t]*)(?=[%!]\S)", re.MULTILINE)  # a line for the notebook's shell
_TIMED = ("%%time", "%%capture")  # a first line for the notebook's shell, followed by Python


def read_source(name: str, entry: Entry) -> tuple[bytes, str]:
    """Read Python source of at most LARGEST_FILE bytes; return it with a note, "" if it is the file as it is.

    Raises:
        Unreadable: the file is of another kind, too large, or damaged.
    """
    start = read_start(name, entry)
    other = _other_kind(name, start)
    if other:
        raise Unreadable(f"{shown(name)} is {other}: {EXPECTED}")
    note = ""
    if name.lower().endswith(".ipynb") or _NOTEBOOK.match(start):
        if entry.size > LARGEST_NOTEBOOK:
            raise Unreadable(f"{shown(name)} is larger than {LARGEST_NOTEBOOK:,} bytes: clear its outputs")
        content = _code(name, read(name, entry, LARGEST_NOTEBOOK))
        note = f"the code cells of the notebook {shown(name)} are graded as {FILE}"
    else:
        content = read(name, entry, LARGEST_FILE)
    if b"\0" in content:
        raise Unreadable(f"{shown(name)} is neither Python source nor a zip: save it as UTF-8")
    if len(content) > LARGEST_FILE:
        raise Unreadable(
            f"the code cells of {shown(name)} are larger than {LARGEST_FILE:,} bytes: keep the network only"
        )
    return content, note


def _other_kind(name: str, start: bytes) -> str:
    """Name the kind of a file that cannot be Python source; "" for one that can be."""
    for first, kind in OTHER_KINDS:
        if start.startswith(first):
            return kind
    if start[257:262] == b"ustar":
        return "a tar archive"
    if name.lower().endswith(ARCHIVES):
        if not start:
            return "empty"
        return "damaged, or not an archive" if b"\0" in start else "a text file, not an archive"
    return ""


def _code(name: str, content: bytes) -> bytes:
    """Join the code cells of a notebook.

    A cell that writes models.py is taken alone, the last one of several. Lines for the notebook's shell become
    comments.
    """
    try:
        notebook = json.loads(content, parse_int=float)  # int is slow for a number of a million digits
        cells = [_text(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unreadable(f"{shown(name)} is not a notebook that can be read: save it again, or as {FILE}") from error
    written = [cell for cell in cells if re.match(rf"%%(writefile|file)[ \t]+(\S*/)?{re.escape(FILE)}[ \t]*\n", cell)]
    code = written[-1].partition("\n")[2] if written else "\n\n".join(map(_python, cells))
    if not written and "MultiTaskNet" not in code:
        raise Unreadable(f"{shown(name)} is a notebook without a class MultiTaskNet: expected {FILE}")
    return code.encode("utf-8", "replace")


def _text(cell: dict[str, str | list[str]]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _python(cell: str) -> str:
    """Make the lines of a cell that only a notebook understands comments."""
    if cell.startswith("%%") and not cell.startswith(_TIMED):
        return "".join(f"# {line}\n" for line in cell.splitlines())
    return _MAGIC.sub(r"\1pass  # ", cell)
