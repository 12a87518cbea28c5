"""Each ingredient of a recipe against a plain loop in float64; what is averaged; runs that go on to the bit."""

import math
from pathlib import Path

import pytest
import torch
from training.flags import parse_arguments
from training.recipe import Recipe
from training.tuned_step import TunedStep, WeightedLoss
from training.watched import Watched

import data
import main
from data import Interactions
from metrics import mse_score
from models import MultiTaskNet
from serving.recommender import Recommender
from tracking.folder import RunFolder
from train import Trainer, fit, to_checkpoint
from training import parts
from training.adam import flatten, start_adam
from training.evaluation import Evaluation
from training.sampling import Sampler
from training.settings import Settings
from training.steps import EagerStep, Triples, Weights

Split = tuple[Interactions, Interactions]
USERS, ITEMS, DIM, BATCH, STEPS = 12, 15, 4, 7, 9
RECIPES = {
    "nothing": Recipe(),
    "negatives": Recipe(negatives=4),
    "unseen_negatives": Recipe(negatives=4, unseen_negatives=True),
    "temperature": Recipe(temperature=2.5),
    "weight_decay": Recipe(weight_decay=0.03),
    "lr_schedule": Recipe(lr_schedule="linear"),
    "embedding_dropout": Recipe(embedding_dropout=0.3),
    "dropout": Recipe(dropout=0.4),
    "shared_negatives": Recipe(negatives=4, shared_negatives=True),
    "negative_temperature": Recipe(negatives=4, negative_temperature=0.7),
    "negative_temperature, unseen": Recipe(negatives=4, unseen_negatives=True, negative_temperature=0.7),
    "user_balance": Recipe(user_balance=0.5),
    "watched_items": Recipe(watched_items=True),
    "all": Recipe(5, True, True, 1.5, 0.25, True, 2.5, 0.03, "linear", 0.3, 0.4),
    "all, hardest": Recipe(4, True, False, 0.0, 0.25, True, 2.5, 0.03, "linear", 0.3, 0.4),
}


def network(sharing: bool) -> MultiTaskNet:
    torch.manual_seed(0)
    net = MultiTaskNet(USERS, ITEMS, DIM, (3 * DIM, 6), sharing)
    with torch.no_grad():
        for table in parts.embeddings(net):
            table.weight.normal_()
    return net


def draw(candidates: int) -> Triples:
    """Examples of what was rated, with that many candidates each, or the one negative."""
    generator = torch.Generator().manual_seed(1)
    n, all_rated = BATCH * STEPS - 3, rated()
    shape = (n,) if candidates == 1 else (n, candidates)
    chosen = torch.randint(len(all_rated), (n,), generator=generator)
    return Triples(
        all_rated.user_ids[chosen],
        all_rated.item_ids[chosen],
        torch.randint(ITEMS, shape, generator=generator),
        torch.randint(1, 6, (n,), generator=generator).float(),
    )


def has_rated(user: int) -> list[int]:
    """Everything by user 0, of the others two thirds and less, so that some candidates, or all, are left out."""
    return [item for item in range(ITEMS) if user == 0 or (user + item) % 3 > user % 2]


def rated() -> Interactions:
    pairs = [(user, item) for user in range(USERS) for item in has_rated(user)]
    users, items = torch.tensor(pairs).unbind(1)
    return Interactions(users, items, torch.ones(len(pairs)), USERS, ITEMS)


