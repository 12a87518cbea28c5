"""The items that users rated: the sums of their embeddings, and the seen ones of a few, against plain loops."""

import math

import pytest
import torch
from torch.nn import functional

from data import Interactions
from training.rated_items import RatedItems

USERS, ITEMS = 9, 7


def ratings(seed: int) -> Interactions:
    """Each user rated each item with an even chance; user 3 rated nothing, and no user rated item 2."""
    drawn = torch.rand((USERS, ITEMS), generator=torch.Generator().manual_seed(seed)) < 0.5
    drawn[3], drawn[:, 2] = False, False
    users, items = drawn.nonzero().unbind(1)
    order = torch.randperm(len(users), generator=torch.Generator().manual_seed(seed))
    return Interactions(users[order], items[order], torch.ones(len(users)), USERS, ITEMS)


def rated(train: Interactions) -> list[list[int]]:
    pairs = list(zip(train.user_ids.tolist(), train.item_ids.tolist(), strict=True))
    return [[item for other, item in pairs if other == user] for user in range(USERS)]


@pytest.mark.parametrize("seed", range(5))
def test_sums_and_their_gradient_are_those_of_the_plain_loop(seed: int) -> None:
    train = ratings(seed)
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn((ITEMS, 4), generator=generator).requires_grad_()
    weights = torch.randn((USERS, 4), generator=generator)
    sums = RatedItems(train).sums(table)
    (gradient,) = torch.autograd.grad((weights * sums).sum(), [table])
    rows = table.detach().double().requires_grad_()
    zero = torch.zeros(4, dtype=torch.float64)
    expected = torch.stack(
        [sum((rows[item] for item in items), zero) / math.sqrt(max(1, len(items))) for items in rated(train)]
    )
    (expected_gradient,) = torch.autograd.grad((weights.double() * expected).sum(), [rows])
    torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-6)
    assert (sums[3] == 0).all()
    assert (gradient[2] == 0).all()


@pytest.mark.parametrize("items", [[*range(ITEMS)], [5, 0], [2]])
def test_the_seen_items_are_those_that_each_user_rated(items: list[int]) -> None:
    train = ratings(2)
    twice = train.select(torch.cat([torch.arange(len(train)), torch.arange(3)]))
    expected = [[item in own for item in items] for own in rated(train)]
    assert RatedItems(train).seen(torch.tensor(items)).tolist() == expected
    assert RatedItems(twice).seen(torch.tensor(items)).tolist() == expected


def test_gradients_are_bit_identical_on_several_threads() -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randint(n, (4096,), generator=generator) for n in (300, 200))
    train = Interactions(users, items, torch.ones(4096), 300, 200)
    table = torch.randn((200, 64), generator=generator).requires_grad_()
    weights = torch.randn((4096, 64), generator=generator)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        loss = [
            (weights * RatedItems(train).sums_but_own(table, users, functional.embedding(items, table))).sum()
            for _ in range(5)
        ]
        gradients = [torch.autograd.grad(each, [table])[0] for each in loss]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, gradients[0]) for each in gradients)
