"""Hostile and damaged archives: each is read or refused with a line, in bounded time and memory."""

import gc
import random
import re
import struct
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from memory import memory_below
from uploaded import zipped

from grading.submissions import FILE, Submission, Unreadable, read_submission, uploads

MODELS = b"models = 1\n"
SECONDS = 2.0  # of the processor, for one archive
MEMORY = 2**28  # bytes
LOCAL, DIRECTORY, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"


def listed(names: Iterable[bytes], extra: bytes = b"", method: int = 0, flags: int = 0) -> bytes:
    """Make a zip of empty files from raw names, without zipfile's own repairs."""
    contents = bytearray()
    directory = bytearray()
    for name in names:
        common = struct.pack("<5H3L2H", 20, flags, method, 0, 0, 0, 0, 0, len(name), len(extra))
        directory += DIRECTORY + struct.pack("<H", 20) + common + struct.pack("<3H2L", 0, 0, 0, 0, len(contents)) + name
        directory += extra
        contents += LOCAL + common + name + extra
    ends = struct.pack("<4H2LH", 0, 0, 0, 0, len(directory), len(contents), 0)
    return bytes(contents + directory) + END + ends


def with_two_disks(content: bytes) -> bytes:
    """Put a zip64 locator that says two disks before a zip's last record."""
    place = content.rindex(END)
    return content[:place] + struct.pack("<4sLQL", b"PK\6\7", 0, 0, 2) + content[place:]


def patched(content: bytes, signature: bytes, place: int, field: bytes) -> bytes:
    """Overwrite a field of the first record of this signature."""
    start = content.index(signature) + place
    return content[:start] + field + content[start + len(field) :]


GOOD = zipped([(FILE, MODELS)])
TWO = zipped([("a.py", MODELS), (FILE, MODELS)])


def nothing(number: int) -> list[tuple[str, bytes]]:
    return [(f"{n}.py", b"") for n in range(number)]