class Oracle:
    """The loss written out triple by triple in float64, its gradient by autograd, and Adam's published update."""

    def __init__(self, net: MultiTaskNet, recipe: Recipe, seed: int) -> None:
        self.weights = {name: x.detach().double().requires_grad_() for name, x in net.named_parameters()}
        self.sharing, self.recipe = net.embedding_sharing, recipe
        self.first = {name: torch.zeros_like(x) for name, x in self.weights.items()}
        self.second = {name: torch.zeros_like(x) for name, x in self.weights.items()}
        self.generator, self.taken = torch.Generator().manual_seed(seed), 0

    def mask(self, probability: float, *shape: int) -> torch.Tensor:
        if probability == 0:
            return torch.ones(shape, dtype=torch.float64)
        return (torch.rand(shape, generator=self.generator) >= probability).double() / (1 - probability)

    def step(self, users: list[int], items: list[int], negatives: list[list[int]], ratings: list[float]) -> list[float]:
        w, recipe, n = self.weights, self.recipe, len(users)
        u_fact, q_fact = (w["U.weight"], w["Q.weight"]) if self.sharing else (w["U_fact.weight"], w["Q_fact.weight"])
        u_reg, q_reg = (w["U.weight"], w["Q.weight"]) if self.sharing else (w["U_reg.weight"], w["Q_reg.weight"])
        mask_u = self.mask(recipe.embedding_dropout, n, DIM)
        shared = (
            torch.randperm(ITEMS, generator=self.generator)[: recipe.negatives].tolist()
            if (recipe.shared_negatives)
            else []
        )
        mask_h = self.mask(recipe.dropout, n, 6)
        bpr, mse = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        every = [has_rated(i) for i in range(USERS)]
        balance = [len(each) ** -recipe.user_balance for each in every]
        mean_balance = sum(x * len(each) for x, each in zip(balance, every, strict=True)) / sum(map(len, every))
        for k, (i, j, drawn, r) in enumerate(zip(users, items, negatives, ratings, strict=True)):
            u, v = u_fact[i], u_reg[i]
            if recipe.watched_items:
                u = u + torch.stack([q_fact[c] for c in every[i] if c != j]).sum(0) / math.sqrt(len(every[i]))
                v = v + torch.stack([q_reg[c] for c in every[i] if c != j]).sum(0) / math.sqrt(len(every[i]))
            u = u * mask_u[k]
            if recipe.shared_negatives:
                drawn = shared
            if recipe.unseen_negatives:
                drawn = [c for c in drawn if c not in every[i]] or drawn
            p = torch.stack([u @ q_fact[c] + w["B.weight"][c, 0] for c in drawn])
            if recipe.negative_temperature:
                share = torch.exp(p.detach() / recipe.negative_temperature)
                share = share / share.sum()
            else:
                share = (torch.arange(len(drawn)) == p.argmax()).double()
            difference = (u @ q_fact[j] + w["B.weight"][j, 0]) - p
            loss = (share * (1 - 1 / (1 + torch.exp(-difference / recipe.temperature)))).sum()
            bpr = bpr + balance[i] / mean_balance * loss / n
            inputs = torch.cat([v, q_reg[j], v * q_reg[j]])
            hidden = torch.clamp(w["mlp_layers.0.weight"] @ inputs + w["mlp_layers.0.bias"], min=0) * mask_h[k]
            mse = mse + ((w["mlp_layers.2.weight"] @ hidden + w["mlp_layers.2.bias"])[0] - r) ** 2 / n
        tables = [x for name, x in w.items() if not name.startswith("mlp")]
        decay = recipe.weight_decay / 2 * torch.stack([(x**2).sum() for x in tables]).sum()
        gradients = torch.autograd.grad(0.7 * bpr + 0.3 * mse + decay, list(w.values()))
        rate = 1e-2 * (1 - self.taken / STEPS if recipe.lr_schedule == "linear" else 1)
        self.taken += 1
        for name, gradient in zip(w, gradients, strict=True):
            self.first[name] = 0.9 * self.first[name] + 0.1 * gradient
            self.second[name] = 0.999 * self.second[name] + 0.001 * gradient**2
            m, v = self.first[name] / (1 - 0.9**self.taken), self.second[name] / (1 - 0.999**self.taken)
            w[name] = (w[name] - rate * m / (v.sqrt() + 1e-8)).detach().requires_grad_()
        return [bpr.item(), mse.item()]


@pytest.mark.parametrize("shortcuts", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("name", RECIPES)
def test_an_ingredient_equals_the_plain_loop(name: str, sharing: bool, shortcuts: tuple[bool, bool]) -> None:
    recipe, net = RECIPES[name], network(sharing)
    oracle = Oracle(net, recipe, seed=5)
    generator = torch.Generator().manual_seed(5)
    adam = start_adam(flatten(net), 1e-2)
    triples = draw(1 if recipe.shared_negatives else recipe.negatives)
    step = TunedStep(net, adam, Weights(0.7, 0.3), recipe, generator, STEPS, Watched(rated()), *shortcuts)
    losses = step.run(triples, BATCH)
    expected = []
    for start in range(0, len(triples.users), BATCH):
        users, items, negatives, ratings = (column[start : start + BATCH] for column in triples)
        drawn = negatives.reshape(len(negatives), -1).tolist()
        expected.append(oracle.step(users.tolist(), items.tolist(), drawn, ratings.tolist()))
    torch.testing.assert_close(losses.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-5)
    for parameter, weight in net.named_parameters():
        torch.testing.assert_close(weight.detach().double(), oracle.weights[parameter].detach(), rtol=1e-3, atol=2e-4)


def test_the_weighted_loss_has_its_own_derivative() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative, logits = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3,), (3, 4), (3, 4))
    )
    weights = logits.softmax(1)
    expected = (weights * (1 - torch.sigmoid((positive.unsqueeze(1) - negative) / 2.5))).sum(1)
    torch.testing.assert_close(WeightedLoss.apply(positive, negative, weights.clone(), 2.5), expected)
    inputs = positive.requires_grad_(), negative.requires_grad_()
    assert torch.autograd.gradcheck(lambda *p: WeightedLoss.apply(*p, weights.clone(), 2.5), inputs)


