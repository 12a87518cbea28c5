"""An edit of a copy of the repository shows: the default command gives the metrics that ``--eager`` gives with it.

MRR and MSE are also those of the plain loops in ``benchmarks/plain_trainer.py``, which read the trained network by its
``forward`` alone.
"""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
COPIED = ("cli", "datasets", "tracking", "training", "benchmarks")
METRICS = ("factorization_loss", "training_mse", "joint_loss", "test_mrr", "test_mse")
# Trains twice, by the default way and by the plain one; then ranks and rates by plain loops.
PROGRAM = """
import contextlib, csv, io, json, sys
import plain_trainer, data, main, train
from cli.arguments import options_of
from datasets.source import DataSource
from tracking.checkpoint import load_checkpoint
from tracking.resuming import restore
from training import setup
from training.settings import Settings
found = {}
for kind in ("default", "eager"):
    flags = ["--ratings=mine.csv", "--test_fraction=0.1", "--epochs=2", "--device=cpu", f"--logdir={kind}"]
    flags += [*sys.argv[1:], *["--eager"] * (kind == "eager")]
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        assert main.main(flags) == 0, said.getvalue()
        options = main.parse_arguments(flags)
        settings = options_of(Settings, options)
        split = setup.split(data.read(options_of(DataSource, options)), settings)
        trainer = setup.make_trainer(settings, split.train, setup.pick_device("cpu"), options.eager)
        restore(trainer, load_checkpoint(options.logdir))
    last = list(csv.DictReader(open(f"{kind}/metrics.csv")))[-1]
    found[kind] = {name: float(value) for name, value in last.items()}
    with trainer.as_evaluated():
        found[kind]["plain_mrr"] = plain_trainer.plain_mrr(trainer.model, split.test, split.train)
        found[kind]["plain_mse"] = plain_trainer.plain_mse(trainer.model, split.test)
    found[kind]["said"] = said.getvalue()
print(json.dumps(found))
"""

SHARED = "def forward_with_embedding_sharing"
U, P = "u, q = self.U(user_ids), self.Q(item_ids)\n", "(u * q).sum(-1) + self.B(item_ids).squeeze(-1)"
X, HIDDEN = "torch.cat([u, q, u * q], dim=-1)", "layers += [nn.Linear(width, next_width), nn.ReLU()]"
SCORE, LAST = "self.mlp_layers(torch.cat([u, q, u * q], dim=-1)).squeeze(-1)", "nn.Sequential(*layers[:-1])"
MODELS, STEPS = "models.py", "training/steps.py"
JOINT = "weights.factorization * factorization + weights.regression * regression"
LOSS, MOVE = "loss = joint_loss(factorization, regression, self.loss_weights)", "self.optimizer.step()"
FOUR = "U_fact, Q_fact = ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)"
B = "        self.B = self.init_item_bias(num_users, num_items)\n"
A = B + "        self.A = ZeroEmbedding(num_users, 1)\n"
V = B + "        self.V = ScaledEmbedding(num_users, embedding_dim)\n"
ONE = "return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)"
BPR, LOGISTIC = "(1.0 - torch.sigmoid(positive - negative)).mean()", "-(positive - negative).sigmoid().log().mean()"


class Edit(NamedTuple):
    """Strings of a file and their replacements; flags of the run; whether a fast step may still be taken."""

    file: str
    changes: dict[str, str]
    flags: str = ""
    stays_fast: bool = False


def with_option(option: str) -> str:
    return ONE.replace("embedding_dim)", f"embedding_dim, {option})")


