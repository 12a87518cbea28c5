"""Downloads of a class: Canvas's and Moodle's names and zips of zips give one submission for each student."""

import re
import zipfile
from pathlib import Path

import pytest
from memory import memory_below
from uploaded import zip_and_folder, zipped

from grading.submissions import Submission, Unreadable, Upload, uploads

ONE = b"models = 1\n"
TWO = b"models = 2\n"


def result(upload: Upload) -> dict[str, bytes] | str:
    try:
        return upload.read().files
    except Unreadable as error:
        return str(error)


def read_both(files: dict[str, bytes], place: Path) -> dict[str, dict[str, bytes] | str]:
    """Read the same download as a zip and as a folder; return the result of each student's upload."""
    first, second = (
        {upload.name.removeprefix(str(path)): result(upload) for upload in uploads([path])}
        for path in zip_and_folder(files, place)
    )
    assert first == second
    return first


CANVAS = {
    "doejane_12_345_models.py": ONE,
    "roejo_LATE_13_346_models-2.py": TWO,
    "roejo_LATE_13_347_layers.py": b"layers",
    "o_hara_ann_14_348_homework-1.zip": zipped({"hw/models.py": ONE, "hw/layers.py": b""}),
    "wrong_15_349_report.pdf": b"%PDF-1.7",
    "wrong_15_350_models.txt": TWO,
    "alone_16_351_solution.py": TWO,
    "anon_x7Kq2_352_models.py": ONE,
    "bad_18_353_hw.zip": b"PK\3\4 and nothing else",
}
CANVAS_READ = {
    "doejane_12": {"models.py": ONE},
    "roejo_13": {"models.py": TWO, "layers.py": b"layers"},
    "o_hara_ann_14": {"models.py": ONE, "layers.py": b""},
    "wrong_15": "there is no models.py, only report.pdf, models.txt: "
    "expected models.py, or a folder or zip that contains it",
    "alone_16": {"models.py": TWO},
    "anon_x7Kq2": {"models.py": ONE},
    "bad_18": "the zip is damaged: make it again (File is not a zip file)",
}
MOODLE = {
    "Jane Doe_12_assignsubmission_file_/models.py": ONE,
    "Jane Doe_12_assignsubmission_onlinetext_/onlinetext.html": b"<p>Here it is.</p>",
    "Jo Roe_13_assignsubmission_file_/hw/models.py": TWO,
    "Jo Roe_13_assignsubmission_file_/hw/layers.py": b"layers",
    "Ann O'Hara_14_assignsubmission_file_/homework.zip": zipped({"hw/models.py": ONE}),
    "Ann O'Hara_15_assignsubmission_file_submission.zip": zipped({"models.py": TWO}),
    "Text Only_16_assignsubmission_onlinetext_/onlinetext.html": b"def f(): ...",
    "No Zip_17_assignsubmission_file_/hw.zip": b"class MultiTaskNet: pass",
}
MOODLE_READ = {
    "Jane Doe_12": {"models.py": ONE},
    "Jo Roe_13": {"models.py": TWO, "layers.py": b"layers"},
    "Ann O'Hara_14": {"models.py": ONE},
    "Ann O'Hara_15": {"models.py": TWO},
    "Text Only_16": "there is no file, only a text that was typed in: "
    "expected models.py, or a folder or zip that contains it",
    "No Zip_17": "hw.zip is a text file, not an archive: expected models.py, or a folder or zip that contains it",
}
ZIPS = {
    "alice.zip": zipped({"models.py": ONE}),
    "bob/hw.zip": zipped({"hw/models.py": TWO}),
    "bob/notes.txt": b"",
    "carol/models.py": ONE,
    "dan.py": TWO,
    "grades.csv": b"",
}
ZIPS_READ = {
    "alice.zip": {"models.py": ONE},
    "bob": {"models.py": TWO},
    "carol": {"models.py": ONE},
    "dan.py": {"models.py": TWO},
}


@pytest.mark.parametrize("around", ["", "submissions/", "hw/1/"])
@pytest.mark.parametrize(("files", "read"), [(CANVAS, CANVAS_READ), (MOODLE, MOODLE_READ), (ZIPS, ZIPS_READ)])
def test_each_student_of_a_download_is_a_submission(
    files: dict[str, bytes], read: dict[str, dict[str, bytes] | str], around: str, tmp_path: Path
) -> None:
    found = read_both({around + name: content for name, content in files.items()}, tmp_path)
    assert found == {f"/{name}": each for name, each in read.items()}


