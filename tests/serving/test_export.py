"""Vectors for a nearest-neighbour index, compared with the recommender, pair by pair."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_recommender import recommender
from torch import nn

import recommend
from models import MultiTaskNet
from serving import export
from serving.recommender import Recommender


@pytest.mark.parametrize("string_ids", [False, True])
@pytest.mark.parametrize("sharing", [True, False])
def test_equation_1_is_one_inner_product(sharing: bool, string_ids: bool, tmp_path: Path) -> None:
    one = recommender(sharing, string_ids)
    assert export.write(one, tmp_path / "new") == (
        f"60 users and 90 items, vectors of 9 numbers each, in {tmp_path / 'new'}"
    )
    users, items = (np.load(tmp_path / "new" / f"{name}.npy") for name in ("users", "items"))
    assert users.dtype == items.dtype == np.float32
    user_ids = pd.read_csv(tmp_path / "new" / "users.csv")["user"]
    named = pd.read_csv(tmp_path / "new" / "items.csv")
    assert list(named.columns) == ["item", "title"]
    for row in range(0, 60, 7):
        found = pd.DataFrame({"item": named["item"], "title": named["title"], "p": items @ users[row]})
        expected = one.recommend([user_ids[row]], n=90, include_seen=True).set_index("item").loc[named["item"]]
        assert found["p"].tolist() == pytest.approx(expected["p"].tolist(), abs=1e-4)
        assert found["title"].tolist() == expected["title"].tolist()


class Cosine(MultiTaskNet):
    """A network that computes something else than equation 1."""

    def forward(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        p, score = super().forward(user_ids, item_ids)
        return p + nn.functional.cosine_similarity(self.U(user_ids), self.Q(item_ids)), score


def test_a_network_without_equation_1_is_refused() -> None:
    one = recommender()
    with pytest.raises(ValueError, match=r"there are no vectors of users and items .* \(ranking with forward: "):
        export.vectors_of(Recommender(Cosine(60, 90, 8, (24, 16)), one.ratings))


def test_one_flag_writes_either_vectors_or_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend.main(["--logdir", "run/a", "--export", "vectors", "--out", "x.csv"]) == 2
    assert capsys.readouterr().err == "recommend.py: error: --export writes several files: leave out --out\n"