def inside(name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    return zipped([(name, content)], method)


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a zip64 locator with two disks": ("span multiple disks", lambda: with_two_disks(GOOD)),
    "a name that begins with NUL": (r"x00a has odd characters", lambda: listed([b"\0a", FILE.encode()])),
    "a folder 1,500 deep": ("more than 32 folders", lambda: zipped([(FILE, MODELS), ("a/" * 1500 + "b.py", b"")])),
    "folders 32,000 deep": ("more than 32 folders", lambda: zipped((f"{n}" + "/a" * 32_000, b"") for n in range(9))),
    "19,000 empty files": (
        "19,000 Python files: expected at most 256",
        lambda: zipped([(FILE, MODELS), *nothing(19_000)]),
    ),
    "65,536 files": ("holds 65,535 files or more", lambda: listed(b"%d/pyvenv.cfg" % n for n in range(65_536))),
    "10,000 environments": (
        "there is no models.py",
        lambda: listed(b"a/" * 8 + b"%d/pyvenv.cfg" % n for n in range(10_000)),
    ),
    "names of 65,000 backslashes": ("leads out of", lambda: listed(b"\\" * 65_000 + b"%d" % n for n in range(100))),
    "fields of 64 KiB": (
        "64,000 bytes of extra fields",
        lambda: listed((b"%d" % n for n in range(120)), bytes(64_000)),
    ),
    "a directory of 9 MiB": (
        "directory is larger than 8,388,608",
        lambda: listed(b"%d" % n + bytes(900) for n in range(10_000)),
    ),
    "bzip2": ("compressed by method 12", lambda: zipped([(FILE, MODELS)], zipfile.ZIP_BZIP2)),
    "LZMA": ("compressed by method 14", lambda: zipped([(FILE, MODELS)], zipfile.ZIP_LZMA)),
    "encrypted": ("models.py is encrypted", lambda: listed([FILE.encode()], flags=1)),
    "two of one name": ("two files of the name models.py", lambda: zipped([(FILE, MODELS), (FILE, b"2")])),
    "two with two slashes": (
        "two files of the name a/b.py",
        lambda: zipped([(FILE, MODELS), ("a/b.py", b""), ("a\\b.py", b"2")]),
    ),
    "overlapping files": (
        "models.py overlaps another file",
        lambda: patched(TWO, DIRECTORY, 42, struct.pack("<L", 20)),
    ),
    "a size that is not true": (
        "models.py cannot be read .Bad CRC",
        lambda: patched(GOOD, DIRECTORY, 24, struct.pack("<L", 3)),
    ),
    "much that unpacks to nothing": (
        "declares 11 bytes, which is too few",
        lambda: patched(GOOD, DIRECTORY, 20, struct.pack("<L", 9_999)),
    ),
    "a name that is not UTF-8": ("damaged: make it again", lambda: listed([FILE.encode(), b"\xff.py"], flags=0x800)),
    "a link": ("models.py is a link", lambda: patched(GOOD, DIRECTORY, 38, struct.pack("<L", 0o120777 << 16))),
    "cut off": ("damaged: make it again", lambda: GOOD[:-7]),
    "zips in zips": (
        "in a.zip: in b.zip: there are more than 2 zips",
        lambda: inside("a.zip", inside("b.zip", inside("c.zip", GOOD))),
    ),
    "a large zip in a zip": ("a.zip is larger than 67,108,864 bytes", lambda: inside("a.zip", LOCAL + bytes(2**26))),
    "large zips in a zip": (
        "in b.zip: the zip is damaged",
        lambda: inside("a.zip", inside("b.zip", LOCAL + bytes(2**26 - 2**10), 0)),
    ),
    "a notebook of brackets": ("hw.ipynb is not a notebook", lambda: inside("hw.ipynb", b'{"cells": ' + b"[" * 2**20)),
    "a notebook of lists": (
        "hw.ipynb is not a notebook",
        lambda: inside("hw.ipynb", b'{"cells": [' + b"[]," * 2**20 + b"[]]}"),
    ),
    "a long number": ("hw.ipynb is not a notebook", lambda: inside("hw.ipynb", b'{"cells": ' + b"9" * 2**21 + b"}")),
}


def read_within_bounds(path: Path) -> Submission | str:
    """Read an archive as the grader does, once for the time and once for the memory; return its files or the reason."""
    gc.freeze()  # the objects of other tests, which the garbage collector would walk through again and again
    started = time.process_time()
    result = read_first(path)
    seconds = time.process_time() - started
    gc.unfreeze()
    assert seconds < SECONDS
    with memory_below(MEMORY):
        assert read_first(path) == result
    if isinstance(result, str):
        assert result.isprintable()
        assert len(result) < 400
    return result


def read_first(path: Path) -> Submission | str:
    try:
        return uploads([path])[0].read()
    except Unreadable as error:
        return str(error)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(name: str, tmp_path: Path) -> None:
    message, make = HOSTILE[name]
    (tmp_path / "submission.zip").write_bytes(make())
    result = read_within_bounds(tmp_path / "submission.zip")
    assert isinstance(result, str)
    assert re.search(message, result), result


NAMES = ("layers.py", "a/b.py", "notes.txt", "a/data.csv", "hw.ipynb")
ODD_NAMES = (
    *(FILE, "submission/models.py", "hw/models.py", "hw\\layers.py", "models (1).py", "Models.py", "hw.ipynb", "b.py"),
    *("doejane_1_2_models.py", "roejo_LATE_3_4_models-1.py", "Jo Roe_5_assignsubmission_file_/models.py", "a", "a/"),
    *("../models.py", "/a.py", "C:/a.py", "a/./b//c.py", "a\0.py", "\0", "\r.py", "ü.py", "م\u200cن.py"),
    *("", ".", "..", "/"),
    *("__MACOSX/._models.py", ".venv/lib/a.py", "env/pyvenv.cfg", "env/a.py", "Icon\r", "x" * 300, "a/" * 40 + "b.py"),
)
EXTREMES = (
    *(0, 1, 2, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF),
    *(2**63 - 1, 2**63, 2**64 - 1),
)


