"""Recommendations compared with a plain loop over all items; look-up of titles; new users; metrics by quartile."""

import functools
from dataclasses import replace

import pytest
import torch

import data
from data import Interactions
from metrics import ByForward, mrr_score, mse_score
from models import MultiTaskNet
from serving.fold_in import Known, NewRows, fold_in
from serving.lookup import Items
from serving.quartiles import quartiles
from serving.recommender import Recommender
from train import Trainer
from training import parts
from training.evaluation import ByTables
from training.settings import Settings
from training.steps import LossWeights

MOVIES = ("Matrix, The (1999)", "Heat (1995)", "Heat (1986)", "Star Wars (1977)", "Am\u00e9lie (2001)", "")
TITLES = tuple(f"Title {n} ({1990 + n % 5})" for n in range(90))


def ratings(string_ids: bool = False) -> Interactions:
    """Make ratings of 60 users, with the IDs 100, 102, … or u00, u01, …, and 90 items."""
    made = data.synthetic(60, 90, 1000, seed=1)
    users: torch.Tensor | tuple[str, ...] = torch.arange(60) * 2 + 100
    items: torch.Tensor | tuple[str, ...] = torch.arange(90) + 7
    if string_ids:
        users, items = tuple(f"u{n:02}" for n in range(60)), tuple(f"i{n:02}" for n in range(90))
    return Interactions(made.user_ids, made.item_ids, made.ratings, 60, 90, users, items, TITLES)


def recommender(sharing: bool = True, string_ids: bool = False) -> Recommender:
    torch.manual_seed(0)
    net = MultiTaskNet(60, 90, 8, (24, 16), sharing)
    with torch.no_grad():
        for table in parts.embeddings(net):
            table.weight.normal_()
    return Recommender(net, ratings(string_ids))


@functools.cache
def plain_predictions(sharing: bool) -> list[list[tuple[float, float]]]:
    """Compute p and stars pair by pair: user → item → (p, stars)."""
    model = recommender(sharing).model
    predictions = []
    for user in range(60):
        pairs = [model(torch.tensor([user]), torch.tensor([item])) for item in range(90)]
        predictions.append([(p.item(), min(5.0, max(1.0, stars.item()))) for p, stars in pairs])
    return predictions


