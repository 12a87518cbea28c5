"""Users divided among processes, which are threads here; ``test_distributed.py`` starts real ones."""

import dataclasses
import itertools
from collections import Counter
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import runs
import torch
from runs import Split
from threads import in_processes
from torch import Tensor, nn

from data import Interactions
from models import MultiTaskNet
from training import parts, rows, setup, tuned
from training.adam import Adam
from training.divided import (
    LEAST_DIVIDED,
    UNDIVIDED,
    USER_COST,
    DividedUsers,
    Division,
    check_settings,
    owners,
)  # fmt: skip
from training.evaluation import ByTables, Evaluation
from training.group import Group
from training.rated_items import RatedItems
from training.sampling import Sampler
from training.settings import Settings, preset
from training.steps import LossWeights

TUNED = Settings(**preset("tuned") | {"batch_size": LEAST_DIVIDED})


def make(num_users: int, num_items: int, sharing: bool = True) -> MultiTaskNet:
    return MultiTaskNet(num_users, num_items, 4, (12, 7), sharing)


def divided(train: Interactions, group: Group, sharing: bool = True) -> DividedUsers:
    return DividedUsers(train, group, rows.find_rows(lambda users, items: make(users, items, sharing)))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_users_are_divided_evenly_by_their_work(size: int) -> None:
    """No process has more work than another by more than that of the other's last user; idle users count, too."""
    counts = (torch.rand(200, generator=torch.Generator().manual_seed(0)) ** -1.5).long() - 1
    assert int(counts.min()) == 0
    assert int(counts.max()) > 20 * float(counts.float().mean())
    found = owners(counts, size)
    assert torch.equal(found, owners(counts, size))
    work = [(counts[found == rank] + USER_COST).tolist() for rank in range(size)]
    assert sum(map(len, work)) == 200
    for one, other in itertools.permutations(range(size), 2):
        assert sum(work[one]) - min(work[one]) <= sum(work[other])


@pytest.mark.parametrize("size", [2, 3])
def test_the_processes_take_the_batches_of_one(size: int, split: Split) -> None:
    """Each example is in the same batch, with the same negative, in the process of its user."""
    train, _ = split

    def batches(sampler: Sampler, users: Tensor) -> list[Counter[tuple[float, ...]]]:
        found: list[Counter[tuple[float, ...]]] = []
        for triples, sizes in sampler.epoch():
            columns = [users[triples.users], *triples[1:]]
            for batch in zip(*(column.split(sizes) for column in columns), strict=True):
                found.append(Counter(zip(*(column.tolist() for column in batch), strict=True)))
        return found

    def own(group: Group) -> tuple[list[Counter[tuple[float, ...]]], Tensor]:
        division = divided(train, group)
        local = division.local(division.own(train))
        sampler = Sampler(local, 64, torch.Generator().manual_seed(3), division=division)
        return batches(sampler, division.users), sampler.generator.get_state()

    alone = Sampler(train, 64, torch.Generator().manual_seed(3))
    expected = batches(alone, torch.arange(train.num_users))
    results = in_processes(size, own)
    of_batches = zip(*(found for found, _ in results), strict=True)
    sums: list[Counter[tuple[float, ...]]] = [sum(each, Counter()) for each in of_batches]
    assert sums == expected
    assert all(torch.equal(state, alone.generator.get_state()) for _, state in results)


@pytest.mark.parametrize("sharing", [True, False])
def test_gradients_are_summed_except_for_those_of_users(sharing: bool, split: Split) -> None:
    train, _ = split
    net = make(train.num_users, train.num_items, sharing)
    adam = Adam(net, 1e-3)
    views = divided(train, Group(0, 2), sharing).tensors.common(net, adam.everything.gradient)
    for view in views:
        view.add_(1.0)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        assert bool((parameter.grad == (0.0 if name.startswith("U") else 1.0)).all()), name