EDITS = {
    "equation 1 five times, without the bias": Edit(MODELS, {P: "5 * (u * q).sum(-1)"}),
    "the bias left out": Edit(MODELS, {P: "(u * q).sum(-1)"}),
    "the bias three times": Edit(MODELS, {P: P.replace("+", "+ 3 *")}),
    "a mean in place of the sum": Edit(MODELS, {P: P.replace("sum", "mean")}),
    "a cosine": Edit(MODELS, {P: "nn.functional.cosine_similarity(u, q)"}),
    "a sigmoid on the predictions": Edit(MODELS, {P: f"torch.sigmoid({P})"}),
    "predictions cut to a range": Edit(MODELS, {P: f"({P}).clamp(-0.01, 0.01)"}),
    "u ∗ q left out": Edit(MODELS, {X: "torch.cat([u, q, u], dim=-1)"}),
    "u + q in place of u ∗ q": Edit(MODELS, {X: "torch.cat([u, q, u + q], dim=-1)"}),
    "another order of the MLP's inputs": Edit(MODELS, {X: "torch.cat([q, u, u * q], dim=-1)"}),
    "a softplus on the score": Edit(MODELS, {SCORE: f"nn.functional.softplus({SCORE})"}),
    "the score between 1 and 5": Edit(MODELS, {SCORE: f"1 + 4 * torch.sigmoid({SCORE})"}),
    "the score plus 3.5": Edit(MODELS, {SCORE: f"3.5 + {SCORE}"}),
    "the score cut to its range": Edit(MODELS, {SCORE: f"{SCORE}.clamp(0.5, 5)"}),
    "the ratings teach the MLP alone": Edit(MODELS, {X: "torch.cat([u, q, u * q], dim=-1).detach()"}),
    "another activation": Edit(MODELS, {HIDDEN: HIDDEN.replace("ReLU", "LeakyReLU")}),
    "a smooth activation": Edit(MODELS, {HIDDEN: HIDDEN.replace("ReLU", "GELU")}),
    "an extra layer": Edit(
        MODELS, {LAST: "nn.Sequential(nn.Linear(96, 96), nn.ReLU(), *layers[:-1])"}, stays_fast=True
    ),
    "no hidden layer": Edit(MODELS, {LAST: "nn.Sequential(nn.Linear(96, 1))"}, stays_fast=True),
    "a residual connection": Edit(MODELS, {SCORE: f"({SCORE} + u.sum(-1))"}),
    "dropout in the MLP": Edit(MODELS, {LAST: "nn.Sequential(layers[0], nn.Dropout(0.2), *layers[1:-1])"}),
    "batch normalization": Edit(MODELS, {LAST: "nn.Sequential(layers[0], nn.BatchNorm1d(64), *layers[1:-1])"}),
    "dropout of the user": Edit(MODELS, {U: f"{U}        u = nn.functional.dropout(u, 0.1, self.training)\n"}),
    "a user bias": Edit(MODELS, {B: A, P: f"{P} + self.A(user_ids).squeeze(-1) * q.sum(-1)"}),
    "a third table": Edit(MODELS, {B: V, P: f"{P} + (self.V(user_ids) * q).sum(-1)"}),
    "tied tables": Edit(MODELS, {FOUR: "U_fact, Q_fact = U_reg, Q_reg"}, "--no_shared_embeddings"),
    "the tasks' tables exchanged": Edit(
        MODELS, {"self.U_fact(user_ids), self.Q_fact(item_ids)": "self.U_reg(user_ids), self.Q_reg(item_ids)"},
        "--no_shared_embeddings",
    ),
    "a padding row": Edit(MODELS, {ONE: with_option("padding_idx=0")}),
    "rows of a bounded norm": Edit(MODELS, {ONE: with_option("max_norm=0.15")}),
    "gradients by frequency": Edit(MODELS, {ONE: with_option("scale_grad_by_freq=True")}),
    "a frozen table": Edit(MODELS, {B: B + "        self.Q.weight.requires_grad_(False)\n"}),
    "another start": Edit(MODELS, {"std=1.0 / self.embedding_dim": "std=0.3"}, stays_fast=True),
    "the logistic loss": Edit(STEPS, {BPR: LOGISTIC}),
    "a hinge loss": Edit(STEPS, {BPR: "(1 - positive + negative).clamp(min=0).mean()"}),
    "the absolute error": Edit(STEPS, {"(score - ratings).square().mean()": "(score - ratings).abs().mean()"}),
    "a sum in place of a mean": Edit(STEPS, {"square().mean()": "square().sum()"}),
    "λ_F twice": Edit(STEPS, {JOINT: f"2 * {JOINT}"}),
    "λ_R ten times": Edit(STEPS, {JOINT: JOINT.replace("weights.reg", "10 * weights.reg")}),
    "a squared joint loss": Edit(STEPS, {LOSS: f"{LOSS} ** 2"}),
    "examples weighted by their ratings": Edit(
        STEPS, {"bpr_loss(positive, negative), l": "bpr_loss(ratings / 5 * positive, ratings / 5 * negative), l"}
    ),
    "weight decay": Edit(STEPS, {LOSS: f"{LOSS} + sum(each.square().sum() for each in self.model.parameters())"}),
    "cut gradients": Edit(STEPS, {MOVE: f"self.optimizer.everything.gradient.clamp_(-1e-4, 1e-4)\n        {MOVE}"}),
    "plain gradient descent": Edit(
        STEPS, {MOVE: "[each.data.sub_(each.grad, alpha=0.5) for each in self.model.parameters()]"}
    ),
    "torch's own optimizer": Edit(STEPS, {"= optimizer\n": "= torch.optim.Adagrad(model.parameters(), lr=0.1)\n"}),
    "another β": Edit("training/adam.py", {"(0.9, 0.999)": "(0.5, 0.9)"}, stays_fast=True),
    "negatives from half of the items": Edit(
        "training/sampling.py", {"self.train.num_items, (n,)": "self.train.num_items // 2, (n,)"}, stays_fast=True
    ),
    "row-wise Adam, the bias left out": Edit(MODELS, {P: "(u * q).sum(-1)"}, "--optimizer lazy_adam"),
    "tuned, equation 1 twice": Edit(MODELS, {P: "2 * " + P}, "--negatives 6 --ranking_loss softmax --watched_items"),
    "tuned, another activation": Edit(
        MODELS, {HIDDEN: HIDDEN.replace("ReLU", "ELU")}, "--embedding_dropout 0.3", stays_fast=True
    ),
    "tuned, λ_R ten times": Edit(
        STEPS, {JOINT: JOINT.replace("weights.reg", "10 * weights.reg")}, "--user_balance 0.5", stays_fast=True
    ),
    "a rate that falls": Edit(STEPS, {MOVE: "self.optimizer.step(1e-3 * 0.99 ** self.optimizer.steps_taken.item())"}),
    "a rate that each step lowers": Edit(STEPS, {MOVE: f"{MOVE}\n        self.optimizer.learning_rate *= 0.99"}),
    "another equation for rare movies": Edit(MODELS, {P: f"torch.where(item_ids > 40, 3, 1) * ({P})"}),
    "a running mean of the score": Edit(
        MODELS,
        {B: B + '        self.register_buffer("mean", torch.zeros(()))\n',
         "        return predictions, score\n\n    def forward_without":
         "        if self.training:\n            self.mean.lerp_(score.detach().mean(), 0.1)\n"
         "        return predictions, score - (not self.training) * self.mean\n\n    def forward_without"},
    ),
    "tuned, the logistic loss": Edit(STEPS, {BPR: LOGISTIC}, "--negatives 6", stays_fast=True),
}  # fmt: skip


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the code, and write 1,500 ratings of 60 items by 40 users."""
    folder = tmp_path_factory.mktemp("original")
    for room in COPIED:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("main.py", "train.py", "data.py", "metrics.py", "models.py"):
        shutil.copy(ROOT / name, folder)
    draw = np.random.default_rng(0)
    pairs = draw.permutation(40 * 60)[:1500]
    stars = (pairs % 60 + draw.integers(0, 3, 1500)) % 5 + 1
    lines = [f"{pair // 60},{pair % 60},{star}" for pair, star in zip(pairs, stars, strict=True)]
    (folder / "mine.csv").write_text("\n".join(["user,item,rating", *lines]))
    return folder


def metrics_of(folder: Path, flags: str) -> dict[str, dict[str, Any]]:
    """Run the program; return the metrics of its two runs."""
    command = [sys.executable, "-c", PROGRAM, *flags.split()]
    environment = {"PYTHONPATH": f"{folder}:{folder / 'benchmarks'}", "PATH": "", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def check_alike(default: dict[str, Any], eager: dict[str, Any]) -> None:
    """Compare two runs up to rounding, which can exchange neighbours in a ranking, and each with the plain loops."""
    for metric in METRICS:
        assert default[metric] == pytest.approx(eager[metric], rel=1e-2 if metric == "test_mrr" else 2e-4), metric
    for run in (default, eager):
        assert run["test_mrr"] == pytest.approx(run["plain_mrr"], rel=1e-4)
        assert run["test_mse"] == pytest.approx(run["plain_mse"], rel=1e-4)


@pytest.fixture(scope="session")
def unedited(original: Path) -> Callable[[str], dict[str, Any]]:
    """Return a function of flags that runs the default command without an edit and returns its metrics."""
    return functools.cache(lambda flags: metrics_of(original, flags)["default"])


@pytest.mark.long
@pytest.mark.parametrize("name", EDITS)
def test_an_edit_shows(name: str, original: Path, unedited: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    edit = EDITS[name]
    before = unedited(edit.flags)
    copy = shutil.copytree(original, tmp_path / "copy", ignore=shutil.ignore_patterns("default", "eager"))
    path = copy / edit.file
    text = path.read_text()
    for old, new in edit.changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    edited = metrics_of(copy, edit.flags)
    default, eager = edited["default"], edited["eager"]
    check_alike(default, eager)
    assert ("training with the " in default["said"].replace("training with the row-wise", "")) != edit.stays_fast
    assert "training with the" not in eager["said"].replace("training with lazy_adam", "")
    assert any(abs(default[metric] / before[metric] - 1) > 1e-3 for metric in METRICS)
