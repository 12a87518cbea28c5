"""The items that users rated: the sums of their embeddings, and the seen ones of a few, against plain loops."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional

from data import Interactions
from training.rated_items import Embeddings, RatedItems

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


def plain_sums(bags: list[list[int]], table: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros(4, dtype=torch.float64)
    return torch.stack([sum((table[row] for row in bag), zero) / math.sqrt(max(1, len(bag))) for bag in bags])


def weighted(weights: Sequence[torch.Tensor], sums: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([(w * s).sum() for w, s in zip(weights, sums, strict=True)]).sum()


@pytest.mark.parametrize("seed", range(5))
def test_sums_and_their_gradient_are_those_of_the_plain_loop(seed: int) -> None:
    train = ratings(seed)
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.randn((n, 4), generator=generator).requires_grad_() for n in (USERS, ITEMS)]
    weights = [torch.randn((n, 4), generator=generator) for n in (USERS, ITEMS)]
    found = RatedItems(train).sums(*tables)
    gradients = torch.autograd.grad(weighted(weights, found), tables)
    users, items = (table.detach().double().requires_grad_() for table in tables)
    raters = [[user for user in range(USERS) if item in rated(train)[user]] for item in range(ITEMS)]
    expected = plain_sums(rated(train), items), plain_sums(raters, users)
    expected_gradients = torch.autograd.grad(weighted(weights, expected), [users, items])
    for one, other in zip((*found, *gradients), (*expected, *expected_gradients), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)
    assert all(bool((row == 0).all()) for row in (found.users[3], found.items[2], gradients[0][3], gradients[1][2]))


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
    tables = [torch.randn((n, 64), generator=generator).requires_grad_() for n in (300, 200)]
    weights = torch.randn((2, 4096, 64), generator=generator)

    def gradients() -> list[torch.Tensor]:
        own = Embeddings(functional.embedding(users, tables[0]), functional.embedding(items, tables[1]))
        sums = RatedItems(train).sums(*tables)
        rows = Embeddings(functional.embedding(users, sums.users), functional.embedding(items, sums.items))
        found = RatedItems(train).without_own(rows, users, items, own)
        return list(torch.autograd.grad((weights * torch.stack(found)).sum(), tables))

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = [gradients() for _ in range(5)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, one) for other in found for each, one in zip(other, found[0], strict=True))
