"""The claims of docs/writeup.md that a computation can refute; ``study/probes.py`` tests those about training."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from data import Interactions
from metrics import mrr_score
from models import MultiTaskNet, ZeroEmbedding
from study.probes import PROBES, OnlyInteractionsTeachTables, OnlyRatingsTeachTables
from train import Trainer
from training.adam import EPSILON, Adam
from training.settings import Settings
from training.steps import EagerStep, LossWeights, Optimizer, bpr_loss

ROOT = Path(__file__).parent.parent.parent
Split = tuple[Interactions, Interactions]
Matrix = NDArray[np.float64]


class WithUserBias(MultiTaskNet):
    """Equation 6: p_ij = u_i · q_j + a_i + b_j."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items, 4, (12, 7))
        self.A = ZeroEmbedding(num_users, 1)

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        predictions, score = super().forward(user_ids, item_ids)
        return predictions + self.A(user_ids).squeeze(-1), score


def distance_to_equation_1(P: Matrix, d: int) -> float:
    """Return a matrix's distance to the nearest U Qᵀ + 1 bᵀ with d columns, by PCA, where b is the mean."""
    singular_values = np.linalg.svd(P - P.mean(0), compute_uv=False)
    return float(np.sqrt((singular_values[d:] ** 2).sum()))


def test_a_user_bias_makes_the_model_class_larger_by_one_rank() -> None:
    """One more dimension holds it."""
    d, draw = 4, np.random.default_rng(0)
    U, Q, a, b = (draw.normal(size=size) for size in ((60, d), (90, d), (60, 1), (1, 90)))
    without, with_bias = U @ Q.T + b, U @ Q.T + a + b
    assert np.linalg.matrix_rank(without) == d + 1
    assert np.linalg.matrix_rank(with_bias) == d + 2
    assert distance_to_equation_1(without, d) < 1e-10
    assert distance_to_equation_1(with_bias, d) > 1.0
    wider = np.hstack([U, a]) @ np.hstack([Q, np.ones((90, 1))]).T + b
    np.testing.assert_allclose(wider, with_bias)
    assert distance_to_equation_1(wider, d + 1) < 1e-10


def test_a_user_bias_changes_neither_the_bpr_loss_nor_any_ranking_and_has_no_gradient(split: Split) -> None:
    data, test = split
    torch.manual_seed(0)
    net = WithUserBias(data.num_users, data.num_items)
    negatives = torch.randint(data.num_items, (len(data),))

    def loss_and_gradients() -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        loss = bpr_loss(net(data.user_ids, data.item_ids)[0], net(data.user_ids, negatives)[0])
        bias, *others = torch.autograd.grad(loss, [net.A.weight, net.U.weight, net.Q.weight, net.B.weight])
        return loss.detach(), bias, tuple(others)

    before, ranked = loss_and_gradients(), mrr_score(net, test, data)
    torch.nn.init.normal_(net.A.weight)
    after = loss_and_gradients()
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-7)
    # Each triple adds its slope to a_i for the positive item and subtracts it for the negative one.
    assert float(after[1].abs().max()) < 1e-6 * float(after[2][2].abs().max()) * len(data)
    assert mrr_score(net, test, data) == pytest.approx(ranked, rel=1e-6)


def test_a_logistic_loss_would_see_a_user_bias_and_the_ratings_do_not(split: Split) -> None:
    data, _ = split
    torch.manual_seed(0)
    net = WithUserBias(data.num_users, data.num_items)
    logits, ratings = net(data.user_ids, data.item_ids)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    (gradient,) = torch.autograd.grad(loss, net.A.weight)
    assert float(gradient[data.user_ids].max()) < 0
    torch.nn.init.normal_(net.A.weight)
    assert torch.equal(net(data.user_ids, data.item_ids)[1], ratings)


def test_training_with_a_user_bias_is_training_without_it(split: Split) -> None:
    """Biases start at zero. Rounding differs, because Adam's vector has a different length."""
    data, _ = split
    torch.manual_seed(0)
    without = MultiTaskNet(data.num_users, data.num_items, 4, (12, 7))
    with_bias = WithUserBias(data.num_users, data.num_items)
    with_bias.load_state_dict(without.state_dict(), strict=False)
    one, other = (Trainer(net, data, Settings(), eager=True) for net in (without, with_bias))
    assert [one.run_epoch() for _ in range(5)] == [other.run_epoch() for _ in range(5)]
    assert torch.equal(with_bias.A.weight, torch.zeros(data.num_users, 1))
    for name, value in without.state_dict().items():
        torch.testing.assert_close(value, with_bias.state_dict()[name], rtol=1e-5, atol=1e-7)


