"""Each ingredient of the settings against a plain loop in float64; resumed runs."""

from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from runs import Split
from tuned_oracle import BATCH, DIM, ITEMS, STEPS, USERS, Oracle, draw, has_rated, network, rated

import data
import main
import training.tuned
from data import Interactions
from metrics import mse_score
from models import MultiTaskNet
from serving.recommender import Recommender
from tracking.checkpoint import load_checkpoint
from tracking.resuming import restore
from train import Trainer
from training import parts, setup, tuned_blocks, tuned_softmax
from training.adam import Adam
from training.rated_items import RatedItems
from training.settings import Settings, preset
from training.steps import LossWeights, Triples
from training.tuned import TunedStep, parts_of
from training.tuned_batch import ForwardBatch, Pairs

ALL: dict[str, Any] = {
    "negatives": 5, "unseen_negatives": True, "ranking_loss": "softmax", "user_balance": 0.25, "watched_items": True,
    "rating_unit": "spread", "pseudo_ratings": 3, "weight_decay": 4.0, "lr_schedule": "linear",
    "embedding_dropout": 0.3, "dropout": 0.4,
}  # fmt: skip
INGREDIENTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "negatives": {"negatives": 4},
    "negatives, unseen": {"negatives": 4, "unseen_negatives": True},
    "logistic": {"ranking_loss": "logistic"},
    "logistic, negatives": {"ranking_loss": "logistic", "negatives": 4},
    "softmax": {"ranking_loss": "softmax", "negatives": 6},
    "softmax, unseen": {"ranking_loss": "softmax", "negatives": 4, "unseen_negatives": True},
    "pseudo_ratings": {"rating_unit": "spread", "pseudo_ratings": 3},
    "pseudo_ratings, negatives": {"negatives": 4, "rating_unit": "spread", "pseudo_ratings": 3},
    "weight_decay": {"weight_decay": 4.0},
    "lr_schedule": {"lr_schedule": "linear"},
    "embedding_dropout": {"embedding_dropout": 0.3},
    "dropout": {"dropout": 0.4},
    "user_balance": {"user_balance": 0.5},
    "watched_items": {"watched_items": True},
    "all": ALL,
    "all, bounded": ALL | {"ranking_loss": "bounded"},
    "negatives, in parts": {"negatives": 4},
    "all, in parts": ALL,
    "logistic, in parts": {"ranking_loss": "logistic", "negatives": 4, "unseen_negatives": True},
}


