"""A text file of any size as blocks of whole lines, each with the number of its first line."""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

SIZE = 2**25  # bytes of a block
HEAD = 2**16
MARKS = {  # the first bytes of files that are not text in UTF-8
    b"PK\x03\x04": "is a zip archive: unzip it first",
    b"PAR1": "is a Parquet file: give it the ending .parquet",
    b"\xff\xfe": "is UTF-16: save it as UTF-8",
    b"\xfe\xff": "is UTF-16: save it as UTF-8",
}


class Block(NamedTuple):
    """Whole lines, and the number of the first of them in the file, from 1."""

    content: bytes
    line: int


class InputFile(NamedTuple):
    """A file, or a member of a zip archive."""

    path: Path
    member: str | None = None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the content for reading, unpacked where gzip packed it; raise ValueError where the file is damaged."""
        try:
            if self.member is not None:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                    yield member
                return
            with self.path.open("rb") as file:
                packed = file.peek(2)[:2] == b"\x1f\x8b"
                yield gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[misc]
        except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{self} is damaged: {error}; fetch or pack it again") from None

    def read(self) -> bytes:
        """Read the whole content, without the mark that some programs begin UTF-8 with."""
        with self.open() as file:
            return file.read().removeprefix(b"\xef\xbb\xbf")

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
                content = content.removeprefix(b"\xef\xbb\xbf")
            end = _end_of_lines(content) if read else len(content)
            block = content[:end]
            rest = content[end:]
            if block:
                _check_text(file, block, line)
                yield Block(block, line)
                line += block.count(b"\n")
            if not read:
                return


def _end_of_lines(content: bytes) -> int:
    """Return the end of the last line whose quotation marks are closed; a quoted cell may contain line ends."""
    last = end = content.rfind(b"\n") + 1
    if b'"' in content:
        for _ in range(100):
            if end == 0 or content.count(b'"', 0, end) % 2 == 0:
                return end or last
            end = content.rfind(b"\n", 0, end - 1) + 1
    return last


def _check_start(file: InputFile, content: bytes) -> None:
    for mark, problem in MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"{file} {problem}")
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
