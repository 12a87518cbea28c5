"""Submissions on disk: models.py is found in files, folders and zips, and other uploads are refused with the reason."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from memory import memory_below
from uploaded import make_folder, zip_and_folder, zipped

from grading.submissions import Submission, Unreadable, read_submission

MODELS = (Path(__file__).parent.parent.parent / "models.py").read_bytes()
CELLS: list[dict[str, Any]] = [
    {"cell_type": "markdown", "source": ["# Homework"]},
    {
        "cell_type": "code",
        "source": ["%matplotlib inline\n", "a = 1\n", "if a:\n", "    !pip install torch\n", "b = 7 % 4"],
    },
    {"cell_type": "code", "source": "%%bash\nls\n"},
    {"cell_type": "code", "source": "%%time\nMultiTaskNet = 5\n"},
]
WRITTEN = {"cell_type": "code", "source": "%%writefile hw/models.py\n1\n"}


def notebook(*cells: dict[str, Any]) -> bytes:
    return json.dumps({"cells": cells}).encode()


def read_both(files: dict[str, bytes], place: Path) -> Submission:
    """Read the same files from a zip and from a folder."""
    first, second = map(read_submission, zip_and_folder(files, place))
    assert first == second
    return first


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"./models.py": b"1"}, {"models.py"}),
        ({"models.py": b"1", "submission/models.py": b"2"}, {"models.py", "submission/models.py"}),
        ({"submission/models.py": b"1", "submission/a/b.py": b"", "c.py": b""}, {"models.py", "a/b.py"}),
        ({"hw/submission/models.py": b"1", "__MACOSX/models.py": b"", ".git/models.py": b""}, {"models.py"}),
        ({"hw/models.py": b"1", "hw/old/models.py": b"2"}, {"models.py", "old/models.py"}),
        ({"models.py": b"1", "data.csv": b"", "run/events": b"", "homework.ipynb": b"", "a.zip": b""}, {"models.py"}),
        ({"hw\\models.py": b"1", "hw\\parts\\layers.py": b""}, {"models.py", "parts/layers.py"}),
        (
            {"models.py": b"1", "\u0645\u200c\u0646 1.py": b"", "a b/ü.py": b""},
            {"models.py", "\u0645\u200c\u0646 1.py", "a b/ü.py"},
        ),
    ],
)
def test_models_py_is_found_in_zips_and_folders(files: dict[str, bytes], found: set[str], tmp_path: Path) -> None:
    read = read_both(files, tmp_path)
    assert (set(read.files), read.note) == (found, "")
    assert read.files["models.py"] == b"1"


@pytest.mark.parametrize(
    "junk",
    [
        ".venv/lib/python3.11/site-packages/torch/models.py",
        "hw/.ipynb_checkpoints/models.py",
        "env/lib/models.py",  # beside env/pyvenv.cfg
        "hw/conda/lib/models.py",
        "node_modules/a/models.py",
        "hw/__pycache__/models.py",
        "__MACOSX/hw/Icon\r",
        "hw/Icon\r",
    ],
)
def test_files_of_programs_are_passed_over(junk: str, tmp_path: Path) -> None:
    files = {"hw/models.py": b"1", "env/pyvenv.cfg": b"", "hw/conda/conda-meta/history": b"", junk: b"2"}
    assert read_both(files, tmp_path) == Submission({"models.py": b"1"})


def test_a_virtual_environment_with_20_000_files_is_passed_over(tmp_path: Path) -> None:
    environment = {f"hw/env/lib/python3.11/site-packages/torch/include/ATen/ops/{n}.h": b"" for n in range(20_000)}
    files = {"hw/models.py": b"1", "hw/env/pyvenv.cfg": b"", **environment}
    (tmp_path / "submission.zip").write_bytes(zipped(files))
    assert read_submission(tmp_path / "submission.zip") == Submission({"models.py": b"1"})


@pytest.mark.parametrize(
    ("files", "found", "note"),
    [
        ({"models (1).py": b"1"}, {"models.py"}, "models (1).py is graded as models.py"),
        ({"hw/doe_1_2_models.py": b"1", "hw/a/b.py": b""}, {"models.py", "a/b.py"}, "hw/doe_1_2_models.py is graded"),
        ({"Models.py": b"1", "layers.py": b""}, {"models.py", "layers.py"}, "Models.py is graded as models.py"),
        (
            {"hw.ipynb": notebook(*CELLS, WRITTEN), "a.py": b""},
            {"models.py", "a.py"},
            "the code cells of the notebook hw",
        ),
        ({"a/models.py": notebook(WRITTEN)}, {"models.py"}, "the code cells of the notebook a/models.py are graded as"),
    ],
)
def test_the_only_file_that_can_be_meant_is_graded_as_models_py(
    files: dict[str, bytes], found: set[str], note: str, tmp_path: Path
) -> None:
    read = read_both(files, tmp_path)
    assert (set(read.files), read.files["models.py"].strip()) == (found, b"1")
    assert read.note.startswith(note)


def test_the_code_cells_of_a_notebook_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "homework.ipynb").write_bytes(notebook(*CELLS))
    for path in (tmp_path, tmp_path / "homework.ipynb"):
        read = read_submission(path)
        assert read.note == "the code cells of the notebook homework.ipynb are graded as models.py"
        names: dict[str, int] = {}
        exec(read.files["models.py"], names)
        assert [names[name] for name in ("a", "b", "MultiTaskNet")] == [1, 3, 5]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_zip_in_a_zip_is_read(depth: int, tmp_path: Path) -> None:
    files = {"hw/models.py": b"1", "hw/layers.py": b"2"}
    for n in range(depth):
        files = {f"{n}/hw.zip": zipped(files), "readme.txt": b""}
    assert read_both(files, tmp_path).files == {"models.py": b"1", "layers.py": b"2"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("hw.zip", b"class MultiTaskNet:\n    pass\n", "hw.zip is a text file, not an archive: expected models.py"),
        ("hw.zip", b"", "hw.zip is empty"),
        ("hw.zip", bytes(2**21), "hw.zip is damaged, or not an archive"),
        ("hw.zip", b"Rar!\x1a\7\1", "hw.zip is a RAR archive"),
        ("hw.py", b"7z\xbc\xaf\x27\x1c", "hw.py is a 7z archive"),
        ("hw.tgz", b"\x1f\x8b\x08\0", "a gzip or tar.gz archive"),
        ("hw", b"models.py".ljust(257, b"\0") + b"ustar", "hw is a tar archive"),
        ("models.py", b"%PDF-1.7", "models.py is a PDF document"),
        ("models.py", b"<!DOCTYPE html>", "models.py is a web page"),
        ("hw.doc", b"\xd0\xcf\x11\xe0", "hw.doc is a Word document"),
        ("models.py", "x = 1".encode("utf-16"), "models.py is neither Python source nor a zip"),
        ("hw.ipynb", b"x = 1", "hw.ipynb is not a notebook that can be read"),
        (
            "hw.ipynb",
            b'{"cells": [{"cell_type": "markdown", "source": "x"}]}',
            "hw.ipynb is a notebook without a class MultiTaskNet",
        ),
        ("hw.ipynb", b'{"cells": [{"cell_type": "code", "source": 5}]}', "not a notebook that can be read"),
        ("hw.ipynb", notebook(*CELLS) + bytes(2**22), "larger than 4,194,304 bytes: clear its outputs"),
    ],
)
def test_files_of_other_kinds_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unreadable, match=message):
        read_submission(tmp_path / name)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"/models.py": b""}, "leads out of the submission"),
        ({"../models.py": b""}, "leads out of the submission"),
        ({"a\\..\\models.py": b""}, "leads out of the submission"),
        ({"C:/models.py": b""}, "leads out of the submission"),
        ({"models.py": bytes(2**20 + 1)}, "models.py is larger than 1,048,576 bytes"),
        ({"models.py": b"", "x\n.py": b""}, "has odd characters: rename it"),
        ({"models.py": b"", "x" * 300: b""}, "is too long: expected at most 200 bytes"),
        ({"models.py": b"", "x.py": b"", "x.py/y.py": b""}, "a file and a folder of the same name, above x.py/y.py"),
        ({"models.py": b"", "models.py/y.py": b""}, "a file and a folder of the same name, above models.py/y.py"),
        ({"a/models.py": b"", "b/models.py": b""}, "there is more than one models.py, in a, b: expected one"),
        ({"main.py": b"", **{str(n): b"" for n in range(9)}}, "there is no models.py, only main.py, 0, 1 and 7 more"),
        (
            {"models (1).py": b"", "models (2).py": b""},
            r"no models.py, only models \(1\).py, models \(2\).py: expected",
        ),
        ({"a.zip": b"", "b.zip": b"", "c": b""}, "there is no models.py, but 2 zips, a.zip, b.zip: expected one"),
        ({"a.ipynb": b"", "b.ipynb": b""}, "there is no models.py, but 2 notebooks, a.ipynb, b.ipynb: expected one"),
        ({"a.zip": b"models = 1"}, "a.zip is a text file, not an archive"),
        ({"[Content_Types].xml": b"", "word/document.xml": b""}, "it is a Word document"),
        ({}, "there is no models.py, nor another file that is read"),
        ({"models.py": b"\0"}, "neither Python source nor a zip"),
        ({str(n): b"" for n in range(20_001)}, "20,001 files"),
        (
            {"models.py": b"", **{f"{n}.py": b"" for n in range(257)}},
            "there are 257 Python files: expected at most 256",
        ),
        ({"models.py": b"", **{f"{n}.py": bytes(2**20) for n in range(17)}}, "larger than 16,777,216 bytes together"),
    ],
)
def test_zips_that_are_refused(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    (tmp_path / "submission.zip").write_bytes(zipped(files))
    with pytest.raises(Unreadable, match=message):
        read_submission(tmp_path / "submission.zip")


@pytest.mark.parametrize(
    ("declared", "message"), [(2**30 + 1, "would unpack to 1,073,741,825 bytes"), (100, "larger than|cannot be read")]
)
def test_a_zip_that_unpacks_to_much_is_refused_with_any_declared_size(
    declared: int, message: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "submission.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models.py", bytes(2**26))
        archive.infolist()[0].file_size = declared
    with memory_below(2**23), pytest.raises(Unreadable, match=message):
        read_submission(tmp_path / "submission.zip")


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "solution.py").write_bytes(MODELS)
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "models.py").symlink_to(tmp_path / "solution.py")
    with pytest.raises(Unreadable, match=r"models\.py is a link that leads out of the submission"):
        read_submission(tmp_path / "student")
    assert read_submission(tmp_path / "student" / "models.py").files == {"models.py": MODELS}


def test_a_folder_obeys_the_limits_of_a_zip(tmp_path: Path) -> None:
    (tmp_path / "/".join("a" * 40)).mkdir(parents=True)
    (tmp_path / "models.py").write_bytes(MODELS)
    with pytest.raises(Unreadable, match="more than 32 folders inside each other"):
        read_submission(tmp_path)


def test_pipes_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "models.py")
    for path in (tmp_path, tmp_path / "models.py"):
        with pytest.raises(Unreadable, match=r"models\.py is (not a regular file|neither a file nor a folder)"):
            read_submission(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "models.py").symlink_to("models.py")
    with pytest.raises(Unreadable, match=r"models\.py (cannot be read|is not a regular file)"):
        read_submission(tmp_path / "folder")


def test_links_and_odd_names_that_are_not_read_do_no_harm(tmp_path: Path) -> None:
    make_folder(tmp_path, {"models.py": b"1", os.fsdecode(b"\xe9t\xe9.txt"): b""})
    (tmp_path / "python").symlink_to("/usr/bin/python3")
    (tmp_path / "around").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to("nothing")
    assert read_submission(tmp_path) == Submission({"models.py": b"1"})


def test_a_zip_is_read_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_bytes(zipped({"models.py": MODELS}))
    assert read_submission(tmp_path / "models.py") == Submission({"models.py": MODELS})
    with pytest.raises(FileNotFoundError, match=r"nothing does not exist: expected models\.py"):
        read_submission(tmp_path / "nothing")


@pytest.mark.parametrize("handed_out", [b"models.py\ntrain.py\n", b"\xff\n"])
def test_models_py_of_a_students_folder(handed_out: bytes, tmp_path: Path) -> None:
    files = {"models.py": MODELS, "train.py": b"", "own.py": b"1", "parts/a.py": b"2", "notes": b""}
    make_folder(tmp_path, {**files, "handout.txt": handed_out})
    if b"train" in handed_out:
        found = {"models.py": MODELS, "own.py": b"1", "parts/a.py": b"2"}
        assert read_submission(tmp_path / "models.py") == Submission(found)
    else:
        with pytest.raises(Unreadable, match=r"models\.py cannot be read \('utf-8' codec"):
            read_submission(tmp_path / "models.py")