def made_up(chance: random.Random, depth: int = 0) -> tuple[bytes, set[bytes]]:
    """Make an archive, and damage it or not; return it with the contents of the files in it."""
    contents = {MODELS, b""}
    files = [(FILE, MODELS)] if chance.random() < 0.7 else []
    for _ in range(chance.randrange(6)):
        name = chance.choice(NAMES if chance.random() < 0.8 else ODD_NAMES)
        content = chance.choice([MODELS, b"", chance.randbytes(chance.randrange(300)), b"0" * chance.randrange(10_000)])
        files.append((name, content))
    if depth < 3 and chance.random() < 0.3:
        inner, more = made_up(chance, depth + 1)
        files.append((chance.choice(["a.zip", "hw/b.zip", FILE, "c.py"]), inner))
        contents |= more
    contents |= {content for _, content in files}
    files = list(dict(files).items()) if chance.random() < 0.9 else files
    method = chance.choice([zipfile.ZIP_STORED, *[zipfile.ZIP_DEFLATED] * 6, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    whole = zipped(files, method) if chance.random() < 0.8 else listed(name.encode() for name, _ in files)
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5])):
        whole = chance.choice([flipped, flipped, cut, extended, with_extreme, with_extreme, with_zip64])(whole, chance)
    return whole, contents


def flipped(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 3, 20])):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged)


def cut(content: bytes, chance: random.Random) -> bytes:
    start, end = sorted(chance.choice([0, len(content), chance.randrange(len(content))]) for _ in range(2))
    return content[start:end] or content[:1]


def extended(content: bytes, chance: random.Random) -> bytes:
    more = chance.choice([b"\0" * 50, chance.randbytes(70_000), content, content[content.find(DIRECTORY) :], END * 30])
    return chance.choice([content + more, more + content])


def with_extreme(content: bytes, chance: random.Random) -> bytes:
    """Set a field of a record to an extreme number."""
    places = [place for place in range(len(content)) if content[place : place + 2] == b"PK"]
    place = chance.choice(places or [0]) + chance.randrange(4, 46)
    field = chance.choice(EXTREMES).to_bytes(8, "little")[: chance.choice([1, 2, 4, 8])]
    return (content[:place] + field + content[place + len(field) :]) or b"P"


def with_zip64(content: bytes, chance: random.Random) -> bytes:
    """Put records of zip64 with extreme numbers before the last record."""
    numbers = [chance.choice(EXTREMES) for _ in range(12)]
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, *(n & 0xFFFF for n in numbers[:2]), *numbers[2:6])
    locator = struct.pack("<4sLQL", b"PK\6\7", *(numbers[6] & 1, numbers[7], numbers[8] & 3))
    place = content.rfind(END) if END in content else len(content)
    return content[:place] + chance.choice([record, b""]) + locator + content[place:]


@pytest.mark.parametrize("number", [300, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_made_up_archives_are_read_or_refused(number: int, tmp_path: Path) -> None:
    """Nothing else is raised, and a file that is read has the content that was packed."""
    chance = random.Random(number)
    path = tmp_path / "submission.zip"
    read = 0
    for _ in range(number):
        content, contents = made_up(chance)
        path.write_bytes(content)
        result = read_within_bounds(path)
        if isinstance(result, Submission):
            read += 1
            assert FILE in result.files
            assert {*result.files.values()} <= contents
    assert number / 10 < read < number * 9 / 10


def test_archives_as_models_py_are_never_read_as_python(tmp_path: Path) -> None:
    for size in range(4, len(GOOD)):
        (tmp_path / FILE).write_bytes(GOOD[:size])
        with pytest.raises(Unreadable):
            read_submission(tmp_path / FILE)