def test_without_ingredients_the_step_is_the_homeworks() -> None:
    nets = [network(True) for _ in range(2)]
    results = []
    for net, kind in zip(nets, ("tuned", "eager"), strict=True):
        adam, weights = start_adam(flatten(net), 1e-2), Weights(0.7, 0.3)
        step: EagerStep = EagerStep(net, adam, weights)
        if kind == "tuned":
            step = TunedStep(net, adam, weights, Recipe(), torch.Generator(), STEPS, Watched(rated()))
        results.append(step.run(draw(1), BATCH))
    torch.testing.assert_close(*results)
    assert Recipe().plain_step
    assert not any(RECIPES[name].plain_step for name in RECIPES if name != "nothing")


def test_candidates_are_drawn_from_all_items(split: Split) -> None:
    train, _ = split
    sampler = Sampler(train, 10, torch.Generator().manual_seed(0), candidates=6)
    negatives = torch.cat([block.negatives for block in sampler.epoch()])
    assert negatives.shape == (len(train), 6)
    assert sorted(negatives.unique().tolist()) == list(range(train.num_items))


def settings(epochs: int, **ingredients: object) -> Settings:
    recipe = Recipe(**ingredients)  # type: ignore[arg-type]
    return Settings(0.7, 0.3, 64, 1e-2, "adam", recipe, epochs)


def small(train: Interactions) -> MultiTaskNet:
    torch.manual_seed(0)
    return MultiTaskNet(train.num_users, train.num_items, 8, (24, 16))


def test_the_last_epochs_are_averaged_and_training_goes_on_from_its_own_weights(split: Split) -> None:
    train, test = split
    plain = Trainer(small(train), train, settings(6), 3)
    averaged = Trainer(small(train), train, settings(6, average_last=0.5), 3)
    after = []
    for epoch in range(6):
        assert plain.run_epoch() == averaged.run_epoch()
        assert torch.equal(plain.adam.flat, averaged.adam.flat)
        after.append(plain.adam.flat.detach().double())
        with averaged.as_evaluated():
            shown = averaged.adam.flat.detach().clone()
            score = mse_score(averaged.model, test)
        expected = after[-1] if epoch < 3 else torch.stack(after[3:]).mean(0)
        torch.testing.assert_close(shown.double(), expected, rtol=1e-5, atol=1e-6)
        if epoch >= 4:
            assert score != mse_score(averaged.model, test)
        assert torch.equal(plain.adam.flat, averaged.adam.flat)


def test_what_users_watched_is_in_their_embeddings_where_it_is_evaluated_only(split: Split) -> None:
    train, _ = split
    trainer = Trainer(small(train), train, settings(4, watched_items=True, average_last=0.5), 3)
    for _ in range(4):
        trainer.run_epoch()
    own = trainer.adam.flat.detach().clone()
    with trainer.as_evaluated():
        shown = [table.weight.detach().clone() for table in parts.factorization_tables(trainer.model)]
    assert torch.equal(trainer.adam.flat, own)
    assert trainer.average is not None
    own_mean = trainer.average[: shown[0].numel()].view_as(shown[0])
    watched = torch.zeros(train.num_users, train.num_items).index_put((train.user_ids, train.item_ids), torch.ones(()))
    expected = own_mean + watched @ shown[1] / watched.sum(1, keepdim=True).clamp(min=1).sqrt()
    torch.testing.assert_close(shown[0], expected, rtol=1e-4, atol=1e-5)


EVERYTHING = {
    "negatives": 3, "unseen_negatives": True, "shared_negatives": True, "negative_temperature": 2.0,
    "user_balance": 0.25, "watched_items": True, "temperature": 2.0,
    "weight_decay": 1e-4, "lr_schedule": "linear", "embedding_dropout": 0.1,
    "dropout": 0.2, "average_last": 0.5, "start_at_mean": True, "clamp": True,
}  # fmt: skip