def tuned(
    net: MultiTaskNet, settings: Settings, by_tables: bool = False, by_hand: bool = False, missing: bool = False
) -> TunedStep:
    generator, train = torch.Generator().manual_seed(5), rated()
    if missing:
        train.ratings[0] = torch.nan
    return TunedStep(
        net, Adam(net, 1e-2), LossWeights(0.7, 0.3), RatedItems(train), generator,
        settings=settings, steps=STEPS, parts=parts_of(settings, ITEMS), by_tables=by_tables, by_hand=by_hand,
    )  # fmt: skip


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("name", INGREDIENTS)
def test_an_ingredient_equals_the_plain_loop(name: str, sharing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.endswith("in parts"):
        monkeypatch.setattr(training.tuned, "ITEMS_OF_A_PART", ITEMS // 3)  # three parts, and batches of seven
    settings = Settings(**INGREDIENTS[name])
    oracle = Oracle(network(sharing), settings, seed=5)
    triples = draw(settings.negatives == 1)
    expected = []
    for start in range(0, len(triples.users), BATCH):
        expected.append(oracle.step(*(column[start : start + BATCH].tolist() for column in triples)))
    for shortcuts in ((False, False), (True, False), (True, True)):
        net = network(sharing)
        losses = tuned(net, settings, *shortcuts).run(triples, BATCH)
        torch.testing.assert_close(losses.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-5)
        for parameter, weight in net.named_parameters():
            found, plain = weight.detach().double(), oracle.weights[parameter].detach()
            torch.testing.assert_close(found, plain, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("missing", [0, 3, 9])
@pytest.mark.parametrize("widths", [(6,), (6, 5)])
def test_a_step_in_many_blocks_equals_the_plain_step(
    widths: tuple[int, ...], missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned_blocks, "EXAMPLES", 3)
    monkeypatch.setattr(tuned_softmax, "BLOCK", 2 * ALL["negatives"])
    triples = draw(False)
    triples.ratings[:missing] = torch.nan  # of nine, a whole batch lacks them
    plain, in_blocks = network(True, widths), network(True, widths)
    expected = tuned(plain, Settings(**ALL), missing=missing > 0).run(triples, BATCH)
    losses = tuned(in_blocks, Settings(**ALL), True, True, missing=missing > 0).run(triples, BATCH)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    for found, parameter in zip(in_blocks.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, parameter, rtol=1e-3, atol=2e-4)


def test_m_ratings_of_each_user_come_with_pseudo_ratings(monkeypatch: pytest.MonkeyPatch) -> None:
    """In as many steps as a user has ratings, each of them is chosen m times, but once a step, and no other is."""
    train, m = rated(), 7
    train.ratings[::3] = torch.nan
    chosen: list[list[int]] = []

    def note(self: TunedStep, batch: Any, ratings: torch.Tensor, pairs: Pairs | None = None) -> torch.Tensor:
        if pairs is not None:
            chosen.append(sorted(set(pairs.places.tolist())))
        return ratings.new_zeros((), requires_grad=True)

    monkeypatch.setattr(TunedStep, "_regression", note)
    settings = Settings(negatives=4, rating_unit="spread", pseudo_ratings=m)
    step = TunedStep(
        network(True), Adam(network(True), 1e-2), LossWeights(0.7, 0.3), RatedItems(train),
        torch.Generator().manual_seed(5), settings=settings, steps=ITEMS,
    )  # fmt: skip
    triples = Triples(train.user_ids, train.item_ids, torch.empty(len(train), 0, dtype=torch.int64), train.ratings)
    for _ in range(ITEMS):
        step.run(triples, len(train))
    own = [train.rated[train.user_ids == user].sum().item() for user in range(USERS)]
    assert min(own) < m < max(own)
    for place, (user, is_rated) in enumerate(zip(train.user_ids.tolist(), train.rated.tolist(), strict=True)):
        times = sum(place in places for places in chosen[: int(own[user])])
        assert times == (min(m, own[user]) if is_rated else 0)


def test_settings_without_ingredients_are_the_homeworks() -> None:
    assert [name for name in INGREDIENTS if Settings(**INGREDIENTS[name]).homework_step] == ["nothing"]
    assert Settings(rating_baseline=True).homework_step


def make_trainer(train: Interactions, epochs: int, sharing: bool = True, **ingredients: Any) -> Trainer:
    settings = Settings(
        factorization_weight=0.7, regression_weight=0.3, batch_size=64, learning_rate=1e-2, optimizer="adam",
        epochs=epochs, **ingredients,
    )  # fmt: skip
    return Trainer(runs.network(train, sharing, (24, 16)), train, settings)


@pytest.mark.parametrize("sharing", [True, False])
def test_sums_over_watched_items_are_in_the_embeddings_during_evaluation_only(sharing: bool, split: Split) -> None:
    train, _ = split
    trainer = make_trainer(train, 4, sharing, watched_items=True)
    for _ in range(4):
        trainer.run_epoch()
    own = trainer.adam.flat.detach().clone()
    with trainer.as_evaluated():
        shown = {name: x.detach().clone() for name, x in trainer.model.named_parameters()}
    assert torch.equal(trainer.adam.flat, own)
    before = dict(zip(parts.parameters(trainer.model), parts.slices(trainer.model, own), strict=True))
    watched = torch.zeros(train.num_users, train.num_items).index_put((train.user_ids, train.item_ids), torch.ones(()))
    to_users = watched / watched.sum(1, keepdim=True).clamp(min=1).sqrt()
    to_items = (watched / watched.sum(0).clamp(min=1).sqrt()).T
    rows = {name: before[parameter] for name, parameter in trainer.model.named_parameters()}
    for name, parameter in trainer.model.named_parameters():
        sums: torch.Tensor | int = 0
        if name.startswith("U"):
            sums = to_users @ rows[name.replace("U", "Q")]
        elif name.startswith("Q"):
            sums = to_items @ rows[name.replace("Q", "U")]
        torch.testing.assert_close(shown[name], before[parameter] + sums, rtol=1e-4, atol=1e-5)


class WithNext(MultiTaskNet):
    """A network that also looks up the next item, and the mean of the first three."""

    def forward_with_embedding_sharing(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> Any:
        p, score = super().forward_with_embedding_sharing(user_ids, item_ids)
        others = self.Q((item_ids + 1) % ITEMS) + self.Q(input=torch.arange(3)).mean(0)
        return p + (self.U(user_ids) * others).sum(-1), score


def test_sums_are_in_all_rows_that_a_network_looks_up() -> None:
    """Oracle: the evaluated network, with the user and the item of the batch left out of each other's sum by hand."""
    torch.manual_seed(0)
    net, train = WithNext(USERS, ITEMS, DIM, (3 * DIM, 6)), rated()
    user, item = 4, has_rated(4)[-1]
    items, candidates = RatedItems(train), torch.arange(5)
    batch = ForwardBatch(
        net, Settings(watched_items=True), items, lambda x, _: x, torch.tensor([user]), torch.tensor([item])
    )
    scores, positive, rating = batch.scores(candidates), batch.positive(), batch.ratings()
    raw = {name: x.detach().clone() for name, x in net.named_parameters()}
    items.fold_into(net)
    with torch.no_grad():
        net.U.weight[user] -= raw["Q.weight"][item] / len(has_rated(user)) ** 0.5
        torch.testing.assert_close(scores[0], net(torch.full((5,), user), candidates)[0])
        net.Q.weight[item] -= raw["U.weight"][user] / sum(item in has_rated(each) for each in range(USERS)) ** 0.5
        expected = net(torch.tensor([user]), torch.tensor([item]))
    torch.testing.assert_close((positive, rating), expected)


def test_a_table_of_two_pairs_has_no_sums() -> None:
    net = network(False)
    net.Q_reg = net.Q_fact
    with pytest.raises(ValueError, match="one table for both tasks beside separate ones: leave out watched_items"):
        tuned(net, Settings(watched_items=True))


def test_a_table_that_forward_does_not_call_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(True)
    monkeypatch.setattr(net, "forward", lambda users, items: (net.U(users).sum(-1), net.U(users).sum(-1)))
    with pytest.raises(ValueError, match=r"forward in models.py does not call Q: leave out watched_items"):
        tuned(net, Settings(watched_items=True)).run(draw(True), BATCH)


EVERYTHING = ALL | {"rating_baseline": True}


def test_a_run_with_every_ingredient_resumes_bit_identically(split: Split) -> None:
    train, _ = split
    whole = make_trainer(train, 6, **EVERYTHING)
    losses, states = [], []
    for _ in range(6):
        losses.append(whole.run_epoch())
        states.append({name: x.clone() for name, x in whole.state().items()})
    for stop in (2, 4):
        again = make_trainer(train, 6, **EVERYTHING)
        again.load_state(states[stop - 1], stop, "cpu")
        assert [again.run_epoch() for _ in range(6 - stop)] == losses[stop:]
        assert all(torch.equal(x, states[-1][name]) for name, x in again.state().items())


@pytest.mark.long
def test_the_sums_over_watched_items_recommend(tmp_path: Path, data_dir: Path) -> None:
    flags = ["--preset", "tuned", "--epochs", "6", "--logdir", str(tmp_path), "--data_dir", str(data_dir)]
    assert main.main(flags) == 0
    settings = Settings(**preset("tuned") | {"epochs": 6})
    train, _, test = setup.split(data.load(data_dir), settings)
    trainer = setup.make_trainer(settings, train, torch.device("cpu"))
    found = load_checkpoint(tmp_path)
    assert found is not None
    restore(trainer, found)
    recommender = Recommender.load(tmp_path)
    with trainer.as_evaluated():
        expected = trainer.scorer.predict_all_items(torch.tensor([41])).detach().max(1)
        assert mse_score(trainer.model, test) >= found.metrics[-1].test_mse
    own = recommender.recommend([42], 1, include_seen=True)
    assert own["p"].item() == pytest.approx(expected.values.item())
    assert not torch.equal(recommender.model.state_dict()["U.weight"], trainer.model.state_dict()["U.weight"])


def test_row_wise_adam_has_no_ingredients(split: Split) -> None:
    train, _ = split
    with pytest.raises(ValueError, match="lazy_adam cannot train with negatives"):
        Trainer(runs.network(train, True), train, Settings(optimizer="lazy_adam", negatives=2))
