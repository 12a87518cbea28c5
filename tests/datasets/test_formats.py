"""Packed ratings, JSON Lines, and files of other formats, told by their content."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_ratings import H, load, table, triples

from datasets import formats, items, textfile
from datasets.textfile import InputFile

ROOT = Path(__file__).parent.parent.parent
ROWS = table(1, text=True)
PLAIN = (H + "".join(f'"{user}",{item},{stars}\n' for user, item, stars in ROWS)).encode()


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, member in members:
            archive.writestr(name, member)
    return content.getvalue()


def zstd(content: bytes) -> bytes:
    pa = pytest.importorskip("pyarrow")
    return pa.Codec("zstd").compress(content, asbytes=True)  # type: ignore[no-any-return]


def halves(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return a function that packs content as two streams, as some parallel programs do."""
    return lambda content: pack(content[:500]) + pack(content[500:])


MAC = (("__MACOSX/._a.csv", b"\0\5\26\7"), (".DS_Store", b"\0\0"))
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
    "gz of halves": halves(gzip.compress),
    "bz2 of halves": halves(bz2.compress),
    "xz of halves": halves(lzma.compress),
    "zst of halves": halves(zstd),
    "zip": lambda content: zipped(("a.csv", content)),
    "zip by bz2": lambda content: zipped(("a.csv", content), method=zipfile.ZIP_BZIP2),
    "zip by lzma": lambda content: zipped(("deep/in/a.csv", content), method=zipfile.ZIP_LZMA),
    "zip of a Mac": lambda content: zipped(("folder/", b""), ("folder/a.csv", content), *MAC),
}


@pytest.mark.parametrize("kind", PACKED)
def test_packed_ratings_are_the_same_whatever_the_file_is_called(kind: str, tmp_path: Path) -> None:
    for name in ("a.csv", f"a.csv.{kind.split()[0]}", "ratings"):
        (tmp_path / name).write_bytes(PACKED[kind](PLAIN))
        assert triples(load(tmp_path / name)) == ROWS


@pytest.mark.parametrize("ending", formats.ENDINGS)
def test_the_name_below_the_ending_of_a_packed_file_counts(ending: str, tmp_path: Path) -> None:
    """A file called .csv has commas between its columns, even if all lines could be read with another separator."""
    path = tmp_path / f"a.CSV{ending}"
    path.write_bytes(PACKED[ending[1:]](b"user,item;a;b,rating\n1,2;3;4,5\n2,3;4;5,1\n"))
    assert triples(load(path, "1,2,3")) == [(1, "2;3;4", 5.0), (2, "3;4;5", 1.0)]


@pytest.mark.parametrize("kind", PACKED)
def test_a_damaged_packed_file_is_one_line_or_loses_nothing(kind: str, tmp_path: Path) -> None:
    whole = PACKED[kind](PLAIN)
    draw = random.Random(kind)
    refused = []
    for trial in range(30 if "zst" in kind else 60):  # pyarrow packs by zstd without checksums
        damaged = bytearray(whole)
        if trial < 30:
            del damaged[draw.randrange(12, len(whole)) :]
        else:
            damaged[draw.randrange(6, len(whole))] ^= 1 << draw.randrange(8)
        path = tmp_path / f"{trial}.csv"
        path.write_bytes(damaged)
        try:
            found = triples(load(path))
        except ValueError as error:
            refused.append(str(error))
        else:
            assert found in (ROWS, ROWS[: len(found)]) if "halves" in kind else found == ROWS
    assert len(refused) > 25
    assert all(re.fullmatch(r"/[^\n]+\.csv[^\n]+", message) for message in refused)


def test_zstd_without_pyarrow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    with pytest.raises(ValueError, match=r"a\.csv is packed by zstd: pip install pyarrow, or unpack it first"):
        load(tmp_path / "a.csv")


def saved(write: Callable[[io.BytesIO], object]) -> bytes:
    content = io.BytesIO()
    write(content)
    return content.getvalue()