def test_a_run_with_every_ingredient_goes_on_to_the_bit(split: Split, tmp_path: Path) -> None:
    train, test = split
    with RunFolder(tmp_path / "whole") as folder:
        whole = fit(Trainer(small(train), train, settings(6, **EVERYTHING), 3), test, 6, folder)
    for stop in (2, 4):
        with RunFolder(tmp_path / f"{stop}") as folder:
            trainer = Trainer(small(train), train, settings(6, **EVERYTHING), 3)
            history = fit(trainer, test, stop, folder)
            checkpoint = to_checkpoint(trainer, {}, data.fingerprint(train, test), history, [0.0] * stop).copy()
            again = Trainer(small(train), train, settings(6, **EVERYTHING), 3)
            assert fit(again, test, 6, folder, checkpoint=checkpoint) == whole


def output_bias(net: torch.nn.Module) -> torch.Tensor:
    return parts.linear_layers(net)[-1].bias


def test_the_output_starts_at_the_mean_and_ratings_are_cut_to_their_range(split: Split) -> None:
    train, test = split
    trainer = Trainer(small(train), train, settings(1, start_at_mean=True), 3)
    assert output_bias(trainer.model).item() == pytest.approx(train.ratings.mean().item())
    net = trainer.model
    with torch.no_grad():
        output_bias(net).fill_(9.0)
    clamped = Evaluation(net, train, test, clamp=True).mse()
    with torch.no_grad():
        expected = ((net(test.user_ids, test.item_ids)[1].clamp(1, 5) - test.ratings) ** 2).mean().item()
    assert clamped == pytest.approx(expected, rel=1e-6)
    assert clamped < Evaluation(net, train, test).mse()


@pytest.mark.long
def test_what_recommends_is_the_mean_of_the_weights(tmp_path: Path, data_dir: Path) -> None:
    flags = ["--preset", "tuned", "--epochs", "6", "--logdir", str(tmp_path), "--data_dir", str(data_dir)]
    assert main.main(flags) == 0
    options = parse_arguments([*flags, "--resume"])
    trainer, (_, _, test) = main.set_up(options)
    with RunFolder(tmp_path) as folder:
        found = main.find_checkpoint(options, folder, trainer, test)
    assert found is not None
    recommender = Recommender.load(tmp_path, data_dir)
    with trainer.as_evaluated():
        expected = trainer.recommender.predict_all_items(torch.tensor([41])).detach().max(1)
        assert mse_score(trainer.model, test) >= found.history[-1][-1]
    own = recommender.recommend([42], 1, include_seen=True)
    assert own["p"].item() == pytest.approx(expected.values.item())
    assert not torch.equal(recommender.model.state_dict()["U.weight"], trainer.model.state_dict()["U.weight"])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--negatives 0", "negatives is 0: expected at least 1"),
        ("--shared_negatives", "shared_negatives is for several candidates: expected negatives above 1"),
        ("--negative_temperature 2", "negative_temperature is for several candidates"),
        ("--negatives 2 --negative_temperature -1", "negative_temperature is -1.0: expected 0 or a positive number"),
        ("--user_balance 2", "user_balance is 2.0: expected a number from 0 to 1"),
        ("--temperature 0", "temperature is 0.0: expected a positive number"),
        ("--temperature nan", "temperature is nan"),
        ("--weight_decay -1", "weight_decay is -1.0"),
        ("--lr_schedule cosine", "lr_schedule is cosine: expected constant or linear"),
        ("--dropout 1", "dropout is 1.0: expected a probability"),
        ("--embedding_dropout -0.1", "embedding_dropout is -0.1"),
        ("--average_last 1.5", "average_last is 1.5: expected a share"),
        ("--optimizer lazy_adam --negatives 2", "lazy_adam cannot train with negatives"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(
    flags: str, says: str, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*flags.split(), "--logdir", str(tmp_path), "--data_dir", str(data_dir)]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert errors.count("\n") == 1


def test_a_preset_is_a_set_of_flags() -> None:
    assert parse_arguments([]) == parse_arguments(["--preset", "homework"])
    tuned = parse_arguments(["--preset", "tuned", "--negatives", "3"])
    assert (tuned.negatives, tuned.batch_size, tuned.epochs, tuned.planned_epochs) == (3, 1024, 50, 50)
    assert tuned.logdir.name.startswith("tuned_")
    assert math.isclose(tuned.average_last, 1 / 3)
    assert parse_arguments([]).planned_epochs == 0
    with pytest.raises(ValueError, match="epochs is 0"):
        Settings(recipe=Recipe(lr_schedule="linear"))


def test_the_tuned_step_is_taken_only_where_needed(split: Split) -> None:
    train, _ = split
    nothing = {"average_last": 0.5, "start_at_mean": True, "clamp": True}
    for ingredients, tuned in ((nothing, False), ({"dropout": 0.1}, True)):
        trainer = Trainer(small(train), train, settings(1, **ingredients), 3)
        assert isinstance(trainer.step, TunedStep) == tuned
