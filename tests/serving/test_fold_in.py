"""Embeddings of many new users at once, among many items, and in tables with more rows than users."""

import io
from collections.abc import Callable

import pandas as pd
import pytest
import torch
from test_recommender import ratings, recommender

from metrics import ByForward
from models import MultiTaskNet
from serving import fold_in as subject
from serving.fold_in import Known, NewRows, batches, fold_in
from serving.recommender import Recommender
from training import parts
from training.steps import LossWeights, bpr_loss

WEIGHTS = LossWeights(0.9, 0.1)
COUNTS = [3, 0, 20, 1, 7]


def known() -> Known:
    """Return items and ratings of as many users as COUNTS has."""
    generator = torch.Generator().manual_seed(0)
    items = torch.cat([torch.randperm(90, generator=generator)[:count] for count in COUNTS])
    return Known(items, torch.randint(1, 6, (len(items),), generator=generator).float(), COUNTS)


@pytest.mark.parametrize(("most", "sharing"), [(1000, True), (1000, False), (10, False)])
def test_users_are_folded_in_together_as_one_by_one(most: int, sharing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MANY_ITEMS", most)
    monkeypatch.setattr(subject, "NEGATIVES", 30)
    network = NewRows(recommender(sharing).scorer)
    together, users = fold_in(network, known(), WEIGHTS), known()
    pieces = zip(users.items.split(COUNTS), users.ratings.split(COUNTS), COUNTS, strict=True)
    alone = [fold_in(network, Known(items, stars, [count]), WEIGHTS) for items, stars, count in pieces]
    assert len(together) == (1 if sharing else 2)
    for table, rows in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(table, torch.cat(rows), rtol=1e-3, atol=1e-4)
    for table, means in zip(together, network.means, strict=True):
        assert torch.equal(table[1], means)  # of the user without items


def test_drawn_negatives_give_nearly_the_embeddings_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = MultiTaskNet(50, 5000, 8, (24,))
    with torch.no_grad():
        for table in (model.U, model.Q):
            table.weight.normal_(0, 0.3)
    network, users = NewRows(ByForward(model, 5000)), Known(torch.arange(50) * 7, torch.ones(50), [20, 30])
    (drawn,), (again,) = (fold_in(network, users, WEIGHTS) for _ in range(2))
    monkeypatch.setattr(subject, "MANY_ITEMS", 5000)
    (exact,) = fold_in(network, users, WEIGHTS)
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, exact)
    assert (drawn - exact).norm() < 0.1 * (exact - network.means[0]).norm()


@pytest.mark.parametrize("count", [4, 50, 3000])
def test_the_pairs_of_a_step_are_bounded(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has several users of few items, or one of many, whose negatives are then fewer."""
    sizes = []

    def counted(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        sizes.append((positive - negative).numel())
        return bpr_loss(positive, negative)

    monkeypatch.setattr(subject, "bpr_loss", counted)
    monkeypatch.setattr(subject, "STEPS", 1)
    torch.manual_seed(0)
    network = NewRows(ByForward(MultiTaskNet(5, 20_000, 4, (12,)), 20_000))
    counts = [count] * 600
    found = list(batches(counts, 20_000))
    assert [user for batch in found for user in batch] == list(range(600))
    assert (len(found[0]) > 1) == (count < 3000)
    items = torch.randint(20_000, (count * len(found[0]),))
    fold_in(network, Known(items, torch.ones(len(items)), counts[: len(found[0])]), WEIGHTS)
    assert 2**17 < sizes[0] <= subject.PAIRS


def test_users_without_items_are_in_batches_as_well() -> None:
    assert max(map(len, batches([0] * 10_000, 20_000))) < 200
    assert list(batches([], 20_000)) == []


@pytest.mark.parametrize("sharing", [True, False])
def test_a_table_may_have_more_rows_than_there_are_users(sharing: bool) -> None:
    """Oracle: the same network without the spare rows."""
    small = recommender(sharing).model
    torch.manual_seed(1)
    large = MultiTaskNet(75, 90, 8, (24, 16), sharing)
    rows = {name: tensor[:60] if tensor.shape[:1] == (75,) else tensor for name, tensor in large.state_dict().items()}
    small.load_state_dict(rows)
    expected = Recommender(small, ratings(), new_users=[3, 59])
    found = Recommender(large, ratings(), new_users=[3, 59])
    liked: dict[int | str, float | None] = {"Title 3": 5, "Title 8": 1}
    pd.testing.assert_frame_equal(found.recommend_new(liked, n=90), expected.recommend_new(liked, n=90))
    pd.testing.assert_frame_equal(found.recommend(n=90), expected.recommend(n=90))


@pytest.mark.parametrize(("new", "is_shown"), [(40, True), (20, False)])
def test_many_new_users_have_a_progress_bar(new: int, is_shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    yes: Callable[[], bool] = lambda: True  # noqa: E731
    monkeypatch.setattr(terminal, "isatty", yes)
    monkeypatch.setattr("sys.stderr", terminal)
    one = Recommender(recommender().model, ratings(), new_users=list(range(new)))
    before = parts.factorization_tables(one.model).users.weight.detach().clone()
    one.recommend(n=1)
    changed = (parts.factorization_tables(one.model).users.weight != before).any(1)
    assert changed.tolist() == [user < new for user in range(60)]
    assert ("40/40" in terminal.getvalue()) == is_shown


def test_a_network_that_registers_its_tables_twice_keeps_them() -> None:
    torch.manual_seed(0)
    net = MultiTaskNet(20, 90, 8, [24, 16])
    net.both = torch.nn.ModuleList([net.U, net.Q])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = fold_in(NewRows(ByForward(net, 90)), known(), WEIGHTS)
    assert found[0].shape == (len(COUNTS), 8)
    assert {name: value.shape for name, value in net.state_dict().items()} == {n: v.shape for n, v in before.items()}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
