"""main.py as a user types it: its output, exit status and event files."""

import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import Refused
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from cli import VERSION
from cli.arguments import options_of
from datasets.source import DataSource
from main import parse_arguments
from tracking.metric_table import EpochMetrics, History
from tracking.report import closing_table, report
from training import parts
from training.fused import FusedStep
from training.group import ALONE
from training.settings import Settings, preset
from training.steps import EagerStep

ROOT = Path(__file__).parent.parent
RANKING = {"users/Recall@10", "users/NDCG@10", "users/Hit Rate@10", "users/Coverage@10", "users/Precision@10"}
RANKING |= {"users/MAP@10", "users/RMSE", "users/MAE"}
TAGS = {
    "training/Factorization Loss",
    "training/MSE",
    "training/Joint Loss",
    "eval/Mean Reciprocal Rank",
    "eval/MSE",
}
COURSE_COMMANDS = """
python main.py --factorization_weight 0.99 --regression_weight 0.01 --logdir run/shared=True_LF=0.99_LR=0.01
python main.py --factorization_weight 0.5 --regression_weight 0.5 --logdir run/shared=True_LF=0.5_LR=0.5
python main.py --no_shared_embeddings --factorization_weight 0.5 --regression_weight 0.5 \
--logdir run/shared=False_LF=0.5_LR=0.5
python main.py --no_shared_embeddings --factorization_weight 0.99 --regression_weight 0.01 \
--logdir run/shared=False_LF=0.99_LR=0.01
""".strip().splitlines()


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "main.py"), *map(str, arguments)]


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def scalars(logdir: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(logdir))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def folder(tmp_path: Path, data_dir: Path) -> Path:
    """Return a folder with only the data, where the flags' defaults find it."""
    (tmp_path / "data").symlink_to(data_dir)
    return tmp_path


@pytest.mark.parametrize("line", COURSE_COMMANDS)
def test_the_courses_commands(line: str, folder: Path) -> None:
    python, script, *arguments = line.split()
    assert (python, script) == ("python", "main.py")
    done = run(folder, *arguments, "--epochs", 1)
    assert (done.returncode, done.stderr) == (0, "")
    logdir = arguments[-1]
    assert re.fullmatch(
        r" +last of 1 \(epoch 0\) +best\n"
        r"BPR loss +0\.\d{4} +0\.\d{4} \(epoch 0\)\n"
        r"training MSE +\d\.\d{4} +\d\.\d{4} \(epoch 0\)\n"
        r"test MSE +\d\.\d{4} +\d\.\d{4} \(epoch 0\)\n"
        r"test MRR +0\.\d{4} +0\.\d{4} \(epoch 0\)\n"
        r"test RMSE \d\.\d{4}, test MAE \d\.\d{4}\n"
        r"recall@10 0\.\d{4}, NDCG@10 0\.\d{4}, hit rate@10 0\.\d{4}, coverage@10 0\.\d{4}, "
        r"precision@10 0\.\d{4}, MAP@10 0\.\d{4}\n"
        rf"1 epoch \(0\) in \d+\.\d s on \w+; logs in {logdir}\n",
        done.stdout,
    )
    curves = scalars(folder / logdir)
    assert set(curves) == TAGS | RANKING
    assert all(len(curves[tag]) == 1 for tag in RANKING)
    joint, factorization, regression = (
        curves[f"training/{name}"][0][1] for name in ("Joint Loss", "Factorization Loss", "MSE")
    )
    weights = [float(arguments[arguments.index(f"--{task}_weight") + 1]) for task in ("factorization", "regression")]
    assert joint == pytest.approx(weights[0] * factorization + weights[1] * regression, rel=1e-5)


def test_defaults_are_the_first_experiment_and_repeated_runs_are_bit_identical(folder: Path) -> None:
    for arguments in (
        [],
        ["--factorization_weight", 0.99, "--regression_weight", 0.01, "--logdir", "again", "--seed", 0],
        ["--logdir", "other", "--seed", 1],
    ):
        assert run(folder, "--epochs", 2, *arguments).returncode == 0
    default, again, other = (
        scalars(folder / logdir) for logdir in ("run/shared=True_LF=0.99_LR=0.01", "again", "other")
    )
    assert set(default) == TAGS | RANKING
    assert [step for step, _ in default["users/NDCG@10"]] == [1]
    assert [step for step, _ in default["eval/MSE"]] == [0, 1]
    assert default == again
    assert all(default[tag] != other[tag] for tag in TAGS)


