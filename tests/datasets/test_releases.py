"""The other releases of MovieLens: in small archives written as their READMEs describe them, and from a server."""

import functools
import hashlib
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch

import data
import main
from data import Interactions
from datasets import download, items, releases, source
from datasets.source import DataSource
from datasets.textfile import InputFile

STARS = (0.5, 3.0, 4.5, 5.0)
OTHERS = {name: archives for name, archives in releases.RELEASES.items() if name != "ml-100k"}
TITLES = ("Toy Story (1995)", 'Misérables, Les (1995) "uncut"', "Movie: the ; one (2000)")


def members(name: str) -> dict[str, bytes]:
    """The ratings and the movies of a release."""
    (release,) = OTHERS[name]
    stars = (1.0, 3.0, 4.0, 5.0) if name == "ml-1m" else STARS
    pairs = [(1, 1193), (1, 10), (75, 1193), (6040, 77)]
    rows = [(*pair, rating, 978300760 + line) for line, (pair, rating) in enumerate(zip(pairs, stars, strict=True))]
    titles = dict(zip((10, 77, 1193), TITLES, strict=True))
    if release.ratings == "ratings.dat":
        ratings = "".join(f"{user}::{item}::{rating:g}::{time}\n" for user, item, rating, time in rows)
        movies = "".join(f"{item}::{title}::Drama|Comedy\n" for item, title in titles.items())
    else:
        ratings = "userId,movieId,rating,timestamp\n"
        ratings += "".join(f"{user},{item},{rating:.1f},{time}\n" for user, item, rating, time in rows)
        quoted = {item: '"' + t.replace('"', '""') + '"' if "," in t else t for item, t in titles.items()}
        movies = "movieId,title,genres\n"
        movies += "".join(f"{item},{title},Drama|Comedy\n" for item, title in quoted.items())
    return {
        f"{release.folder}/{release.ratings}": ratings.encode(),
        f"{release.folder}/{release.titles}": movies.encode(release.encoding),
    }


