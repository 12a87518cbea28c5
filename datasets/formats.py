"""The formats of files by their first bytes: packed text, unpacked block by block, and files that are no text."""

import contextlib
import importlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zip")
ZSTD_MODULE = "compression.zstd"  # from Python 3.14
# The exceptions of damaged files. An OSError of the content has no errno.
DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, zipfile.BadZipFile)
with contextlib.suppress(ImportError):  # Python can be built without it
    import lzma

    DAMAGE += (lzma.LZMAError,)
with contextlib.suppress(ImportError):
    DAMAGE += (importlib.import_module(ZSTD_MODULE).ZstdError,)

BOM = b"\xef\xbb\xbf"  # some programs begin UTF-8 with it
GZIP = rb"\x1f\x8b"
BZIP2 = rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"
XZ = rb"\xfd7zXZ\0"
ZSTD = rb"\x28\xb5\x2f\xfd"
ZIP = rb"PK(\x03\x04|\x05\x06)"
UNPACKERS = {GZIP: "gzip", BZIP2: "bz2", XZ: "lzma", ZSTD: ZSTD_MODULE}
CSV = "save it as CSV"
UNPACK = "unpack it, and give the file of ratings"
NOT_TEXT = {
    rb"PAR1": "is a Parquet file: give it the ending .parquet",
    rb"\xff\xfe|\xfe\xff": "is UTF-16: save it as UTF-8",
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": f"is an Excel file (.xls): {CSV}",
    rb"\x93NUMPY": f"is a NumPy array (.npy): {CSV}",
    rb"SQLite format 3\0": f"is an SQLite database: {CSV}",
    rb"\x89HDF\r\n\x1a\n": f"is an HDF5 file: {CSV}",
    rb"\x80[\x02-\x05]": f"is a pickle: {CSV}",
    rb"ARROW1": f"is an Arrow file: {CSV} or as Parquet",
    rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07": f"is an archive: {UNPACK}",
    rb".{257}ustar": f"is a tar archive: {UNPACK}",
    rb"|".join((GZIP, BZIP2, XZ, ZSTD, ZIP)): "is packed twice: unpack it first",
    rb"\s*\[\s*[\[{]": f"is a JSON array: {CSV}, or as JSON Lines, with a record in each line",
}
RECORD = re.compile(rb'\s*\{\s*("|\}|$)')  # the start of a JSON object


def problem(start: bytes) -> str | None:
    """Return the problem and the remedy of a file that is not text in UTF-8, by its first bytes."""
    for mark, found in NOT_TEXT.items():
        if re.match(mark, start.removeprefix(BOM), re.DOTALL):
            return found
    return None


def plain_name(name: str) -> str:
    """Return the name of a file in lower case, without the ending of a packed one."""
    name = name.lower()
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


@contextlib.contextmanager
def unpacked(file: Any, where: str) -> Iterator[IO[bytes]]:
    """Yield the content of an open file: as it is, or unpacked while it is read.

    Args:
        file: open for reading; it has ``peek``.
        where: the file's name in messages.

    Raises:
        ValueError: this Python cannot unpack it, or it is an archive of something else than one text file.
    """
    start = file.peek(16)
    if re.match(ZIP, start):
        with zipfile.ZipFile(file) as archive, archive.open(_only_member(archive, where)) as member:
            yield member
    else:
        module = next((module for mark, module in UNPACKERS.items() if re.match(mark, start)), None)
        yield file if module is None else _open(file, module, where)


def _open(file: IO[bytes], module: str, where: str) -> IO[bytes]:
    """Open a packed file with a module of Python's library, or with pyarrow, which also reads zstd."""
    with contextlib.suppress(ImportError):
        return importlib.import_module(module).open(file)  # type: ignore[no-any-return]
    if module != ZSTD_MODULE:
        raise ValueError(f"{where} is packed, and this Python lacks the module {module}: unpack the file first")
    try:
        import pyarrow as pa
    except ImportError:
        raise ValueError(f"{where} is packed by zstd: pip install pyarrow, or unpack it first") from None
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")  # type: ignore[no-any-return]


def _only_member(archive: zipfile.ZipFile, where: str) -> zipfile.ZipInfo:
    """Return the only file in a zip, apart from the files that operating systems add."""
    names = archive.namelist()
    if "[Content_Types].xml" in names or {"mimetype", "content.xml"} <= set(names):
        raise ValueError(f"{where} is an Excel file or another document of an office program: {CSV}")
    if names and all(name.endswith(".npy") for name in names):
        raise ValueError(f"{where} is a NumPy archive (.npz): {CSV}")
    if any(name.endswith("/data.pkl") for name in names):
        raise ValueError(f"{where} is a PyTorch file: {CSV}")
    members = [
        each
        for each in archive.infolist()
        if not each.is_dir() and not re.search(r"(^|/)(\.|__MACOSX/)", each.filename)
    ]
    if len(members) != 1:
        raise ValueError(f"{where} is a zip archive of {len(members)} files: expected one; {UNPACK}")
    if members[0].flag_bits & 1:
        raise ValueError(f"{where} is a zip archive with a password: unzip it first")
    return members[0]
