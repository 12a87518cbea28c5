"""Shared fixtures: MovieLens 100K if a source can be reached, synthetic ratings, refused commands."""

import hashlib
import io
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import data
from data import Interactions
from datasets import releases

ROOT = Path(__file__).parent.parent
torch.set_num_threads(1)  # because there is a worker for each core
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a shell's background job, whose children would ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the project's data folder with MovieLens 100K, which the first run fetches."""
    try:
        data.load(ROOT / "data")
    except FileNotFoundError as error:
        pytest.skip(f"needs MovieLens 100K, and no source of it can be reached: {error}")
    return ROOT / "data"


@pytest.fixture(scope="session")
def movielens(data_dir: Path) -> Interactions:
    return data.load(data_dir)


@pytest.fixture(scope="session")
def members(data_dir: Path, movielens: Interactions) -> tuple[bytes, bytes]:
    """Return u.data and u.item in GroupLens's formats, from any source that filled the folder."""
    ratings = releases.files_in(releases.find("ml-100k", data_dir)[0])[0].read()
    ratings = ratings[ratings.index(b"196\t242\t3") :]  # from the first rating on, without a header
    lines = (f"{item}|{title}|01-Jan-1995||url|0|1\n" for item, title in enumerate(movielens.titles, 1))
    return ratings, "".join(lines).encode("latin-1")


class StandIn(NamedTuple):
    """A stand-in for a published archive, which cannot be in the repository, and its release with a digest."""

    release: releases.Archive
    content: bytes


def stand_in(release: releases.Archive, ratings: bytes, titles: bytes) -> StandIn:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{release.folder}/{release.ratings}", ratings)
        archive.writestr(f"{release.folder}/{release.titles}", titles)
    content = buffer.getvalue()
    return StandIn(release._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest()), content)


@pytest.fixture(scope="session")
def grouplens(members: tuple[bytes, bytes]) -> StandIn:
    return stand_in(releases.RELEASES["ml-100k"][0], *members)


@pytest.fixture(scope="session")
def wheel(members: tuple[bytes, bytes], movielens: Interactions) -> StandIn:
    """Return RecBole's wheel, whose titles have the year in a separate column."""
    lines = ["item_id:token\tmovie_title:token_seq\trelease_year:token"]
    for item, title in enumerate(movielens.titles, 1):
        name, _, year = title.removesuffix(")").rpartition(" (")
        lines.append(f"{item}\t{name}\t{year}" if name else f"{item}\tunkonwn\t")
    header = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    return stand_in(releases.RELEASES["ml-100k"][1], header + members[0], "\n".join(lines).encode())


@pytest.fixture(scope="session")
def split() -> tuple[Interactions, Interactions]:
    """Return a small training and test set of synthetic ratings, not a multiple of the batch size."""
    interactions = data.synthetic(num_users=60, num_items=90, num_interactions=1000, seed=1)
    return data.random_train_test_split(interactions, 0.1, torch.Generator().manual_seed(1))


Refused = Callable[[str, Callable[[list[str]], int], list[str]], str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command that refuses its arguments with status 2 and no output, in this process; return its stderr."""

    def run(name: str, main: Callable[[list[str]], int], arguments: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", [name])
        status: object
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
        output, errors = capsys.readouterr()
        assert (status, output) == (2, "")
        return errors

    return run


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], str]]:
    """Start a server on this machine that answers requests with a function, and return its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    monkeypatch.setenv("no_proxy", "*")
    yield start
    for server in servers:
        server.shutdown()
        server.socket.close()
