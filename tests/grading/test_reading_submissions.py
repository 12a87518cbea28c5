"""Submissions on disk: models.py is found in files, folders and zips, and hostile archives are refused."""

import stat
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from grading.submissions import Unreadable, read_submission

MODELS = (Path(__file__).parent.parent.parent / "models.py").read_bytes()


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"./models.py": b"1"}, {"models.py"}),
        ({"models.py": b"1", "submission/models.py": b"2"}, {"models.py", "submission/models.py"}),
        ({"submission/models.py": b"1", "submission/a/b.py": b"", "c.py": b""}, {"models.py", "a/b.py"}),
        ({"hw/submission/models.py": b"1", "__MACOSX/models.py": b"", ".git/models.py": b""}, {"models.py"}),
        ({"models.py": b"1", "data.csv": b"", "run/events": b""}, {"models.py"}),
    ],
)
def test_models_py_is_found_in_zips_and_folders(files: dict[str, bytes], found: set[str], tmp_path: Path) -> None:
    read = read_submission(make_zip(tmp_path / "submission.zip", files)).files
    assert set(read) == found
    assert read["models.py"] == b"1"
    folder = tmp_path / "folder"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert read_submission(folder).files["models.py"] == b"1"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"/models.py": b""}, "leads out of the submission"),
        ({"../models.py": b""}, "leads out of the submission"),
        ({"a\\..\\models.py": b""}, "leads out of the submission"),
        ({"C:/models.py": b""}, "leads out of the submission"),
        ({"models.py": bytes(2**20 + 1)}, "models.py is larger than 1,048,576 bytes"),
        ({"models.py": b"", "x\n.py": b""}, "too long or has odd characters"),
        ({"models.py": b"", "x" * 300: b""}, "too long or has odd characters"),
        ({"models.py": b"", "x.py": b"", "x.py/y.py": b""}, "a file and a folder of the same name, above x.py/y.py"),
        ({"a/models.py": b"", "b/models.py": b""}, "there is more than one, in a, b: expected one models.py"),
        ({"main.py": b""}, "there is none: expected one models.py"),
        ({"models.py": b"\0"}, "neither Python source nor a zip"),
        ({str(n): b"" for n in range(20_001)}, "20,001 files"),
    ],
)
def test_zips_that_are_refused(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "submission.zip", files)
    with pytest.raises(Unreadable, match=message):
        read_submission(path)


@pytest.mark.parametrize(
    ("declared", "message"), [(2**30 + 1, "would unpack to 1,073,741,825 bytes"), (100, "larger than|cannot be read")]
)
def test_a_zip_that_unpacks_to_much_is_refused_whatever_it_declares(
    declared: int, message: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "submission.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models.py", bytes(2**26))
        archive.infolist()[0].file_size = declared
    tracemalloc.start()
    with pytest.raises(Unreadable, match=message):
        read_submission(tmp_path / "submission.zip")
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_a_zip_with_a_link_or_damage(tmp_path: Path) -> None:
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("models.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(Unreadable, match="a link"):
        read_submission(path)
    whole = make_zip(path, {"models.py": MODELS}).read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            files = read_submission(path).files
        except Unreadable:
            continue
        assert files.keys() == {"models.py"}


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "solution.py").write_bytes(MODELS)
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "models.py").symlink_to(tmp_path / "solution.py")
    with pytest.raises(Unreadable, match=r"models\.py is a link that leads out of the submission"):
        read_submission(tmp_path / "student")
    assert read_submission(tmp_path / "student" / "models.py").files == {"models.py": MODELS}