def test_the_documented_defaults() -> None:
    options = parse_arguments([])
    assert options_of(Settings, options) == Settings()
    assert options_of(DataSource, options) == DataSource()
    assert vars(options) == asdict(Settings()) | asdict(DataSource()) | {
        "layer_sizes": (),  # of ``Settings``: 3·d and 64
        "logdir": Path("run/shared=True_LF=0.99_LR=0.01"),
        "preset": "homework",
        "resume": False,
        "warm_start": None,
        "device": "auto",
        "eager": False,
    }
    assert asdict(Settings()) | asdict(DataSource()) == {
        "factorization_weight": 0.99,
        "regression_weight": 0.01,
        "shared_embeddings": True,
        "epochs": 200,
        "embedding_dim": 32,
        "layer_sizes": (96, 64),
        "batch_size": 256,
        "learning_rate": 1e-3,
        "seed": 0,
        "split": "auto",
        "folds": 0,
        "test_fraction": 0.05,
        "validation_fraction": 0.0,
        "eval_users": "auto",
        "eval_every": 1,
        "patience": 0,
        "rating_unit": "auto",
        "rating_baseline": False,
        "rating_factors": 0,
        "pseudo_ratings": 0,
        "topk": (10,),
        "optimizer": "auto",
        "negatives": 1,
        "unseen_negatives": False,
        "ranking_loss": "bounded",
        "user_balance": 0.0,
        "watched_items": False,
        "weight_decay": 0.0,
        "lr_schedule": "constant",
        "embedding_dropout": 0.0,
        "dropout": 0.0,
        "dataset": "ml-100k",
        "ratings": None,
        "columns": None,
        "titles": None,
        "quoting": "auto",
        "data_dir": Path("data"),
        "unrated": (),
        "counts": False,
        "test": None,
        "validation": None,
    }


@pytest.mark.parametrize("spelling", ["--no_rating_baseline", "--no-rating_baseline"])
def test_a_preset_sets_the_flags_that_are_not_given(spelling: str) -> None:
    tuned = preset("tuned")
    settings = options_of(Settings, parse_arguments(["--preset", "tuned", spelling, "--epochs", "7"]))
    assert settings == Settings(**tuned | {"rating_baseline": False, "epochs": 7})
    assert parse_arguments(["--preset", "tuned"]).logdir == Path("run/tuned_shared=True_LF=1.0_LR=0.5")


def test_a_preset_may_be_the_users_own_file(tmp_path: Path) -> None:
    own = tmp_path / "mine.json"
    own.write_text('{"epochs": 3, "layer_sizes": [96, 8], "negatives": 4, "learning_rate": 1, "eval_users": 50}')
    options = parse_arguments(["--preset", str(own), "--epochs", "2"])
    assert options_of(Settings, options) == Settings(
        epochs=2, layer_sizes=(96, 8), negatives=4, learning_rate=1.0, eval_users=50
    )
    assert options.logdir == Path("run/mine_shared=True_LF=0.99_LR=0.01")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not there: expected homework, tuned, or a JSON file of settings"),
        ("{", "is not JSON: "),
        ("[1]", "is not a JSON object: expected settings by name"),
        ('{"epoch": 3}', "sets epoch, which is no setting: expected names such as epochs or dropout"),
        ('{"epochs": 2.5}', "epochs is 2.5: expected a whole number"),
        ('{"epochs": true}', "epochs is True: expected a whole number"),
        ('{"rating_baseline": 1}', "rating_baseline is 1: expected true or false"),
        ('{"dropout": "0.1"}', "dropout is '0.1': expected a number"),
        ('{"dropout": 1}', "dropout is 1: expected a number from 0 to below 1"),
        ('{"lr_schedule": "cosine"}', "lr_schedule is cosine: expected constant or linear"),
        ("[" * 100_000, "is not JSON: "),
    ],
)
def test_a_preset_that_cannot_be_used_is_one_line(
    content: str | None, message: str, tmp_path: Path, refused: Refused
) -> None:
    own = tmp_path / "mine.json"
    if content is not None:
        own.write_text(content)
    errors = refused("main.py", main.main, ["--preset", str(own)])
    assert re.fullmatch(r"main\.py: error: preset [^\n]+\n", errors), errors
    assert message in errors


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main.main(["--version"])
    assert capsys.readouterr().out == f"{VERSION}\n"
    assert f"## {VERSION} " in (ROOT / "CHANGELOG.md").read_text()