INGREDIENTS: dict[str, Any] = {
    "ranking_loss": "softmax", "negatives": 5, "watched_items": True, "user_balance": 0.5, "weight_decay": 20.0,
    "rating_unit": "spread", "pseudo_ratings": 2, "lr_schedule": "linear",
}  # fmt: skip


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize(
    ("batch_size", "ingredients"),
    [(200, INGREDIENTS), (3, INGREDIENTS | {"unseen_negatives": True}), (3, {"ranking_loss": "logistic"})],
)
def test_the_steps_are_those_of_one_process(
    batch_size: int, ingredients: dict[str, Any], sharing: bool, eager: bool, split: Split,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of a batch of 3, some processes have no interaction, or none with a rating, and some parts are empty."""
    monkeypatch.setattr(tuned, "ITEMS_OF_A_PART", 10)
    train, _ = split
    train = train.select(torch.arange(min(len(train), 60 * batch_size)))
    train = dataclasses.replace(train, ratings=train.ratings.masked_fill(torch.arange(len(train)) % 3 == 0, torch.nan))
    settings = Settings(learning_rate=0.01, **ingredients)
    plain, (fast, *_) = tuned.ways(settings, steps=300, num_items=train.num_items, lazy=False)
    way = plain if eager else fast
    whole = make(train.num_users, train.num_items, sharing)
    owns = [make(train.num_users // 3 + extra, train.num_items, sharing) for extra in range(-2, 3)]
    sizes = {len(own.state_dict()["U.weight" if sharing else "U_reg.weight"]): own for own in owns}

    def losses(net: nn.Module, division: Division) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        rated = RatedItems(division.local(division.own(train)), division)
        step = way.make(net, Adam(net, 0.01), LossWeights(0.7, 0.3), rated, generator)
        sampler = Sampler(rated.train, batch_size, generator, settings.negatives == 1, division)
        return torch.cat([step.run(triples, sizes) for triples, sizes in sampler.epoch()])

    def own_losses(group: Group) -> tuple[Tensor, dict[str, Tensor]]:
        division = divided(train, group, sharing)
        net = deepcopy(sizes[len(division.users)])
        division.tensors.copy_rows(whole, net)
        found = losses(net, division)
        return found, division.tensors.gathered(net, parts.state_of(net))

    results = in_processes(3, own_losses)
    expected = losses(whole, UNDIVIDED)
    for found, _ in results:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for name, tensor in results[0][1].items():
        assert float((tensor - parts.state_of(whole)[name]).abs().mean()) < 1e-4, name


def test_weights_of_users_are_normalized_over_all(split: Split) -> None:
    train, _ = split

    def weights(group: Group) -> Tensor:
        division = divided(train, group)
        found = torch.zeros(train.num_users)
        found[division.users] = RatedItems(division.local(division.own(train)), division).user_weights(0.5)
        return found

    torch.testing.assert_close(torch.stack(in_processes(3, weights)).sum(0), RatedItems(train).user_weights(0.5))


@pytest.mark.parametrize("sharing", [True, False])
def test_a_state_is_gathered_and_handed_out_to_other_processes(sharing: bool, split: Split) -> None:
    """The state of one process is handed out to three, gathered, and handed out to two."""
    train, _ = split
    whole = make(train.num_users, train.num_items, sharing)
    adam = Adam(whole, 1e-3)
    adam.first_moment.copy_(torch.arange(len(adam.first_moment)))
    expected = parts.state_of(whole) | {"adam.first_moment": adam.first_moment, "adam.steps_taken": adam.steps_taken}

    def handed(group: Group, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        division = divided(train, group, sharing)
        own = make(len(division.users), train.num_items, sharing)
        own_adam = Adam(own, 1e-3)
        names = {"adam.first_moment": own_adam.first_moment, "adam.steps_taken": own_adam.steps_taken}
        found = division.tensors.handed_out(own, parts.state_of(own) | names, state if group.rank == 0 else {})
        table = "network.U.weight" if sharing else "network.U_reg.weight"
        assert torch.equal(found[table], expected[table][division.users])
        return division.tensors.gathered(own, found), found

    state = expected
    for size in (3, 2):
        results = in_processes(size, partial(handed, state=state))
        assert [gathered for gathered, _ in results[1:]] == [{}] * (size - 1)
        state = results[0][0]
        assert state.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())

    def of_another_network(group: Group) -> None:
        own = make(len(divided(train, group, sharing).users), train.num_items + 1, sharing)
        divided(train, group, sharing).tensors.handed_out(own, parts.state_of(own), parts.state_of(whole))

    with pytest.raises(ValueError, match="the checkpoint is of another network"):
        in_processes(2, of_another_network)


@pytest.mark.parametrize("users", [5, "all"])
@pytest.mark.parametrize("with_gaps", [False, True])
@pytest.mark.parametrize("size", [2, 7])
def test_processes_share_the_evaluation_of_one(size: int, with_gaps: bool, users: str | int, split: Split) -> None:
    """With seven processes and five users, two processes rank no user."""
    train, test = split
    if with_gaps:
        missing = torch.arange(len(test)) % 3 == 0
        test = dataclasses.replace(test, ratings=test.ratings.masked_fill(missing, torch.nan))
    net = runs.network(train, True)
    options: dict[str, Any] = {"users": users, "seed": 3}

    def measured(group: Group) -> tuple[float, ...]:
        division = divided(train, group)
        own = runs.network(division.local(train.select(torch.arange(0))), True)
        for name, tensor in own.state_dict().items():
            tensor.copy_(net.state_dict()[name][division.users] if name == "U.weight" else net.state_dict()[name])
        scorer = division.scorer(ByTables(own, train.num_items))
        found = Evaluation(scorer, division.own(train), test, division=division, **options)
        return found.mrr(), found.mse(), found.mae(), *found.rankings([10])[10]

    whole = Evaluation(ByTables(net, train.num_items), train, test, **options)
    expected = whole.mrr(), whole.mse(), whole.mae(), *whole.rankings([10])[10]
    for found in in_processes(size, measured):
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "interactions", "says"),
    [
        (Settings(), 10**6, "the homework's step is for one process"),
        (Settings(optimizer="lazy_adam", negatives=2, batch_size=8192), 10**6, "optimizer lazy_adam is for one"),
        (Settings(**preset("tuned")), 10**5, "a batch of 1,075 is too small to divide"),
    ],
)
def test_settings_that_do_not_pay_are_refused(settings: Settings, interactions: int, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}.*batch_size 4096 or more, or start without torchrun$"):
        check_settings(settings, interactions)


def test_too_few_ratings_for_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a batch of 4,095 is too small to divide, .*: start without torchrun$"):
        check_settings(TUNED, LEAST_DIVIDED - 1)


def test_settings_that_pay_are_taken() -> None:
    check_settings(TUNED, LEAST_DIVIDED)
    check_settings(Settings(**preset("tuned")), 10**6)


class WithGramMatrix(MultiTaskNet):
    """A network with a tensor that depends on the number of users otherwise than by a row for each."""

    def __init__(self, num_users: int, num_items: int, *others: Any, **named: Any) -> None:
        super().__init__(num_users, num_items, *others, **named)
        self.between_users = nn.Parameter(torch.zeros(num_users, num_users))


def test_a_network_without_a_row_for_each_user_is_refused(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = split
    monkeypatch.setattr("models.MultiTaskNet", WithGramMatrix)
    monkeypatch.setattr("training.setup.check_settings", lambda settings, interactions: None)
    with pytest.raises(ValueError, match=r"models.py has a tensor between_users of shape .*: expected a row for each"):
        setup.make_trainer(TUNED, train, "cpu", group=Group(0, 2))


def test_fewer_users_than_processes_are_refused(split: Split) -> None:
    train, _ = split
    two = train.select(train.user_ids < 2)
    with pytest.raises(ValueError, match="2 users cannot be divided among 3 processes"):
        divided(two, Group(0, 3))
