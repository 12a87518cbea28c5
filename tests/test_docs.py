"""The commands in README.md and docs/: each is run as shown, shortened by flags, or by another test.

The commands are those in code blocks, except blocks marked as ``text``, and those in prose that begin with ``python``.
A new command on a page needs a line here.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_changing import COMMANDS as EXAMPLE_COMMANDS
from test_main import COURSE_COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
ONE_EPOCH, ONE_CHECK = " --epochs 1", " 1a-2-basic"
# The flags that are added to a command so that it ends soon.
SHORTENED = {
    "python main.py --help": "",
    "python main.py": ONE_EPOCH,
    "python main.py --embedding_dim 16 --batch_size 512 --seed 1": ONE_EPOCH,
    "python main.py --logdir run/mine --resume": ONE_EPOCH,
    "python main.py --ratings mine.csv --columns who,what,stars --titles titles.csv": ONE_EPOCH,
    "python main.py --ratings clicks.csv --test later.csv": ONE_EPOCH,
    "tensorboard --logdir run": " --inspect",
    "python recommend.py --user 42 --top 10": "",
    "python recommend.py --user 42 7 --include_seen": "",
    'python recommend.py --similar "Toy Story"': "",
    'python recommend.py --rated "Toy Story=5" "Heat (1995)=2"': "",
    "python recommend.py --all --out recommendations.csv": "",
    "python recommend.py --quartiles": "",
    "python recommend.py --export vectors": "",
    "python main.py --warm_start run/mine --logdir run/next": ONE_EPOCH,
    "python grader.py": ONE_CHECK,
    "python grader.py --hidden": ONE_CHECK,
    "python grader.py 2-4-hidden": "",
    "python grader.py --submission alice/": ONE_CHECK,
    "python grader.py --hidden --submission alice.zip": ONE_CHECK,
    "python grader.py --hidden --submission class/*.zip --csv grades.csv": ONE_CHECK,
    "python grader.py --hidden --submission class/*.zip --csv grades.csv --feedback pages": ONE_CHECK,
    "python grader.py --hidden --submission class/*.zip --rerun-failed grades.csv": ONE_CHECK,
    "python grader.py --hidden --submission download.zip --csv grades.csv": ONE_CHECK,
    "python grader.py --hidden --submission alice.zip --json results.json": ONE_CHECK,
    "torchrun --standalone --nproc_per_node 2 main.py --preset tuned --batch_size 8192": ONE_EPOCH,
    "torchrun --standalone --nproc_per_node 2 --max-restarts 3 main.py --preset tuned "
    "--batch_size 8192 --resume": ONE_EPOCH,
    "python benchmarks/peers.py": f" --seeds 1 --draws 1{ONE_EPOCH} --peers",
    "python benchmarks/peers.py --draws 1 --preset homework --seeds 3": f" --seeds 1{ONE_EPOCH} --peers",
    "python -m study.ablation": f"{ONE_EPOCH} --seeds 1",
    "python -m study.ablation --preset_only --seeds 10": f"{ONE_EPOCH} --seeds 1",
    "python -m study.ablation --variants study/variants.json --validation_fraction 0.05 "
    "--first_seed 100": f"{ONE_EPOCH} --seeds 1",
    "python main.py --preset tuned": ONE_EPOCH,
    "python tune.py --ratings mine.csv": " --columns who,what,stars --trials 1",
    "python main.py --split time --test_fraction 0.1 --validation_fraction 0.1 --epochs 40": ONE_EPOCH,
    "python recommend.py --logdir run/tuned_shared=True_LF=1.0_LR=0.5 --user 42": "",
    "python benchmarks/scale.py --steps homework --ratings 400000": " --sizes 100k --rounds 1 --ratings 8192",
    "torchrun --standalone --nproc_per_node 2 benchmarks/scale.py --sizes 1m 10m "
    "--batch_size 8192": " --sizes 100k --rounds 1 --ratings 8192",
    "python benchmarks/reading.py --train": " --ratings 2000",
    "python handout.py student homework.zip": "",
    "python handout.py student homework/": "",
    "python handout.py autograder autograder.zip": "",
    "python -m pytest tests/course tests/grading": " --collect-only -p no:cacheprovider",
    "python -m pytest tests/study/test_writeup.py": " --collect-only -p no:cacheprovider",
    "python -m pytest -m exhaustive tests/tracking/test_kills.py": " --collect-only -p no:cacheprovider",
    "python -m pytest -m exhaustive tests/grading": " --collect-only -p no:cacheprovider",
    'python -m pytest tests/test_changing.py -m "long or not long"': " --collect-only -p no:cacheprovider",
}
# The commands that another test or .ci/run runs, each with the file and a string that shows this.
ELSEWHERE = {
    "pip install -r requirements.txt && python main.py": (".ci/run", "-r requirements.txt\npython main.py"),
    "pip install -r requirements-dev.txt && python -m pytest": (".ci/run", "python -m pytest"),
    "pip install -r requirements-tune.txt": ("requirements-dev.txt", "-r requirements-tune.txt"),
    "python main.py --preset run/mine.csv/tuned.json --ratings mine.csv": ("tests/test_tune.py", '"and test: "'),
    "python -m venv .venv && source .venv/bin/activate": (".ci/run", "python3 -m venv"),
    **dict.fromkeys(COURSE_COMMANDS, ("tests/test_main.py", '"line", COURSE_COMMANDS')),
    **dict.fromkeys(EXAMPLE_COMMANDS, ("tests/test_changing.py", "run(example.commands")),
    "python experiments.py --ratings mine.csv --folds 5": ("tests/test_experiments.py", '"--folds=2"'),
    "python experiments.py": ("tests/test_experiments.py", '"experiments.py"'),
    "python -m study.probes": ("tests/study/test_writeup.py", '"study.probes"'),
    "python benchmarks/speed.py": ("tests/test_benchmarks.py", 'run("speed.py"'),
    "python benchmarks/speed.py --epochs 5": ("tests/test_benchmarks.py", 'run("speed.py"'),
    "python benchmarks/scale.py": ("tests/test_benchmarks.py", '"scale.py"'),
    "python benchmarks/published.py": ("tests/test_benchmarks.py", 'run("published.py"'),
    "python benchmarks/rubric_bands.py": ("tests/test_benchmarks.py", 'run("rubric_bands.py"'),
    "python main.py --dataset ml-latest-small": ("tests/datasets/test_releases.py", '"--dataset", "ml-latest-small"'),
    "python grader.py --hidden --submission /autograder/submission --json /autograder/results/results.json": (
        "tests/grading/test_machines.py", "run_autograder",
    ),
    "python hand_in.py": ("tests/course/test_hand_in.py", 'run(folder, "hand_in.py")'),
}  # fmt: skip


def shown() -> list[str]:
    """Return the commands of all pages, without comments, each once."""
    found = []
    for page in PAGES:
        text = re.sub(r"^```(?:text|python|diff)\n.*?^```\n", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        blocks = re.split(r"^```\n", text, flags=re.MULTILINE)
        for place, block in enumerate(blocks):
            if place % 2:
                found += [re.sub(r"\s+#.*", "", line).strip() for line in block.replace("\\\n", "").splitlines()]
            else:
                found += [" ".join(each.split()) for each in re.findall(r"`(python [^`]+)`", block)]
    return list(dict.fromkeys(line for line in found if line))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """Return the folder ``run`` after an epoch of ``python main.py`` and an epoch of the preset."""
    home = tmp_path_factory.mktemp("trained")
    for flags in (ONE_EPOCH, f" --preset tuned{ONE_EPOCH}"):
        done = run(f"python '{ROOT / 'main.py'}' --data_dir '{data_dir.absolute()}'{flags}", home)
        assert done.returncode == 0, done.stderr
    return home / "run"


@pytest.fixture
def folder(tmp_path: Path, data_dir: Path) -> Path:
    """Return a folder with the project, submissions and ratings in it."""
    for path in ROOT.iterdir():
        if path.name not in ("run", "data", ".git", "alice", "class") and path.suffix != ".zip":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "data").symlink_to(data_dir)
    lines = [f"{n % 20},{n},{n % 5 + 1}" for n in range(200)]
    (tmp_path / "mine.csv").write_text("\n".join(["who,what,stars", *lines]))
    for name, first in (("clicks.csv", 0), ("later.csv", 40)):
        (tmp_path / name).write_text("user,item\n" + "".join(f"{n % 20},{n}\n" for n in range(first, first + 60)))
    (tmp_path / "titles.csv").write_text("item,title\n" + "".join(f"{n},Title {n}\n" for n in range(200)))
    for name in ("alice", "class"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "models.py", tmp_path / "alice")
    for name in ("alice.zip", "class/bob.zip", "class/carol.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(ROOT / "models.py", "models.py")
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        for name in ("doejane_11_21_models.py", "roejohn_12_22_models.py"):
            archive.write(ROOT / "models.py", name)
    return tmp_path


def run(line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        ["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def test_every_command_that_is_shown_is_run_somewhere() -> None:
    commands = shown()
    assert len(commands) > 20
    assert [line for line in commands if line not in SHORTENED and line not in ELSEWHERE] == []
    assert [line for line in (*SHORTENED, *ELSEWHERE) if line not in commands] == []


@pytest.mark.long
@pytest.mark.parametrize("line", SHORTENED)
def test_a_command_does_what_it_says(line: str, folder: Path, trained: Path) -> None:
    if line.startswith(("tensorboard", "python recommend.py")) or "--warm_start" in line:
        shutil.copytree(trained, folder / "run")
        shutil.copytree(trained / "shared=True_LF=0.99_LR=0.01", folder / "run" / "mine")
    if "--rerun-failed" in line:
        earlier = line.replace("--rerun-failed", "--csv").replace("class/*.zip", "class/bob.zip")
        assert run(earlier + SHORTENED[line], folder).returncode == 0
    done = run(line + SHORTENED[line], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    for flag in ("--csv", "--json", "--feedback", "--logdir", "--out", "--export"):
        if flag in line:
            assert (folder / line.split(f"{flag} ")[1].split()[0]).exists()


@pytest.mark.parametrize("line", ELSEWHERE)
def test_another_test_runs_the_command(line: str) -> None:
    path, words = ELSEWHERE[line]
    assert words in (ROOT / path).read_text()


@pytest.mark.long
def test_the_python_of_a_page_runs(folder: Path, trained: Path) -> None:
    shutil.copytree(trained, folder / "run")
    for page in PAGES:
        if page.stem == "python":  # tests/test_python_page.py runs it, as one script
            continue
        for number, block in enumerate(
            re.findall(r"^```python\n(.*?)^```\n", page.read_text(), re.MULTILINE | re.DOTALL)
        ):
            script = folder / f"{page.stem}{number}.py"
            script.write_text(block)
            done = run(f"PYTHONPATH=. python {script.name}", folder)
            assert done.returncode == 0, done.stderr
            assert done.stdout


def test_the_first_page_is_short_and_every_page_starts_with_a_command() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    for page in PAGES[1:]:
        title, _, text = page.read_text().partition("\n")
        assert title.startswith("# ")
        assert text.strip().startswith("```"), page
        assert f"docs/{page.name}" in (ROOT / "README.md").read_text()


def test_links_between_the_pages_have_targets() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