@pytest.mark.parametrize(
    ("files", "read"),
    [
        ({"models.py": ONE, "a.zip": b"", "b.zip": b""}, {"models.py": ONE}),
        ({"hw/submission/models.py": ONE, "hw/data/a.zip": b"", "hw/more/b.zip": b""}, {"models.py": ONE}),
        ({"a/models.py": ONE, "b/models.py": TWO}, "there is more than one models.py, in a, b: "),
        ({"models.py": ONE, "run_1_2_layers.py": b""}, {"models.py": ONE, "run_1_2_layers.py": b""}),
        ({"run_1_2_metrics.csv": ONE}, "there is no models.py, only run_1_2_metrics.csv: "),
        ({"hw.zip": zipped({"models.py": ONE})}, {"models.py": ONE}),
    ],
)
def test_one_submission_is_no_download(files: dict[str, bytes], read: dict[str, bytes] | str, tmp_path: Path) -> None:
    found = read_both(files, tmp_path)
    assert found.keys() == {""}
    assert found[""] == read if isinstance(read, dict) else str(found[""]).startswith(read)


def test_among_several_paths_none_is_a_download(tmp_path: Path) -> None:
    """A student cannot become several rows of a class."""
    paths = [tmp_path / "jane.zip", tmp_path / "jo.py", tmp_path / "gone.py"]
    paths[0].write_bytes(zipped({"a.zip": CANVAS["o_hara_ann_14_348_homework-1.zip"], "b.zip": b""}))
    paths[1].write_bytes(ONE)
    found = uploads(paths)
    assert [upload.name for upload in found] == [str(path) for path in paths]
    assert result(found[0]) == "there is no models.py, but 2 zips, a.zip, b.zip: expected one"
    assert found[1].read() == Submission({"models.py": ONE})
    with pytest.raises(FileNotFoundError):
        found[2].read()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bad\n.py", r"the path Odd Name_99_\S+ has odd characters: rename it"),
        ("../../models.py", r"the path Odd Name_99_\S+ leads out of the submission"),
        ("x" * 199 + ".zip", ".* is a text file, not an archive"),
        ("a/" * 40 + "b.txt", "there are more than 32 folders inside each other"),
        (".git/config", "there is no models.py, nor another file that is read"),
        ("pyvenv.cfg", "there is no models.py, only pyvenv.cfg"),
    ],
)
def test_a_students_odd_name_is_that_students_trouble(name: str, said: str, tmp_path: Path) -> None:
    """Moodle's download keeps the names that students give their files."""
    files = {**MOODLE, f"Odd Name_99_assignsubmission_file_/{name}": TWO}
    (tmp_path / "download.zip").write_bytes(zipped(files))
    found = [result(upload) for upload in uploads([tmp_path / "download.zip"])]
    assert found[:-1] == [*MOODLE_READ.values()]
    assert re.match(said, str(found[-1]))


def test_nobody_is_missing_in_a_download_of_zips(tmp_path: Path) -> None:
    long = "ю" * 120
    names = ["a.zip", "b.zip", f"{long}1.zip", f"{long}2.zip", "c.rar", "d.7z", "e.txt", "f/pyvenv.cfg", "g\n.zip"]
    (tmp_path / "download.zip").write_bytes(zipped(dict.fromkeys([*names, "__MACOSX/a.zip", ".DS_Store"], b"")))
    found = uploads([tmp_path / "download.zip"])
    assert [upload.name.removeprefix(f"{tmp_path}/download.zip/") for upload in found] == [
        name.partition("/")[0] for name in names
    ]
    assert all(isinstance(result(upload), str) for upload in found)


def test_a_download_is_read_one_student_at_a_time(tmp_path: Path) -> None:
    """Each of 40 zips has 4 MiB."""
    inner = zipped({"models.py": ONE, "checkpoint.pt": bytes(2**22)}, zipfile.ZIP_STORED)
    (tmp_path / "download.zip").write_bytes(zipped({f"s{n}_{n}_{n}_hw.zip": inner for n in range(40)}))
    with memory_below(2**21):
        found = uploads([tmp_path / "download.zip"])
    with memory_below(2**24):
        assert [result(upload) for upload in found] == [{"models.py": ONE}] * 40