def tar(content: io.BytesIO) -> None:
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo("a.csv")
        entry.size = len(PLAIN)
        archive.addfile(entry, io.BytesIO(PLAIN))


SHEET = (("[Content_Types].xml", b"<Types/>"), ("xl/workbook.xml", b"<workbook/>"))
LOCKED = zipped(("a.csv", PLAIN)).replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")
OTHER: dict[str, tuple[bytes, str]] = {
    ".xlsx": (zipped(*SHEET), "is an Excel file or another document of an office program: save it as CSV"),
    ".ods": (zipped(("mimetype", b"x"), ("content.xml", b"x")), "of an office program: save it as CSV"),
    ".xls": (bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 100, "is an Excel file (.xls): save it as CSV"),
    ".npz": (saved(lambda file: np.savez(file, a=np.ones(3))), "is a NumPy archive (.npz): save it as CSV"),
    ".npy": (saved(lambda file: np.save(file, np.ones(3))), "is a NumPy array (.npy): save it as CSV"),
    ".pt": (saved(lambda file: torch.save(torch.ones(3), file)), "is a PyTorch file: save it as CSV"),
    ".pkl": (pickle.dumps([1, 2]), "is a pickle: save it as CSV"),
    ".old pkl": (pickle.dumps([1, 2], protocol=2), "is a pickle: save it as CSV"),
    ".db": (b"SQLite format 3\0\x10\0", "is an SQLite database: save it as CSV"),
    ".h5": (b"\x89HDF\r\n\x1a\n\0\0", "is an HDF5 file: save it as CSV"),
    ".feather": (b"ARROW1\0\0", "is an Arrow file: save it as CSV or as Parquet"),
    ".7z": (b"7z\xbc\xaf\x27\x1c\0\4", "is an archive: unpack it, and give the file of ratings"),
    ".tar": (saved(tar), "is a tar archive: unpack it, and give the file of ratings"),
    ".tar.gz": (gzip.compress(saved(tar)), "is a tar archive: unpack it, and give the file of ratings"),
    ".csv.gz.gz": (gzip.compress(gzip.compress(PLAIN)), "is packed twice: unpack it first"),
    ".csv.gz.zip": (zipped(("a.csv.gz", gzip.compress(PLAIN))), "is packed twice: unpack it first"),
    ".two.zip": (zipped(("a.csv", PLAIN), ("b.csv", PLAIN)), "is a zip archive of 2 files: expected one; unpack it"),
    ".empty.zip": (zipped(), "is a zip archive of 0 files: expected one; unpack it"),
    ".locked.zip": (LOCKED, "is a zip archive with a password: unzip it first"),
    ".deflate64.zip": (
        zipped(("a.csv", PLAIN)).replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x09\0"),
        "is packed by a method that Python cannot read: unpack it first",
    ),
    ".json": (b'[{"user": 1}]', "is a JSON array: save it as CSV, or as JSON Lines, with a record in each line"),
    ".nested.json": (b"\xef\xbb\xbf [\n [1, 2, 3]]", "is a JSON array: save it as CSV"),
}