@pytest.mark.parametrize("include_seen", [True, False])
@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("block", [1, 200, 2**20])
def test_recommendations_equal_a_plain_loop(
    sharing: bool, include_seen: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.recommender.BLOCK_SCORES", block)
    one = recommender(sharing)
    frame = one.recommend(n=5, include_seen=include_seen)
    assert list(frame.columns) == ["user", "rank", "item", "title", "p", "stars"]
    expected = []
    for user, predictions in enumerate(plain_predictions(sharing)):
        seen = set() if include_seen else set(one.ratings.item_ids[one.ratings.user_ids == user].tolist())
        found = [(p, item, stars) for item, (p, stars) in enumerate(predictions) if item not in seen]
        for rank, (p, item, stars) in enumerate(sorted(found, reverse=True)[:5]):
            expected.append((user * 2 + 100, rank + 1, item + 7, TITLES[item], p, stars))
    rows = list(frame.itertuples(index=False, name=None))
    assert [row[:4] for row in rows] == [row[:4] for row in expected]
    assert [x for row in rows for x in row[4:]] == pytest.approx([x for row in expected for x in row[4:]], abs=1e-4)


def test_a_user_who_rated_nearly_all_items_gets_the_others() -> None:
    one = recommender()
    most = Interactions(torch.zeros(88, dtype=torch.int64), torch.arange(88), torch.ones(88), 60, 90)
    frame = Recommender(one.model, most).recommend([0], n=10)
    assert sorted(frame["item"]) == [88, 89]


def test_users_keep_their_order_and_string_ids_are_found() -> None:
    assert recommender().recommend([118, "100"], n=2)["user"].tolist() == [118, 118, 100, 100]
    one = recommender(string_ids=True)
    assert one.recommend(["u03"], n=1)["user"].tolist() == ["u03"]
    assert one.predict(["u03", "u04"], ["i05", "Title 6"])["item"].tolist() == ["i05", "i06"]


def test_predictions_are_those_of_the_network() -> None:
    one = recommender()
    frame = one.predict([100, 118], [7, "title 3 (1993)"])
    p, stars = one.model(torch.tensor([0, 9]), torch.tensor([0, 3]))
    assert frame["p"].tolist() == pytest.approx(p.tolist())
    assert frame["stars"].tolist() == pytest.approx(stars.clamp(1, 5).tolist())
    assert frame["item"].tolist() == [7, 10]


def test_similar_items_have_the_largest_cosines() -> None:
    one = recommender(sharing=False)
    frame = one.similar(9, n=4)
    table = parts.factorization_tables(one.model).items.weight.detach().double()
    cosines = {n: float(row @ table[2] / (row.norm() * table[2].norm())) for n, row in enumerate(table) if n != 2}
    best = sorted(cosines, key=cosines.__getitem__, reverse=True)[:4]
    assert frame["item"].tolist() == [n + 7 for n in best]
    assert frame["similarity"].tolist() == pytest.approx([cosines[n] for n in best], abs=1e-6)


def test_the_items_that_a_user_rated_highest() -> None:
    one = recommender()
    frame = one.rated(100, 1000)
    own = one.ratings.user_ids == 0
    assert sorted(frame["item"]) == sorted((one.ratings.item_ids[own] + 7).tolist())
    assert frame["rating"].tolist() == sorted(one.ratings.ratings[own].tolist(), reverse=True)


@pytest.mark.parametrize("by", [pytest.param(ByForward, marks=pytest.mark.long), ByTables])
@pytest.mark.parametrize("sharing", [True, pytest.param(False, marks=pytest.mark.long)])
def test_fold_in_ranks_and_rates_nearly_as_well_as_training(sharing: bool, by: type[ByForward]) -> None:
    """Each of five groups of users watches its own items and likes the even ones. The network does not change."""
    generator = torch.Generator().manual_seed(0)
    users = torch.arange(100).repeat_interleave(18)
    items = torch.cat([torch.randperm(40, generator=generator)[:18] * 5 + user % 5 for user in range(100)])
    known = Interactions(users, items, 5.0 - 4.0 * (items % 2), 100, 200)
    train, test = data.random_train_test_split(known, 0.2, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    net = MultiTaskNet(100, 200, 8, (24, 16), sharing)
    settings = Settings(factorization_weight=0.9, regression_weight=0.1, learning_rate=5e-3, batch_size=32)
    trainer = Trainer(net, train, settings)
    for _ in range(20):
        trainer.run_epoch()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    net.zero_grad(set_to_none=False)
    tables = [parts.factorization_tables(net).users.weight, parts.regression_tables(net).users.weight]
    means = [table.detach().mean(0) for table in tables]
    order = torch.argsort(train.user_ids)
    known = train.select(order[train.user_ids[order] % 4 == 0])
    counts = torch.bincount(known.user_ids)[::4].tolist()
    rows = fold_in(NewRows(by(net, 200)), Known(known.item_ids, known.ratings, counts), LossWeights(0.9, 0.1))
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert all(not parameter.grad.any() for parameter in net.mlp_layers.parameters() if parameter.grad is not None)

    theirs = test.user_ids % 4 == 0
    test = Interactions(test.user_ids[theirs], test.item_ids[theirs], test.ratings[theirs], 100, 200)

    def scores(replaced: list[torch.Tensor]) -> tuple[float, float]:
        with torch.no_grad():
            for table, new in zip(tables, replaced, strict=True):
                table[::4] = new
        return mrr_score(net, test, train), mse_score(net, test)

    trained = mrr_score(net, test, train), mse_score(net, test)
    folded = scores([rows[0], rows[-1]])
    average = scores(means)
    assert folded[0] > average[0] + 0.8 * (trained[0] - average[0])
    assert folded[1] < trained[1] + 0.2


def test_equal_ratings_give_new_users_equal_recommendations_without_the_rated_items() -> None:
    one = recommender()
    frames = [one.recommend_new({"Title 3": 5, "Title 8": 1}, n=90) for _ in range(2)]
    assert frames[0].equals(frames[1])
    assert len(frames[0]) == 88
    assert not {"Title 3 (1993)", "Title 8 (1993)"} & set(frames[0]["title"])
    assert frames[0]["rank"].tolist() == list(range(1, 89))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda one: one.recommend([1]), "user 1 is not in the ratings: .* whole numbers from 100 to 218"),
        (lambda one: one.recommend(["ann"]), "user ann is not in the ratings"),
        (lambda one: one.recommend([101]), "user 101 is not in the ratings"),
        (lambda one: one.recommend(n=0), "the number of items is 0: expected at least 1"),
        (lambda one: one.predict([100], []), "there are 1 users and 0 items: expected an item for each user"),
        (lambda one: one.similar("nothing"), "no title is 'nothing'"),
        (lambda one: one.similar(1000), "item 1000 is not in the ratings"),
        (lambda one: one.recommend_new({}), "there are no items of the new user"),
        (lambda one: one.recommend_new({"Title 3": 5, "title 3 (1993)": 4}), "the same item"),
        (lambda one: one.recommend_new({"Title 3": 6}), "Title 3 is rated 6: expected 1 to 5"),
        (lambda one: one.recommend_new({"Title 3": float("nan")}), "rated nan: expected 1 to 5"),
    ],
)
def test_questions_without_an_answer_are_refused(call, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=says):
        call(recommender())