def pack(name: str, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members(name).items():
            archive.writestr(member, content)


def accept(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stand-in's digest be the published one, where the release has one."""
    (release,) = OTHERS[name]
    if release.md5:
        stand_in = release._replace(md5=hashlib.md5(path.read_bytes()).hexdigest())
        monkeypatch.setitem(releases.RELEASES, name, (stand_in,))


def load(name: str, folder: Path) -> Interactions:
    return data.read(DataSource(dataset=name, data_dir=folder))


def genres(name: str, folder: Path) -> dict[str, str]:
    return source.genres(DataSource(dataset=name, data_dir=folder))


def check(made: Interactions, name: str) -> None:
    assert (made.num_users, made.num_items, made.titles) == (3, 3, TITLES)
    assert made.ratings.tolist() == ([1.0, 3.0, 4.0, 5.0] if name == "ml-1m" else list(STARS))
    assert isinstance(made.source_item_ids, torch.Tensor)
    assert made.source_item_ids[made.item_ids].tolist() == [1193, 10, 1193, 77]
    assert made.times is not None
    assert made.times.tolist() == [978300760.0 + line for line in range(4)]


@pytest.mark.parametrize("name", OTHERS)
def test_a_release_put_by_hand(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(name, tmp_path / f"{name}.zip")
    if OTHERS[name][0].md5:
        with pytest.raises(ValueError, match="bytes with MD5"):
            load(name, tmp_path)
    accept(name, tmp_path / f"{name}.zip", monkeypatch)
    for _ in range(2):
        check(load(name, tmp_path), name)
    assert genres(name, tmp_path) == dict.fromkeys(("10", "77", "1193"), "Drama Comedy")
    with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
        archive.extractall(tmp_path / "unzipped")
    check(load(name, tmp_path / "unzipped"), name)
    assert genres(name, tmp_path / "unzipped") == genres(name, tmp_path)


def test_movielens_100k_keeps_its_times(members: tuple[bytes, bytes], movielens: Interactions, tmp_path: Path) -> None:
    """From September 1997 to April 1998, as the README says, whether from GroupLens or from the wheel."""
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_bytes(members[0])
    for made in (movielens, data.load(tmp_path)):
        assert made.times is not None
        assert made.times.tolist() == [float(line.split(b"\t")[3]) for line in members[0].splitlines()]
        days = [
            datetime.fromtimestamp(float(time), timezone.utc).date() for time in (made.times.min(), made.times.max())
        ]
        assert (days, made.parts) == ([date(1997, 9, 20), date(1998, 4, 22)], None)


def test_genres_of_movielens_100k(tmp_path: Path, data_dir: Path) -> None:
    """GroupLens's u.item and RecBole's .item agree; u.item ends with 19 flags."""
    flags = ["0"] * 19
    flags[3] = flags[4] = flags[5] = "1"
    line = "|".join(["1", "Toy Story (1995)", "01-Jan-1995", "", "http://x", *flags])
    (tmp_path / "u.item").write_bytes(f"{line}\n2|Caf\xe9 (1995)|||x|{'|'.join(['0'] * 19)}\n".encode("latin-1"))
    assert items.read_genres(InputFile(tmp_path / "u.item")) == {"1": "Animation Children's Comedy"}
    assert genres("ml-100k", data_dir)["1"] == "Animation Children's Comedy"
    assert genres("ml-100k", tmp_path) == {}


def test_a_digest_beside_the_archive_is_checked(tmp_path: Path) -> None:
    pack("ml-32m", tmp_path / "ml-32m.zip")
    (tmp_path / "ml-32m.zip.md5").write_text(f"{'0' * 32}  ml-32m.zip\n")
    with pytest.raises(ValueError, match="expected 00000000000000000000000000000000"):
        load("ml-32m", tmp_path)
    (tmp_path / "ml-32m.zip").write_bytes(b"no archive")
    (tmp_path / "ml-32m.zip.md5").unlink()
    with pytest.raises(ValueError, match="is damaged"):
        load("ml-32m", tmp_path)
    pack("ml-25m", tmp_path / "ml-32m.zip")
    with pytest.raises(ValueError, match=r"has no ml-32m/ratings\.csv in it"):
        load("ml-32m", tmp_path)


class Server:
    """Serves files by name, from the byte that the request names, and may break off."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges: list[str | None] = []
        self.break_off: int | None = None

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        content = self.files.get(request.path[1:])
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        start = int(wanted[6:-1]) if wanted else 0
        if content is None or start >= len(content) > 0:
            request.send_error(404 if content is None else 416)
            return
        request.send_response(206 if wanted else 200)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start : self.break_off])
        request.close_connection = True


@pytest.fixture
def server(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(releases, "URL", serve(made.answer))
    return made


def test_a_release_is_fetched_and_checked_and_a_broken_download_is_resumed(server: Server, tmp_path: Path) -> None:
    pack("ml-latest", tmp_path / "x.zip")
    payload = (tmp_path / "x.zip").read_bytes()
    server.files = {"ml-latest.zip": payload, "ml-latest.zip.md5": b"MD5 (ml-latest.zip) = " + b"0" * 32}
    folder = tmp_path / "data"
    with pytest.raises(ValueError, match="bytes with MD5"):
        load("ml-latest", folder)
    assert {each.name for each in folder.iterdir()} == {".ml-latest.zip.lock", "ml-latest.zip.md5"}
    server.files["ml-latest.zip.md5"] = f"{hashlib.md5(payload).hexdigest()}  ml-latest.zip\n".encode()
    server.break_off = 300
    with pytest.raises(FileNotFoundError, match="broke off after 300 of"):
        load("ml-latest", folder)
    assert (folder / "ml-latest.zip.part").stat().st_size == 300
    server.break_off = None
    check(load("ml-latest", folder), "ml-latest")
    assert server.ranges[-1] == "bytes=300-"
    assert (folder / "ml-latest.zip").read_bytes() == payload
    assert not (folder / "ml-latest.zip.part").exists()


def test_of_two_processes_that_need_the_same_release_one_fetches_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack("ml-1m", tmp_path / "x.zip")
    server.files = {"ml-1m.zip": (tmp_path / "x.zip").read_bytes()}
    accept("ml-1m", tmp_path / "x.zip", monkeypatch)
    archive, go_on = tmp_path / "ml-1m.zip", threading.Event()

    def slow(path: Path) -> None:
        assert go_on.wait(10)
        releases.check_archive(releases.RELEASES["ml-1m"][0], path, archive)

    fetched = functools.partial(download.to_file, f"{releases.URL}ml-1m.zip", archive)
    with ThreadPoolExecutor(2) as pool:  # flock is between open files, so that threads do as well as processes
        both = [pool.submit(fetched, slow) for _ in range(2)]
        said, deadline = "", time.monotonic() + 10
        while "another process is fetching" not in said and time.monotonic() < deadline:
            time.sleep(0.05)
            said += capsys.readouterr().err
        go_on.set()
        for each in both:
            each.result(10)
    assert "another process is fetching" in said
    assert (len(server.ranges), server.ranges[0]) == (1, None)
    assert archive.read_bytes() == server.files["ml-1m.zip"]


def test_a_leftover_longer_than_the_file_is_not_resumed(server: Server, tmp_path: Path) -> None:
    server.files = {"a": b"12345"}
    (tmp_path / "a.part").write_bytes(b"x" * 9)
    download.to_file(f"{releases.URL}a", tmp_path / "a", lambda _: None)
    assert (tmp_path / "a").read_bytes() == b"12345"


def test_without_a_server_the_message_says_what_to_do(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ml-1m is not in .*could not be fetched: .*404.*To place it by hand"):
        load("ml-1m", tmp_path)


def test_the_command_with_an_archive_put_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    pack("ml-latest-small", Path("data/ml-latest-small.zip"))
    assert main.main(["--dataset", "ml-latest-small", "--epochs=1", "--test_fraction=.3"]) == 0
    said = "4 ratings of 3 items by 3 users, 0.5 to 5 stars; column userId, movieId, rating, timestamp\n"
    assert capsys.readouterr().err.startswith(said)