@pytest.mark.parametrize("kind", OTHER)
def test_a_file_of_another_format_is_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ratings and as titles, with its own ending and as .csv."""
    content, message = OTHER[kind]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.csv").write_bytes(PLAIN)
    for name in (f"a{kind}", "a.csv"):
        (tmp_path / name).write_bytes(content)
        for arguments in ((Path(name),), (Path("plain.csv"), None, Path(name))):
            with pytest.raises(ValueError, match=rf"^{re.escape(name)}[^\n]*$") as caught:
                load(*arguments)
            assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst", "zip"])
def test_titles_may_be_packed(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(PLAIN)
    path = tmp_path / f"titles.tsv.{kind}"
    path.write_bytes(PACKED[kind]("".join(f"{item}\tfilm, {item}\n" for item in range(5, 40)).encode()))
    titles = load(tmp_path / "a.csv", titles=path).titles
    assert titles[0] == "film, 5"


def test_a_file_without_line_ends_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "LONGEST_LINE", 1000)
    monkeypatch.setattr(textfile, "LARGEST", 1000)
    monkeypatch.setattr(textfile.blocks, "__defaults__", (100,))
    (tmp_path / "a.csv").write_bytes(PLAIN + b"7" * 2000 + b"\n")
    with pytest.raises(ValueError, match=rf"line {len(ROWS) + 2}: has more than 0 MB: expected a line a rating"):
        load(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="has more than 0 MB: expected a line for each item"):
        InputFile(tmp_path / "a.csv").read()


MEMORY = """
import pathlib, re, sys
from datasets.textfile import InputFile, blocks
try:
    print(sum(len(block.content) for block in blocks(InputFile(pathlib.Path(sys.argv[1])))))
except ValueError as error:
    print(error)
# The peak of ru_maxrss would be that of the tests' own process, which Linux passes on.
print(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
@pytest.mark.parametrize("line", [b"1,2,3\n", b"1,2,3;", b"\0\0\0\0\0\0"])
@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst", "zip"])
def test_a_bomb_does_not_fill_the_memory(kind: str, line: bytes, tmp_path: Path) -> None:
    """The content has more than a gigabyte; text is read block by block, and anything else is refused."""
    part, parts = line * 2**22, 45
    path = tmp_path / f"a.csv.{kind}"
    if kind == "zip":
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("a.csv", "w", force_zip64=True) as member,
        ):
            for _ in range(parts):
                member.write(part)
    else:
        path.write_bytes(PACKED[kind](part) * parts)
    done = subprocess.run([sys.executable, "-c", MEMORY, path], cwd=ROOT, capture_output=True, text=True, check=True)
    said, kilobytes = done.stdout.splitlines()
    if line.endswith(b"\n"):
        assert int(said) == len(part) * parts
    else:
        assert re.search(r"has more than 64 MB|has a zero byte", said)
    assert int(kilobytes) < 500_000


