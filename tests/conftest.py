"""What the tests share: real ratings where a source can be reached, synthetic ones everywhere."""

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import data
from data import Interactions
from datasets import releases

ROOT = Path(__file__).parent.parent
torch.set_num_threads(1)  # as many workers as there are cores run tests at a time


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """A folder that holds MovieLens 100K: the project's own, filled on the first run."""
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
    """u.data and u.item in GroupLens's formats, whichever source filled the folder."""
    ratings = releases.files_in(releases.find("ml-100k", data_dir)[0])[0].read()
    ratings = ratings[ratings.index(b"196\t242\t3") :]  # the first rating, below a header if there is one
    lines = (f"{item}|{title}|01-Jan-1995||url|0|1\n" for item, title in enumerate(movielens.titles, 1))
    return ratings, "".join(lines).encode("latin-1")


class StandIn(NamedTuple):
    """An archive of the layout of a published one, which cannot be in the repository, and what it is checked by."""

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
    """RecBole's, whose titles have the year in a column of its own."""
    lines = ["item_id:token\tmovie_title:token_seq\trelease_year:token"]
    for item, title in enumerate(movielens.titles, 1):
        name, _, year = title.removesuffix(")").rpartition(" (")
        lines.append(f"{item}\t{name}\t{year}" if name else f"{item}\tunkonwn\t")
    header = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    return stand_in(releases.RELEASES["ml-100k"][1], header + members[0], "\n".join(lines).encode())


@pytest.fixture(scope="session")
def split() -> tuple[Interactions, Interactions]:
    """Synthetic ratings, small, whose number is no multiple of a batch."""
    interactions = data.synthetic(num_users=60, num_items=90, num_interactions=1000, seed=1)
    return data.random_train_test_split(interactions, 0.1, torch.Generator().manual_seed(1))


Refused = Callable[[str, Callable[[list[str]], int], list[str]], str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command that refuses its arguments, within this process: status 2, no output; returns what stderr got."""

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


class Experiments(NamedTuple):
    """A small run of experiments.py: its folder and what it said."""

    logdir: Path
    done: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Experiments:
    """Four experiments, two seeds, four epochs. Made once; to be copied before anything in it is changed."""
    logdir = tmp_path_factory.mktemp("experiments") / "run"
    flags = ["--epochs=4", "--seeds=2", "--jobs=2", f"--logdir={logdir}", f"--data_dir={data_dir}"]
    command = [sys.executable, str(ROOT / "experiments.py"), *flags]
    return Experiments(logdir, subprocess.run(command, capture_output=True, text=True, timeout=120, check=False))
