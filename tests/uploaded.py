"""Uploads for tests: zips and folders made of the contents of files by their names."""

import io
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

Files = Mapping[str, bytes]


def zipped(files: Files | Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Make a zip, in which a name can be there twice."""
    content = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(content, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, each in files.items() if isinstance(files, Mapping) else files:
            archive.writestr(zipfile.ZipInfo(name), each, method)
    return content.getvalue()


def make_folder(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def zip_and_folder(files: Files, place: Path) -> tuple[Path, Path]:
    """Write the same files as a zip and as a folder."""
    (place / "upload.zip").write_bytes(zipped(files))
    make_folder(place / "upload", files)
    return place / "upload.zip", place / "upload"
