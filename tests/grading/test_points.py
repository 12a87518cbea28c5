"""Right and wrong submissions get exactly the points that they deserve.

    python -m pytest tests/grading/test_points.py          # all checks but training and, for wrong ones, slow gradients
    python -m pytest -m long tests/grading/test_points.py            # all checks but training
    python -m pytest -m exhaustive tests/grading/test_points.py      # all checks, training too

The submissions are in submissions/: right/ contains whole solutions, wrong.py edits of one of them.
"""

import re
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from wrong import BIAS, INIT, ONE_BY_ONE, RIGHT, SCALED, SCORE, SEQUENTIAL, WRONG, Mistake, edited, name_of

import grader
from grading.checks import Check, Split
from grading.pool import failure
from grading.rubric import RUBRIC
from grading.sandbox import Sandbox
from grading.submissions import read_submission

ROOT = Path(__file__).parent.parent.parent
UNTRAINED = [check for check in RUBRIC if not check.needs_data]
TRAINING = [check for check in RUBRIC if check.needs_data]
(GRADIENTS,) = (check for check in RUBRIC if check.id == "2-7-hidden")  # the slowest without training

WHOLE = [ROOT / "models.py", *sorted(path for path in RIGHT.iterdir() if not path.name.startswith("__"))]
NETWORK = "class MultiTaskNet(nn.Module):"
TAKEN = "self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self"
# Right variants of right/course.py: mistakes that fail no check.
EDITS = {
    "tables taken in another order": {TAKEN: "self.U_fact, self.Q_fact, self.U_reg, self.Q_reg = self"},
    "in double precision": {NETWORK: f"torch.set_default_dtype(torch.float64)\n\n\n{NETWORK}"},
    "made double": {INIT: f"{INIT}        self.double()\n"},
    "a bias squeezed without a dimension": {BIAS: "self.B(item_ids).squeeze()"},
    "a user bias that is not used": {INIT: f"{INIT}        self.A = ZeroEmbedding(num_users, 1)\n"},
    "a scalar that is not used": {INIT: f"{INIT}        self.mean = nn.Parameter(torch.zeros(()))\n"},
    "another padding row": {f"self.weight.data.{SCALED}": f"self.padding_idx = 1; self.weight.data.{SCALED}"},
    "lazy layers": {"nn.Linear(layer_sizes[i], layer_sizes[i + 1])": "nn.LazyLinear(layer_sizes[i + 1])"},
    "layers in an nn.ModuleDict": {
        SEQUENTIAL: "nn.ModuleDict({str(i): layer for i, layer in enumerate(layers)})",
        SCORE: ONE_BY_ONE.replace("mlp_layers", "mlp_layers.values()"),
    },
    "layers in a kind of nn.ModuleList": {
        SEQUENTIAL: "type('L', (nn.ModuleList,), {})(layers)",
        SCORE: ONE_BY_ONE,
    },
    "linear layers without biases": {"layer_sizes[i + 1]))": "layer_sizes[i + 1], bias=False))"},
}
VARIANTS = [Mistake(name, "", edits) for name, edits in EDITS.items()]
COMPILED = Mistake("a compiled forward", "", {"    def forward(": "    @torch.compile\n    def forward("})  # slow
NAMES = attrgetter("name")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def course_split(data_dir: Path) -> Iterator[Split]:
    threads = torch.get_num_threads()
    yield grader.course_split(data_dir)
    torch.set_num_threads(threads)


def failed(sandbox: Sandbox, path: Path, checks: Sequence[Check], split: Split | None = None) -> dict[str, str]:
    """Run checks in one session, with a new import of models.py for each; return the messages of those that fail."""
    seconds = sum(check.seconds for check in checks)
    with sandbox.session(read_submission(path).files, seconds, trains=split is not None) as session:
        messages = {name_of(check): failure(session, check, split) for check in checks}
    return {name: message for name, message in messages.items() if message}


def assert_fails(mistake: Mistake, checks: Sequence[Check], messages: dict[str, str]) -> None:
    """Check that exactly the checks of a mistake have failed, with messages that explain it."""
    asked = {name_of(check) for check in checks}
    assert set(messages) == asked & set(mistake.fails.split()), messages
    assert set(mistake.says) <= set(mistake.fails.split())
    for check in asked & set(mistake.says):
        assert re.search(mistake.says[check], messages[check], re.DOTALL), messages[check]


def write(folder: Path, mistake: Mistake) -> Path:
    (folder / "models.py").write_text(edited(mistake.edits))
    return folder


def about_gradients(mistake: Mistake) -> bool:
    return mistake in VARIANTS or name_of(GRADIENTS) in mistake.fails.split()


@pytest.mark.parametrize("path", WHOLE, ids=NAMES)
def test_right(path: Path, sandbox: Sandbox) -> None:
    assert failed(sandbox, path, UNTRAINED) == {}


@pytest.mark.parametrize("mistake", [*VARIANTS, *WRONG], ids=NAMES)
def test_edited(mistake: Mistake, sandbox: Sandbox, tmp_path: Path) -> None:
    checks = [check for check in UNTRAINED if check != GRADIENTS or about_gradients(mistake)]
    assert_fails(mistake, checks, failed(sandbox, write(tmp_path, mistake), checks))


@pytest.mark.long
@pytest.mark.parametrize("mistake", [COMPILED, *(each for each in WRONG if not about_gradients(each))], ids=NAMES)
def test_edited_with_right_gradients(mistake: Mistake, sandbox: Sandbox, tmp_path: Path) -> None:
    assert_fails(mistake, UNTRAINED, failed(sandbox, write(tmp_path, mistake), UNTRAINED))


@pytest.mark.long
@pytest.mark.parametrize("name", ["reads_self.py", "starter.py"])
def test_right_training(name: str, sandbox: Sandbox, course_split: Split) -> None:
    assert failed(sandbox, RIGHT / name, TRAINING, course_split) == {}


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("p not squeezed", TRAINING),
        ("score without gradients", TRAINING[:1]),
        pytest.param("a sigmoid on the score", TRAINING, marks=pytest.mark.long),
    ],
)
def test_wrong_training(
    name: str, checks: Sequence[Check], sandbox: Sandbox, course_split: Split, tmp_path: Path
) -> None:
    (mistake,) = (each for each in WRONG if each.name == name)
    assert_fails(mistake, checks, failed(sandbox, write(tmp_path, mistake), checks, course_split))


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", WHOLE, ids=NAMES)
def test_right_in_full(path: Path, sandbox: Sandbox, course_split: Split) -> None:
    assert failed(sandbox, path, RUBRIC, course_split) == {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("mistake", [*VARIANTS, COMPILED, *WRONG], ids=NAMES)
def test_edited_in_full(mistake: Mistake, sandbox: Sandbox, course_split: Split, tmp_path: Path) -> None:
    assert_fails(mistake, RUBRIC, failed(sandbox, write(tmp_path, mistake), RUBRIC, course_split))
