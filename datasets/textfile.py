"""A text file of any size as blocks of whole lines, each with the number of its first line."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from datasets import formats

SIZE = 2**25  # bytes of a block
HEAD = 2**16
LONGEST_LINE = 2**26  # bytes
LARGEST = 2**29  # bytes of a file that is read whole


class Block(NamedTuple):
    """Whole lines, and the number of the first of them in the file, from 1."""

    content: bytes
    line: int


class RowError(ValueError):
    """A mistake in the line ``line`` of a file, or in a row if it has no lines."""

    def __init__(self, file: object, line: int, problem: str, unit: str = "line") -> None:
        super().__init__(f"{file}, {unit} {line}{problem}")
        self.line = line


class WrongTime(RowError):
    """A cell that is not a time."""


class InputFile(NamedTuple):
    """A file, or a member of a zip archive."""

    path: Path
    member: str | None = None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the content for reading, unpacked if it is packed.

        Raises:
            ValueError: the file is damaged or cannot be unpacked.
            OSError: it cannot be read.
        """
        try:
            if self.member is not None:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                    yield member
                return
            with self.path.open("rb") as file, formats.unpacked(file, str(self)) as content:
                yield content
        except NotImplementedError:
            raise ValueError(f"{self} is packed by a method that Python cannot read: unpack it first") from None
        except formats.DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk, and not of the content
                raise
            raise ValueError(f"{self} is damaged: {error}; fetch or pack it again") from None

    def read(self) -> bytes:
        """Read the whole content, without the mark that some programs begin UTF-8 with; raise as ``open``."""
        with self.open() as file:
            content = file.read(LARGEST + 1).removeprefix(formats.BOM)
        if len(content) > LARGEST:
            raise ValueError(f"{self} has more than {LARGEST >> 20} MB: expected a line for each item")
        if found := formats.problem(content[:HEAD]):
            raise ValueError(f"{self} {found}")
        return content

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"


def blocks(file: InputFile, size: int = SIZE) -> Iterator[Block]:
    """Yield the lines of a file, block by block.

    Raises:
        ValueError: the file is damaged, not text or not UTF-8, or CR alone ends its lines, as on old Macs.
    """
    rest = b""
    line = 1
    with file.open() as opened:
        while True:
            read = opened.read(size)
            content = rest + read
            if line == 1 and content and not rest:
                _check_start(file, content)
                content = content.removeprefix(formats.BOM)
            end = content.rfind(b"\n") + 1 if read else len(content)
            block = content[:end]
            rest = content[end:]
            if block:
                _check_text(file, block, line)
                yield Block(block, line)
                line += block.count(b"\n")
            if not read:
                return
            if len(rest) > LONGEST_LINE:
                raise ValueError(
                    f"{file}, line {line}: has more than {LONGEST_LINE >> 20} MB: expected a line a rating"
                )


def _check_start(file: InputFile, content: bytes) -> None:
    if found := formats.problem(content[:HEAD]):
        raise ValueError(f"{file} {found}")
    _check_zeros(file, content[:HEAD], 1)
    if b"\r" in content[:HEAD] and b"\n" not in content:
        raise ValueError(f"{file}: its lines end with CR alone, as on old Macs: save it with LF")


def _check_text(file: InputFile, block: bytes, line: int) -> None:
    if block.isascii() and b"\0" not in block:
        return
    _check_zeros(file, block, line)
    try:
        block.decode()
    except UnicodeDecodeError as error:
        number = line + block.count(b"\n", 0, error.start)
        column = error.start - (block.rfind(b"\n", 0, error.start) + 1) + 1
        raise ValueError(
            f"{file}, line {number}, byte {column}: 0x{block[error.start]:02x} is not UTF-8: "
            "save it as UTF-8, as with iconv -f latin1 -t utf-8"
        ) from None


def _check_zeros(file: InputFile, content: bytes, line: int) -> None:
    if (place := content.find(b"\0")) >= 0:
        number = line + content.count(b"\n", 0, place)
        raise ValueError(f"{file}, line {number}: has a zero byte: expected text, and this is a binary file")