@pytest.mark.parametrize(
    ("wanted", "row"),
    [
        ("the matrix", 0),
        ("Matrix, The", 0),
        ("The Matrix (1999)", 0),
        ("heat (1986)", 2),
        ("wars", 3),
        ("  AM\u00c9LIE ", 4),
    ],
)
def test_titles_are_found_as_people_write_them(wanted: str, row: int) -> None:
    assert Items(torch.arange(6), MOVIES).row(wanted) == row


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("Heat", r"'Heat' is in 2 titles: Heat \(1995\) \(id 1\); Heat \(1986\) \(id 2\)"),
        ("Star Warz", r"no title is 'Star Warz'; similar: Star Wars \(1977\)"),
        ("", "no title is ''"),
    ],
)
def test_a_title_of_no_item_or_several_is_refused(wanted: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Items(torch.arange(6), MOVIES).row(wanted)


def test_quartiles_are_the_metrics_of_their_own_test_ratings() -> None:
    one = recommender()
    train, test = data.random_train_test_split(one.ratings, 0.3, torch.Generator().manual_seed(0))
    frame = quartiles(one.scorer, train, test, k=7)
    assert frame["of"].tolist() == ["users"] * 4 + ["items"] * 4
    assert frame["number"].tolist() == [15, 15, 15, 15, 23, 23, 22, 22]
    assert frame.groupby("of")["test_ratings"].sum().tolist() == [len(test)] * 2
    users = sorted(range(60), key=lambda user: (int((train.user_ids == user).sum()), user))
    for quarter in range(4):
        own = users[quarter * 15 : (quarter + 1) * 15]
        counts = [int((train.user_ids == user).sum()) for user in own]
        own_test = test.select(torch.tensor([n for n, user in enumerate(test.user_ids.tolist()) if user in own]))
        row = frame.iloc[quarter]
        assert row["ratings"] == f"{min(counts)}–{max(counts)}"
        assert row["MRR"] == pytest.approx(mrr_score(one.model, own_test, train))
        assert row["MSE"] == pytest.approx(mse_score(one.model, own_test))
    with pytest.raises(ValueError, match=r"there is no test set: .* Recommender\.load"):
        one.quartiles()


def test_an_item_is_found_by_its_title_its_id_or_a_part_of_its_title() -> None:
    made = ratings()
    titles = ("9", "Chasing Amy (1997)", "Chasing Amy (1997)", "187 (1997)", *TITLES[4:])
    one = Recommender(recommender().model, replace(made, titles=titles))
    assert one.item("9") == 0  # not the item with this ID
    assert one.item("187") == 3
    assert one.item("8") == 1
    assert one.item(9) == 2
    with pytest.raises(ValueError, match=r"'chasing amy' is in 2 titles: .* \(id 8\); .* \(id 9\)"):
        one.item("chasing amy")


def test_the_largest_ids_and_a_single_user_are_found() -> None:
    made = data.synthetic(1, 90, 20, seed=1)
    ids = torch.tensor([2**63 - 1])
    alone = Interactions(made.user_ids, made.item_ids, made.ratings, 1, 90, ids, torch.arange(90), TITLES)
    torch.manual_seed(0)
    one = Recommender(MultiTaskNet(1, 90, 8, (24, 16)), alone)
    assert one.recommend([str(2**63 - 1)], n=1)["user"].tolist() == [2**63 - 1]
    with pytest.raises(ValueError, match="is not in the ratings"):
        one.recommend([2**63])
    assert one.recommend_new({"Title 3": 5}, n=3)["p"].notna().all()
