"""The grader on right, wrong and hostile submissions: exactly the points that each deserves.

    python -m pytest tests/grading/test_submissions.py     # all checks but training for each right one, some for others
    python -m pytest -m exhaustive                         # all checks for each

The submissions are in submissions/: right/ holds whole solutions, wrong.py and hostile.py edits of one of them.
"""

import re
import resource
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hostile import QUICK as QUICK_NAMES
from hostile import TRICKS, Trick
from wrong import BIAS, COURSE, INIT, RIGHT, SCORE, WRONG, Mistake, edited

import grader
from grading.checks import Split
from grading.pool import Pool, grade
from grading.results import Grade
from grading.rubric import RUBRIC

ROOT = Path(__file__).parent.parent.parent
CHECKS = {check.id.rpartition("-")[0]: check for check in RUBRIC}
QUICK = [check for check in RUBRIC if not check.needs_data]
TRAINING = [check for check in RUBRIC if check.needs_data]
HASTE = 0.15  # patience with what hangs
FEW = "1a-0 1a-2 1b-1 2-4 2-6"  # a check of each part

WHOLE = [ROOT / "models.py", *sorted(path for path in RIGHT.iterdir() if not path.name.startswith("__"))]
NORMAL = "self.weight.data.normal_(0, 1.0 / self.embedding_dim)"
NETWORK = "class MultiTaskNet(nn.Module):"
TAKEN = "self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self"
VARIANTS = {
    "tables taken in another order": {TAKEN: "self.U_fact, self.Q_fact, self.U_reg, self.Q_reg = self"},
    "in double precision": {NETWORK: f"torch.set_default_dtype(torch.float64)\n\n\n{NETWORK}"},
    "made double": {INIT: f"{INIT}        self.double()\n"},
    "a bias squeezed without a dimension": {BIAS: "b = self.B(item_ids).squeeze()"},
    "a user bias that is not used": {INIT: f"{INIT}        self.A = ZeroEmbedding(num_users, 1)\n"},
    "another padding row": {NORMAL: f"self.padding_idx = 1\n        {NORMAL}"},
    "lazy layers": {"nn.Linear(layer_sizes[i], layer_sizes[i + 1])": "nn.LazyLinear(layer_sizes[i + 1])"},
    "layers in an nn.ModuleDict": {
        "return nn.Sequential(*layers)": "return nn.ModuleDict({str(i): layer for i, layer in enumerate(layers)})",
        SCORE: "for layer in self.mlp_layers.values():\n            x = layer(x)\n        score = x.squeeze(1)",
    },
    "layers in a kind of nn.ModuleList": {
        "return nn.Sequential(*layers)": "return type('Layers', (nn.ModuleList,), {})(layers)",
        SCORE: "for layer in self.mlp_layers:\n            x = layer(x)\n        score = x.squeeze(1)",
    },
    "a compiled forward": {"    def forward(self, user_ids": "    @torch.compile\n    def forward(self, user_ids"},
    "linear layers without biases": {"layer_sizes[i + 1]))": "layer_sizes[i + 1], bias=False))"},
}
TRAINED_RIGHT = ["reads_self.py", "starter.py"]
TRAINED_WRONG = ["p not squeezed", "a sigmoid on the score"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where sandboxes are, of which nothing must be left."""
    folder = tmp_path_factory.mktemp("sandboxes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        threads, memory = torch.get_num_threads(), peak_memory()
        torch.set_num_threads(1)
        yield folder
        torch.set_num_threads(threads)
    assert list(folder.iterdir()) == []
    assert processes_below(folder) == []
    assert peak_memory() - memory < 2**30


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[Pool]:
    with Pool(jobs=2) as pool:
        yield pool


@pytest.fixture(scope="module")
def course_split(data_dir: Path) -> Split:
    return grader.course_split(data_dir)


def peak_memory() -> int:
    """The most that this process has used, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def processes_below(folder: Path) -> list[int]:
    """The processes whose home was below a folder when they started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOME={folder}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def failed(graded: Grade) -> dict[str, str]:
    """The messages of the checks that were failed."""
    assert [result.points for result in graded.results] == [r.passed * r.check.points for r in graded.results]
    return {result.check.id.rpartition("-")[0]: result.message for result in graded.results if not result.passed}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def named(path: Path) -> str:
    return path.name


def name_of(case: Mistake | Trick) -> str:
    return case.name


def assert_fails(mistake: Mistake, graded: Grade) -> None:
    messages = failed(graded)
    asked = {result.check.id.rpartition("-")[0] for result in graded.results}
    assert set(messages) == asked & set(mistake.fails.split()), messages
    for check, message in mistake.says.items():
        assert check in mistake.fails.split()
        assert check not in asked or re.search(message, messages[check], re.DOTALL), messages[check]


@pytest.mark.parametrize("path", WHOLE, ids=named)
def test_right(path: Path, pool: Pool) -> None:
    before = contents(path)
    assert failed(grade(pool, path, QUICK, None)) == {}
    assert contents(path) == before


@pytest.mark.parametrize(
    "variant", [pytest.param(each, marks=pytest.mark.long if "compiled" in each else []) for each in VARIANTS]
)
def test_right_variants(variant: str, pool: Pool, tmp_path: Path) -> None:
    path = write(tmp_path, {"models.py": edited(VARIANTS[variant])})
    assert failed(grade(pool, path, QUICK, None)) == {}


@pytest.mark.long
@pytest.mark.parametrize("name", TRAINED_RIGHT)
def test_right_training(name: str, pool: Pool, course_split: Split) -> None:
    assert failed(grade(pool, RIGHT / name, TRAINING, course_split)) == {}


@pytest.mark.parametrize("mistake", WRONG, ids=name_of)
def test_wrong(mistake: Mistake, pool: Pool, tmp_path: Path) -> None:
    """The checks that it must fail, and a few that it may have to pass."""
    path = write(tmp_path, {"models.py": edited(mistake.edits)})
    asked = {*mistake.fails.split(), *FEW.split()}
    checks = [check for name, check in CHECKS.items() if name in asked and not check.needs_data]
    assert_fails(mistake, grade(pool, path, checks, None))


@pytest.mark.parametrize("mistake", [each for each in WRONG if each.name in TRAINED_WRONG], ids=name_of)
def test_wrong_training(mistake: Mistake, pool: Pool, course_split: Split, tmp_path: Path) -> None:
    path = write(tmp_path, {"models.py": edited(mistake.edits)})
    assert_fails(mistake, grade(pool, path, TRAINING, course_split))


def assert_gains_nothing(trick: Trick, names: str, pool: Pool, folder: Path, submission: Path) -> None:
    """A trick fails what it must; afterwards all is as before, and a right submission gets its points."""
    write(submission, trick.files)
    before = contents(submission)
    messages = failed(grade(pool, submission, [CHECKS[name] for name in names.split()], None))
    assert set(messages) == set(names.split()) & set(trick.fails.split()), messages
    for check in set(messages) - {"1a-2", "2-4", "2-5"}:
        assert re.search(trick.says, messages[check]), messages[check]
    assert contents(submission) == before
    assert len(processes_below(folder)) <= 2, "more than the wardens"
    assert [path for path in folder.glob("*/*") if path.name != "grading"] == []
    assert pool.submit(CHECKS["1a-2"], {"models.py": COURSE.encode()}, None).result().passed


@pytest.mark.parametrize("trick", TRICKS, ids=name_of)
def test_hostile(trick: Trick, folder: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pool, "patience", HASTE if trick.hangs else 1.0)
    assert_gains_nothing(trick, FEW if trick.checks == QUICK_NAMES else trick.checks, pool, folder, tmp_path)


def test_hostile_zips(pool: Pool, tmp_path: Path) -> None:
    """Paths that lead out of them, and bombs: nothing is written, and the next one is graded."""
    (tmp_path / "inside").mkdir()
    absolute, above, bomb, liar = (
        tmp_path / "inside" / f"{name}.zip" for name in ("absolute", "above", "bomb", "liar")
    )
    for path, name in ((absolute, f"{tmp_path}/escaped.py"), (above, "../escaped.py")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("models.py", COURSE)
            archive.writestr(name, "escaped = True")
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("models.py", COURSE)
        for number in range(3):
            archive.writestr(f"{number}.py", "")
            archive.infolist()[-1].file_size = 2**32 - 2  # 12 GB
    with zipfile.ZipFile(liar, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("models.py", bytes(2**27))
        archive.infolist()[-1].file_size = 100
    before = peak_memory()
    for path, message in (
        (absolute, "leads out of it"),
        (above, "leads out of it"),
        (bomb, "would unpack to"),
        (liar, "larger than|cannot be read"),
    ):
        messages = failed(grade(pool, path, QUICK, None))
        assert len(messages) == len(QUICK)
        assert all(re.search(message, each) for each in messages.values()), messages
    assert peak_memory() - before < 2**28
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside"]
    assert failed(grade(pool, RIGHT / "course.py", QUICK, None)) == {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", WHOLE, ids=named)
def test_right_in_full(path: Path, pool: Pool, course_split: Split) -> None:
    assert failed(grade(pool, path, RUBRIC, course_split)) == {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("variant", VARIANTS)
def test_right_variants_in_full(variant: str, pool: Pool, course_split: Split, tmp_path: Path) -> None:
    path = write(tmp_path, {"models.py": edited(VARIANTS[variant])})
    assert failed(grade(pool, path, RUBRIC, course_split)) == {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("mistake", WRONG, ids=name_of)
def test_wrong_in_full(mistake: Mistake, pool: Pool, course_split: Split, tmp_path: Path) -> None:
    path = write(tmp_path, {"models.py": edited(mistake.edits)})
    assert_fails(mistake, grade(pool, path, RUBRIC, course_split))


@pytest.mark.exhaustive
@pytest.mark.parametrize("trick", [each for each in TRICKS if each.checks == QUICK_NAMES], ids=name_of)
def test_hostile_in_full(
    trick: Trick, folder: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pool, "patience", HASTE if trick.hangs else 1.0)
    assert_gains_nothing(trick, QUICK_NAMES, pool, folder, tmp_path)
