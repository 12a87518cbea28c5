"""The files of TensorBoard's PROJECTOR tab; test_tensorboard_pages.py opens the tab itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format  # type: ignore[import-untyped]
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch import nn

from data import Interactions
from models import MultiTaskNet
from tracking import projector
from training import parts

ITEMS = torch.tensor([0, 0, 0, 1, 2, 2, 4])
COUNTS = torch.tensor([3, 1, 2, 0, 1])


def ratings(titles: tuple[str, ...] = (), ids: torch.Tensor | tuple[str, ...] | None = None) -> Interactions:
    source_ids = torch.arange(10, 15) if ids is None else ids
    return Interactions(torch.arange(7), ITEMS, torch.ones(7), 7, 5, torch.arange(7), source_ids, titles)


def written(folder: Path) -> tuple[list[list[str]], dict[str, np.ndarray]]:
    rows = [line.split("\t") for line in (folder / "items.tsv").read_text().splitlines()]
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    tables = {
        each.tensor_name: np.fromfile(folder / each.tensor_path, dtype="<f4").reshape(tuple(each.tensor_shape))
        for each in config.embeddings
    }
    assert all(each.metadata_path == "items.tsv" for each in config.embeddings)
    return rows, tables


@pytest.mark.parametrize("sharing", [True, False])
def test_every_item_has_a_row_and_its_labels(sharing: bool, tmp_path: Path) -> None:
    net = MultiTaskNet(7, 5, 4, (12, 5), sharing)
    titles = ("A", "B\twith a tab", "C\nD", "É", "E")
    projector._write(tmp_path, parts.item_tables(net), COUNTS, ratings(titles), {"10": "Drama", "14": "War"})
    rows, tables = written(tmp_path)
    assert rows == [
        ["title", "genres", "ratings"], ["A", "Drama", "3"], ["B with a tab", "", "1"], ["C D", "", "2"],
        ["É", "", "0"], ["E", "War", "1"],
    ]  # fmt: skip
    assert list(tables) == (["items"] if sharing else ["items", "items, rating"])
    assert (tables["items"] == parts.factorization_tables(net).items.weight.detach().numpy()).all()
    if not sharing:
        assert (tables["items, rating"] == parts.regression_tables(net).items.weight.detach().numpy()).all()


def test_many_items_are_reduced_to_the_most_rated_and_items_without_titles_have_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "MOST", 2)
    net = MultiTaskNet(7, 5, 4, (12, 5))
    projector._write(tmp_path, parts.item_tables(net), COUNTS, ratings(ids=("a", "b", "c", "d", "e")), {"c": "x"})
    rows, tables = written(tmp_path)
    assert rows[1:] == [["a", "", "3"], ["c", "x", "2"]]
    assert (tables["items"] == net.Q.weight.detach().numpy()[[0, 2]]).all()


def test_tables_may_be_parameters_and_missing_ones_are_named() -> None:
    net = MultiTaskNet(7, 5, 4, (12, 5), embedding_sharing=False)
    table = net.Q_fact.weight.detach().clone()
    del net.Q_fact
    with pytest.raises(LookupError, match=r"models\.py has no tables Q, or Q_fact and Q_reg"):
        parts.item_tables(net)
    net.register_parameter("Q_fact", nn.Parameter(table))
    assert torch.equal(parts.item_tables(net)["items"], table)