def trained(
    data: Interactions, sharing: bool, weights: LossWeights, rate: float, sgd: bool = False, epsilon: float = EPSILON
) -> dict[str, dict[str, Tensor]]:
    """Return the parameters of each task after three epochs."""
    torch.manual_seed(0)
    net = MultiTaskNet(data.num_users, data.num_items, 4, (12, 7), sharing)
    trainer = Trainer(net, data, Settings(batch_size=100), eager=True)
    optimizer: Optimizer = torch.optim.SGD(net.parameters(), lr=rate) if sgd else Adam(net, rate, epsilon)
    trainer.step = EagerStep(net, optimizer, weights)
    for _ in range(3):
        trainer.run_epoch()
    found: dict[str, dict[str, Tensor]] = {"factorization": {}, "regression": {}}
    for name, value in net.state_dict().items():
        task = "factorization" if name.startswith(("U_fact", "Q_fact", "B")) else "regression"
        found[task][name] = value.clone()
    return found


@pytest.mark.parametrize("kind", [OnlyInteractionsTeachTables, OnlyRatingsTeachTables])
def test_the_probes_cut_off_one_loss_and_change_nothing_else(kind: type[EagerStep]) -> None:
    torch.manual_seed(0)
    net = MultiTaskNet(5, 6, 4, (12, 7))
    whole, cut = (each(net, Adam(net, 1e-3), LossWeights(0.5, 0.5)) for each in (EagerStep, kind))
    batch = torch.arange(5), torch.arange(5), torch.arange(5).flip(0), torch.ones(5)
    losses = cut.losses(*batch)
    assert all(torch.equal(one, other) for one, other in zip(whole.losses(*batch), losses, strict=True))
    tables = [net.U.weight, net.Q.weight]
    reached = [
        any(each is not None for each in torch.autograd.grad(loss, tables, allow_unused=True)) for loss in losses
    ]
    assert reached == ([True, False] if kind is OnlyInteractionsTeachTables else [False, True])


@pytest.mark.long
def test_the_probes_from_end_to_end(data_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "study.probes", "--epochs", "1", "--seeds", "1", "--logdir", str(tmp_path)]
    command += ["--data_dir", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "probes.md").read_text() == done.stdout
    metrics, shares = done.stdout.strip().split("\n\n")
    assert [row.split(" | ")[0].removeprefix("| ") for row in metrics.splitlines()[2:]] == [p.name for p in PROBES]
    shared = [float(row.split(" | ")[1]) for row in shares.splitlines()[2:]]
    assert shared == sorted(shared)  # the share of the ratings grows with λ_R
    assert shared[0] < 0.1 < 0.9 < shared[-1]
    done = subprocess.run([*command, "--seeds", "0"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "study.probes: error: seeds is 0: expected at least 1\n")


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
def test_probes_that_are_stopped_leave_no_process_and_one_line(data_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "study.probes", "--logdir", str(tmp_path), "--data_dir", str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as probes:
        until = time.monotonic() + 60
        children = Path(f"/proc/{probes.pid}/task/{probes.pid}/children")
        while not children.read_text() and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1)  # during the runs
        assert probes.poll() is None
        probes.send_signal(signal.SIGINT)
        output, errors = probes.communicate(timeout=30)  # ends when no process has its output open
    assert (probes.returncode, output, errors) == (130, "", "stopped; nothing is kept\n")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_with_separate_tables_adam_does_not_see_the_weights(split: Split) -> None:
    """Results are bit-identical if scaling is exact (powers of two) and Adam's ε negligible; by default nearly so."""
    data, _ = split
    one, other = LossWeights(1.0, 1.0), LossWeights(0.5, 2.0**-7)
    with_epsilon = [trained(data, False, weights, 1e-3) for weights in (one, other)]
    torch.testing.assert_close(with_epsilon[0], with_epsilon[1], rtol=0.02, atol=1e-3)
    separate = [trained(data, False, weights, 1e-3, epsilon=1e-30) for weights in (one, other)]
    assert all(same(separate[0][task], separate[1][task]) for task in separate[0])
    shared = [trained(data, True, weights, 1e-3, epsilon=1e-30) for weights in (one, other)]
    assert not same(shared[0]["regression"], shared[1]["regression"])


def test_with_separate_tables_sgd_turns_the_weights_into_two_learning_rates(split: Split) -> None:
    data, _ = split
    weighted = trained(data, False, LossWeights(0.5, 0.25), rate=0.25, sgd=True)
    assert same(weighted["factorization"], trained(data, False, LossWeights(1, 1), 0.125, sgd=True)["factorization"])
    assert same(weighted["regression"], trained(data, False, LossWeights(1, 1), 0.0625, sgd=True)["regression"])
    assert not same(weighted["regression"], trained(data, False, LossWeights(1, 1), 0.25, sgd=True)["regression"])
