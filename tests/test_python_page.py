"""The script of docs/python.md, run block by block without any command."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import data
import train
from serving.recommender import Recommender
from training import setup
from training.settings import Settings

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```python\n(.*?)^```\n", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the output of each block; ratings.csv has the columns of MovieLens's."""
    folder = tmp_path_factory.mktemp("python")
    made = data.synthetic(60, 150, 2000)
    frame = pd.DataFrame({"userId": made.user_ids, "movieId": made.item_ids, "rating": made.ratings})
    frame.assign(timestamp=range(len(frame))).to_csv(folder / "ratings.csv", index=False)
    script = "print('|')\n".join(BLOCKS)
    modules = "print('|')\nimport sys\nprint(*sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{script}{modules}"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("|\n")


def test_every_block_prints_its_results(printed: list[str]) -> None:
    assert len(printed) == len(BLOCKS) + 1
    assert all(output.strip() for output in printed)
    first = printed[0].splitlines()
    assert re.fullmatch(r"[0-4] {'test_mrr': 0\.\d+, 'test_mse': .*}", first[0])
    assert first[1].split() == ["user", "rank", "item", "p", "stars"]
    assert len(first) == 1 + 11 + 6
    assert "2000 interactions, 0 with a rating" in printed[1]
    assert "training with the eager step" in printed[6]


def test_errors_are_in_the_words_of_python(printed: list[str]) -> None:
    errors = printed[7].splitlines()
    assert errors[0].startswith("column stars is not there")
    assert errors[1].startswith("learning_rate is -1")
    assert errors[2].startswith("user 1000000 is not in the ratings")
    assert "--" not in printed[7]


def test_no_module_of_the_command_line_is_needed(printed: list[str]) -> None:
    assert not {"cli.arguments", "cli.command", "main", "recommend"} & set(printed[-1].split())


def test_messages_for_python_do_not_name_flags() -> None:
    """Python callers see the messages of these rooms."""
    rooms = [path for room in ("serving", "training", "tracking", "datasets") for path in (ROOT / room).glob("*.py")]
    for path in [*rooms, *(ROOT / name for name in ("data.py", "train.py", "metrics.py"))]:
        content = path.read_text()
        if path.name == "source.py":
            content = content[content.index("def __post_init__") :]  # without the help of the flags
        if path.name != "download.py":  # which calls pip
            assert not re.findall(r'"[^"\n]*[ (]--[a-z]', content), path


def test_a_single_user_and_another_trainer_are_named() -> None:
    interactions = data.synthetic(40, 60, 500)
    settings = Settings(epochs=1, embedding_dim=4)
    split = setup.split(interactions, settings)
    trainer = setup.make_trainer(settings, split.train)
    history = train.fit(trainer, split.test)
    recommender = Recommender.of(trainer, interactions, history)
    for users in ("78", 7):
        with pytest.raises(ValueError, match=f"users is {users!r}: expected a list of IDs"):
            recommender.recommend(users)  # type: ignore[arg-type]
    trainer.run_epoch()
    with pytest.raises(ValueError, match="the trainer has trained 2 epochs, and 1 with this history"):
        Recommender.of(trainer, interactions, history)
    with pytest.raises(ValueError, match="device gpu cannot be used: expected"):
        setup.make_trainer(settings, split.train, "gpu")