def lines_of(rows: list[Any]) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("text", [False, True])
def test_json_lines_give_the_same_table(text: bool, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of few lines, with blank lines, other keys, keys in any order, and packed."""
    draw, rows = random.Random(seed), table(seed, text)
    if text:
        rows = [(f'"{user} "so"; \\ and {user}"', item, stars) for user, item, stars in rows]
    records: list[Any] = []
    for user, item, stars in rows:
        keys = [
            ("userId", user),
            ("movieId", item),
            ("rating", stars),
            ("review", '"a\n"b", \tc'),
            ("tags", [1, {"x": 2}]),
        ]
        records.append(dict(keys if not records else draw.sample(keys, 5)))
        records += [""] * draw.randrange(2)
    content = lines_of(records).encode()
    monkeypatch.setattr(textfile.blocks, "__defaults__", (draw.choice([150, 1000, 2**20]),))
    for name, packed in (("a.jsonl", content), ("a.json", b"\xef\xbb\xbf" + content), ("a.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(packed)
        assert triples(load(tmp_path / name)) == rows


def test_numbers_of_json_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": 99999999999999999999, "item": "007", "rating": 3.50}\n{"rating":1,"item":"7","user":7}')
    assert triples(load(path)) == [("99999999999999999999", "007", 3.5), ("7", "7", 1.0)]


def test_keys_can_be_chosen_by_name_or_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of([{"when": {"$date": 1}, "stars given": 5, "who": "ann", "what": 1, "user": [1]}] * 2
                             + [{"who": "bob", "what": 2, "stars given": 3.5}]))  # fmt: skip
    expected = [("ann", 1, 5.0), ("bob", 2, 3.5)]
    assert triples(load(path, "who,what,stars given")) == expected
    assert triples(load(path, "3,4,2")) == expected


RIGHT = {"user": 1, "item": 2, "rating": 3}
WRONG: dict[str, tuple[list[Any], str]] = {
    "nested": ([RIGHT, RIGHT | {"user": {"id": 1}}], "line 2, key user: is nested: expected a string or a number"),
    "list": ([RIGHT, "", RIGHT | {"item": [1]}], "line 3, key item: is nested: expected a string or a number"),
    "null": ([RIGHT, RIGHT | {"item": None}], "line 2, column item: the item is missing"),
    "absent": ([RIGHT, {"user": 1, "rating": 3}], "line 2, column item: the item is missing"),
    "empty": ([RIGHT, "", "{}"], "line 3: is not a JSON object with keys: expected a whole record in each line"),
    "null record": ([RIGHT, "null"], "line 2: is not a JSON object with keys"),
    "all null": ([RIGHT, dict.fromkeys(RIGHT)], "line 2, column user: the user is missing"),
    "all empty": ([RIGHT, "", dict.fromkeys(RIGHT, " ")], "line 3, column user: the user is missing"),
    "no number": ([RIGHT, RIGHT | {"rating": "good"}], "line 2, column rating: 'good' is not a rating"),
    "line break": ([RIGHT | {"user": "a\nb"}], "line 1, key user: has a line break, a tab or a zero in it"),
    "tab": ([RIGHT, RIGHT | {"item": "a\tb"}], "line 2, key item: has a line break, a tab or a zero in it"),
    "no record": ([RIGHT, "[1, 2, 3]"], "line 2: is not a JSON object with keys: expected a whole record in each line"),
    "not JSON": ([RIGHT, '{"user": 1,'], "line 2: is not a JSON object"),
    "two in a line": ([RIGHT, json.dumps(RIGHT) * 2], "line 2: is not a JSON object"),
    "deep": ([RIGHT, '{"user": ' + "[" * 100_000], "line 2: is not a JSON object"),
    "several lines": (["{", '"user": 1}'], "line 1: is not a JSON object with keys"),
    "no usual key": ([{"who": 1, "what": 2}], "line 1: no column for the user in who, what: name the columns"),
    "late key": ([{"user": 1, "item": 2, "rating": 3}] * 60 + [RIGHT | {"score": 1}],
                 "line 61: has the key score, and the records above do not: add it to the first one, as null"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_json_lines_is_named_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, message = WRONG[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(textfile.blocks, "__defaults__", (500,))
    Path("a.jsonl").write_text(lines_of(rows))
    with pytest.raises(ValueError, match=r"^a\.jsonl[^\n]*$") as caught:
        load(Path("a.jsonl"))
    assert message in str(caught.value)


def test_titles_as_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(H + "1,2,3\n2,3,4\n2,4,4\n")
    path = tmp_path / "t.jsonl"
    rows = ['{"movieId": 2, "title": "A, \\"b\\"", "genres": ["Drama", "War"]}', "", '{"title": null, "movieId": "3"}']
    path.write_text("\n".join(rows) + '\n{"movieId": 4, "title": "null"}\n')
    assert load(tmp_path / "a.csv", titles=path).titles == ('A, "b"', "3", "null")
    assert items.read_genres(InputFile(path)) == {"2": "Drama War"}
    path.write_text('{"name": "A", "artistID": 2}\n')
    assert load(tmp_path / "a.csv", titles=path).titles == ("A", "3", "4")
    (tmp_path / "t.csv").write_text('genre,anime_id,name\nx,2,A\ny,3,"B"\n')
    assert load(tmp_path / "a.csv", titles=tmp_path / "t.csv").titles == ("A", "B", "4")
    path.write_text('{"movieId": 2, "title": "A"}\n{"title": "B"}\n')
    with pytest.raises(ValueError, match=r"t\.jsonl, line 2: no key for the item in title: call one of them item"):
        load(tmp_path / "a.csv", titles=path)
