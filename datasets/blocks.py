"""A text file of any size as blocks of whole lines, each with the number of its first line."""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

SIZE = 2**25  # bytes
HEAD = 2**16
MARKS = {  # how files begin that are no text
    b"PK\x03\x04": "is a zip archive: unzip it first",
    b"PAR1": "is a Parquet file: give it the ending .parquet",
    b"\xff\xfe": "is UTF-16: save it as UTF-8",
    b"\xfe\xff": "is UTF-16: save it as UTF-8",
}


class Block(NamedTuple):
    """Whole lines, and the number of the first of them in the file, from 1."""

    content: bytes
    line: int


class Source(NamedTuple):
    """A file, or a member of a zip archive."""

    path: Path
    member: str | None = None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes in it; a file that was packed by gzip is unpacked.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read.
        """
        try:
            if self.member is not None:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                    yield member
                return
            with self.path.open("rb") as file:
                packed = file.read(2) == b"\x1f\x8b"
                file.seek(0)
                if packed:
                    with gzip.open(file) as unpacked:
                        yield unpacked  # type: ignore[misc]
                else:
                    yield file
        except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{self} is damaged: {error}; fetch or pack it again") from None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"


def blocks(source: Source, size: int = SIZE) -> Iterator[Block]:
    """The file's lines, as whole as they are; checked to be text in UTF-8.

    Raises:
        ValueError: it is damaged, not text, not UTF-8, or its lines end as on old Macs.
        OSError: it cannot be read.
    """
    rest, line = b"", 1
    with source.open() as file:
        while True:
            read = file.read(size)
            content = rest + read
            if line == 1 and content and not rest:
                _check_start(source, content)
                content = content.removeprefix(b"\xef\xbb\xbf")
            end = _end_of_lines(content) if read else len(content)
            block, rest = content[:end], content[end:]
            if block:
                _check_text(source, block, line)
                yield Block(block, line)
                line += block.count(b"\n")
            if not read:
                return


def _end_of_lines(content: bytes) -> int:
    """Where the last line ends whose quotation marks are closed, since a quoted cell may go over several lines."""
    last = end = content.rfind(b"\n") + 1
    if b'"' in content:
        for _ in range(100):
            if end == 0 or content.count(b'"', 0, end) % 2 == 0:
                return end or last
            end = content.rfind(b"\n", 0, end - 1) + 1
    return last


def _check_start(source: Source, content: bytes) -> None:
    for mark, what in MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"{source} {what}")
    _check_zeros(source, content[:HEAD], 1)
    if b"\r" in content[:HEAD] and b"\n" not in content:
        raise ValueError(f"{source}: its lines end with CR alone, as on old Macs: save it with LF")


def _check_text(source: Source, block: bytes, line: int) -> None:
    if block.isascii() and b"\0" not in block:
        return
    _check_zeros(source, block, line)
    try:
        block.decode()
    except UnicodeDecodeError as error:
        number = line + block.count(b"\n", 0, error.start)
        column = error.start - (block.rfind(b"\n", 0, error.start) + 1) + 1
        raise ValueError(
            f"{source}, line {number}, byte {column}: 0x{block[error.start]:02x} is not UTF-8: "
            "save it as UTF-8, as with iconv -f latin1 -t utf-8"
        ) from None


def _check_zeros(source: Source, content: bytes, line: int) -> None:
    if (place := content.find(b"\0")) >= 0:
        number = line + content.count(b"\n", 0, place)
        raise ValueError(f"{source}, line {number}: has a zero byte: this is a binary file, and not text")
