"""Anybody's right models.py in the place of ours: it trains, is ranked, resumes and recommends."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_edits import check_alike, metrics_of, original

__all__ = ["original"]  # the fixture
ROOT = Path(__file__).parent.parent.parent
RIGHT = sorted(path for path in (ROOT / "tests/grading/submissions/right").iterdir() if path.name != "__pycache__")
# With the constructor's arguments as they are, and nothing else of the homework.
OTHER_NAMES = """\
import torch
from torch import nn


class MultiTaskNet(nn.Module):
    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True):
        super().__init__()
        self.everybody = nn.Parameter(torch.randn(num_users, embedding_dim, dtype=torch.float64) / embedding_dim)
        self.everything = nn.Parameter(torch.randn(num_items, embedding_dim, dtype=torch.float64) / embedding_dim)
        self.rate = nn.LazyLinear(1, dtype=torch.float64)
        self.noise = nn.Dropout(0.1)

    def forward(self, user_ids, item_ids):
        u, q = self.everybody[user_ids], self.noise(self.everything[item_ids])
        return torch.einsum("bd,bd->b", u, q), self.rate(torch.hstack([u, q])).flatten()
"""


@pytest.fixture
def project(request: pytest.FixtureRequest, original: Path, tmp_path: Path) -> Path:
    """Copy the project, with another models.py and the files beside it."""
    copy = shutil.copytree(original, tmp_path / "copy", ignore=shutil.ignore_patterns("default", "eager"))
    for name in ("serving", "recommend.py"):
        source = ROOT / name
        _ = shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
    theirs: Path | str = request.param
    if isinstance(theirs, str):
        (copy / "models.py").write_text(theirs)
    elif theirs.is_dir():
        shutil.copytree(theirs, copy, dirs_exist_ok=True)
    else:
        shutil.copy(theirs, copy / "models.py")
    return copy


def run(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], cwd=project, capture_output=True, text=True, check=False)


def trained(project: Path, logdir: str, epochs: int, *flags: str) -> str:
    """Train; returns metrics.csv."""
    settings = ["--ratings=mine.csv", "--test_fraction=0.1", "--device=cpu", f"--epochs={epochs}", f"--logdir={logdir}"]
    done = run(project, "main.py", *settings, *flags)
    assert done.returncode == 0, done.stderr
    return (project / logdir / "metrics.csv").read_text()


@pytest.mark.long
@pytest.mark.parametrize("project", [*RIGHT, OTHER_NAMES], indirect=True, ids=[*(p.stem for p in RIGHT), "other names"])
def test_a_right_models_file_in_the_place_of_ours_works(project: Path) -> None:
    for flags in ("", "--no_shared_embeddings"):
        found = metrics_of(project, flags)
        check_alike(found["default"], found["eager"])
        shutil.rmtree(project / "default")
        shutil.rmtree(project / "eager")
    whole = trained(project, "whole", 3)
    trained(project, "part", 1)
    assert trained(project, "part", 3, "--resume") == whole
    recommend = ["recommend.py", "--ratings=mine.csv", "--logdir=whole", "--top=3"]
    assert run(project, *recommend, "--user", "3", "7").returncode == 0
    assert run(project, *recommend, "--quartiles").returncode == 0
    named = (project / "models.py").read_text() != OTHER_NAMES
    for ask in (["--rated", "5=5", "7=1"], ["--similar", "4"]):
        done = run(project, *recommend, *ask)
        assert done.returncode == (0 if named else 2), done.stderr
        if not named:
            assert ": models.py has no " in done.stderr.splitlines()[-1]
    assert (project / "whole" / "projector_config.pbtxt").exists() == named


@pytest.mark.long
@pytest.mark.parametrize("project", [OTHER_NAMES], indirect=True, ids=["other names"])
def test_several_processes_train_any_network(project: Path) -> None:
    divided = project / "training" / "divided.py"
    divided.write_text(divided.read_text().replace("= 4096", "= 256"))  # there are only 1,500 ratings
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    flags = ["--ratings=mine.csv", "--test_fraction=0.1", "--epochs=2", "--device=cpu", "--logdir=shared"]
    done = run(project, *launcher, "main.py", *flags, "--weight_decay=10", "--batch_size=512")
    assert done.returncode == 0, done.stderr
    assert "training with the eager step" in done.stderr  # dropout draws other numbers for a part of a batch