def test_a_batch_may_be_larger_than_the_data(folder: Path) -> None:
    assert run(folder, "--epochs", 1, "--batch_size", 10**20).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "widths"),
    [
        ("", [(96, 64), (64, 1)]),
        ("--embedding_dim 5", [(15, 64), (64, 1)]),
        ("--layer_sizes 96 7 5", [(96, 7), (7, 5), (5, 1)]),
    ],
)
def test_flags_take_effect(
    arguments: str, widths: list[tuple[int, int]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    flags = "--no_shared_embeddings --factorization_weight 0.3 --regression_weight 0.6 --batch_size 99 --device cpu"
    options = parse_arguments(f"{flags} --learning_rate 0.02 --test_fraction 0.1 {arguments}".split())
    assert options.logdir == Path("run/shared=False_LF=0.3_LR=0.6")
    trainer, (_, _, test) = main.set_up(options, DataSource(), ALONE)
    assert (len(trainer.train), len(test)) == (90_000, 10_000)
    assert (trainer.settings.factorization_weight, trainer.settings.regression_weight) == (0.3, 0.6)
    assert (trainer.settings.batch_size, trainer.settings.learning_rate) == (99, 0.02)
    assert not parts.has_shared_tables(trainer.model)
    users, _ = parts.regression_tables(trainer.model)
    assert users.weight.shape == (943, 5 if "dim" in arguments else 32)
    layers = parts.linear_layers(trainer.model)
    assert [(layer.in_features, layer.out_features) for layer in layers] == widths
    assert type(trainer.step) is FusedStep
    assert type(main.set_up(parse_arguments(["--eager", "--device", "cpu"]), DataSource(), ALONE)[0].step) is EagerStep


def test_a_seed_decides_the_split_the_weights_the_shuffles_and_the_negatives(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    seen = []
    for seed in ("0", "1", "0"):
        trainer, (_, _, test) = main.set_up(parse_arguments(["--seed", seed, "--device", "cpu"]), DataSource(), ALONE)
        order = torch.randperm(1000, generator=trainer.generator)
        negatives = torch.randint(1682, (1000,), generator=trainer.generator)
        seen.append([trainer.train.user_ids, test.item_ids, trainer.adam.flat.detach(), order, negatives])
    assert not any(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[2], strict=True))


def test_the_closing_table_has_the_last_and_the_best_values() -> None:
    rows = [(0.4, 1.0, 0.5, 0.05, 0.9), (0.2, 1.5, 0.4, 0.09, 0.8), (0.3, 0.7, 0.3, 0.07, 1.1)]
    assert closing_table([EpochMetrics(*row) for row in rows]).splitlines() == [
        "             last of 3 (epoch 2)       best",
        "BPR loss     0.3000                    0.2000 (epoch 1)",
        "training MSE 0.7000                    0.7000 (epoch 2)",
        "test MSE     1.1000                    0.8000 (epoch 1)",
        "test MRR     0.0700                    0.0900 (epoch 1)",
    ]


def test_the_closing_table_has_the_values_of_the_best_epoch_by_the_validation_set() -> None:
    rows = [
        (0.4, 1.0, 0.5, 0.05, 0.9, 0.1, 2.0),
        (0.2, 1.5, 0.4, 0.09, 0.8, 0.2, 2.0),
        (0.3, 0.7, 0.3, 0.07, 1.1, 0, 1),
    ]
    history = History([EpochMetrics(*row) for row in rows])
    history.closing = {"test_rmse": 0.9, "test_mae": 0.7, "recall@20": 0.25, "recall@5": 0.125}
    assert report(history, 4, 1, [20, 5]).splitlines() == [
        "             best epoch 1 of 3         best",
        "BPR loss     0.2000                    0.2000 (epoch 1)",
        "training MSE 1.5000                    0.7000 (epoch 2)",
        "test MSE     0.8000                    0.8000 (epoch 1)",
        "test MRR     0.0900                    0.0900 (epoch 1)",
        "best epoch 1, with the highest MRR / MSE of the validation set, 0.2000 / 2.0000: "
        "test MSE 0.8000, test MRR 0.0900; in best.pt",
        "stopped after epoch 2: no epoch was better in the last 1 (patience)",
        "test RMSE 0.9000, test MAE 0.7000",
        "recall@20 0.2500",
        "recall@5 0.1250",
    ]


@pytest.mark.long
def test_a_run_does_not_import_the_compiler(folder: Path) -> None:
    """Importing torch's compiler takes a second, and several harmless calls import it."""
    program = "import sys, main; main.main(['--epochs', '1']); print('torch._dynamo' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.long
def test_event_files_can_be_read_during_the_run(folder: Path) -> None:
    with subprocess.Popen(command("--logdir", "live"), cwd=folder, stdout=subprocess.DEVNULL) as process:
        try:
            deadline, epochs = time.monotonic() + 60, 0
            while epochs < 2 and time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.2)
                if (folder / "live").exists():
                    epochs = len(scalars(folder / "live").get("eval/MSE", []))
            assert process.poll() is None
            assert epochs >= 2
        finally:
            process.kill()


def test_a_terminal_gets_a_progress_bar(folder: Path) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        command("--epochs", 2, "--logdir", "bar"), cwd=folder, stdout=subprocess.DEVNULL, stderr=follower
    ):
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:  # Linux reports the closed terminal in this way
                break
            if not part:
                break
            shown += part
    os.close(leader)
    assert b"2/2" in shown
    assert re.search(rb"BPR 0\.\d+, MSE \d\.\d+; test MSE \d\.\d+, MRR 0\.\d+\]", shown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--factorization_weight -1", "factorization_weight is -1.0: expected a number from 0 to"),
        ("--regression_weight nan", "regression_weight is nan: expected a number from 0 to"),
        ("--factorization_weight 0 --regression_weight 0", "are both 0"),
        ("--test_fraction 1", "test_fraction is 1.0: expected a number between 0 and 1"),
        ("--test_fraction -0.2", "test_fraction is -0.2: expected a number between 0 and 1"),
        ("--test_fraction 1e-9", "leaves the test set empty"),
        ("--test_fraction 0.9999999", "leaves the training set empty"),
        ("--epochs 0", "epochs is 0: expected at least 1"),
        ("--epochs many", "argument --epochs: invalid int value: 'many'"),
        ("--batch_size 0", "batch_size is 0: expected at least 1"),
        ("--learning_rate 0", "learning_rate is 0.0: expected a positive number"),
        ("--embedding_dim 0", "embedding_dim is 0: expected at least 1"),
        ("--layer_sizes 95 64", "layer_sizes starts with 95"),
        ("--layer_sizes 96 0", "layer_sizes is 96 0: expected widths of at least 1"),
        ("--seed -1", "seed is -1: expected at least 0"),
        ("--device cuda:99", "device cuda:99 cannot be used"),
        ("--device abacus", "device abacus cannot be used"),
        ("--logdir data/file/run", "folder data/file/run cannot be written: Not a directory"),
        ("--data_dir data/file", "data/file is a file: expected a folder"),
        ("--embedding_dim 300000000", "the network does not fit into memory"),
        ("--factorization_weight 1e39", "factorization_weight is 1e+39: expected a number from 0 to 1e+09"),
        ("--learning_rate 1e30", "learning_rate 1e+30 or one of the weights"),
        ("--epoch 3", "unrecognized arguments: --epoch 3"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(
    arguments: str,
    message: str,
    tmp_path: Path,
    data_dir: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command runs in this process; the next test starts one."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("")
    for copy in data_dir.iterdir():
        (tmp_path / "data" / copy.name).symlink_to(copy)
    monkeypatch.chdir(tmp_path)
    errors = refused("main.py", main.main, ["--epochs", "1", *arguments.split()])
    assert re.fullmatch(r"main\.py: error: [^\n]+\n", errors), errors
    assert message in errors


@pytest.mark.parametrize(
    ("cuda", "mps", "device", "message"),
    [
        (False, False, "mps", "device mps cannot be used: expected cpu or auto on this machine"),
        (False, False, "cuda", "device cuda cannot be used: expected cpu or auto on this machine"),
        (False, False, "cuda:1", "device cuda:1 cannot be used: expected cpu or auto on this machine"),
        (False, False, "xpu", "device xpu cannot be used: expected cpu or auto on this machine"),
        (False, False, "meta", "device meta cannot be used: expected cpu or auto on this machine"),
        (False, True, "cuda", "device cuda cannot be used: expected mps, cpu or auto on this machine"),
        (True, False, "mps", "device mps cannot be used: expected cuda, cpu or auto on this machine"),
        (False, False, "cpu:x", "; expected cpu or auto on this machine"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_read_or_made(
    cuda: bool, mps: bool, device: str, message: str, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: DataSource) -> None:
        pytest.fail("the ratings were read")

    monkeypatch.setattr("data.read", read)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.chdir(tmp_path)
    errors = refused("main.py", main.main, ["--device", device])
    assert re.fullmatch(r"main\.py: error: [^\n]+\n", errors), errors
    assert message in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("arguments", ["--epochs many", "--logdir run/below", "--learning_rate 1e30"])
def test_a_process_ends_after_a_mistake_with_one_line_and_status_2(arguments: str, folder: Path) -> None:
    (folder / "run").write_text("")
    done = run(folder, *arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"main\.py: error: [^\n]+\n", done.stderr), done.stderr
