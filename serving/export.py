"""Vectors of users and items for a nearest-neighbour index, in which equation 1 is one inner product.

DIR/users.npy    (users, d + 1) float32: u_i, and 1
DIR/items.npy    (items, d + 1) float32: q_j, and the bias b_j
DIR/users.csv    the ID of each row of users.npy
DIR/items.csv    the ID of each row of items.npy, and its title if the ratings have titles
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cli.files import check_folder, write_whole
from serving.lookup import ids_of
from serving.recommender import Recommender
from training.evaluation import ByTables


class Vectors(NamedTuple):
    """Vectors of users and items whose inner product is p_ij, equation 1, in the order of the recommender's ratings."""

    users: Tensor  # (users, d + 1) float32: u_i, and 1
    items: Tensor  # (items, d + 1) float32: q_j, and b_j


FILES = ("users.npy", "users.csv", "items.npy", "items.csv")


def vectors_of(recommender: Recommender) -> Vectors:
    """Return the vectors of a recommender.

    Raises:
        ValueError: the network has no tables with the homework's names, or computes something else than equation 1.
    """
    scorer = recommender.scorer
    if not isinstance(scorer, ByTables):
        raise ValueError(f"there are no vectors of users and items whose inner product is p ({recommender.notice})")
    recommender.new_users.fold_in_all()
    num_users, num_items = recommender.ratings.num_users, recommender.ratings.num_items
    users, items = scorer.tables.users.weight.detach()[:num_users], scorer.tables.items.weight.detach()[:num_items]
    return Vectors(
        torch.cat([users, torch.ones(num_users, 1)], dim=1),
        torch.cat([items, scorer.bias.weight.detach()[:num_items]], dim=1),
    )


def write(recommender: Recommender, folder: Path) -> str:
    """Write the vectors and the IDs of a recommender.

    Returns:
        A line that names the files.

    Raises:
        ValueError: as for ``vectors_of``, or the folder has files with these names that are no earlier export.
        OSError: a file cannot be written.
    """
    check_folder(folder)
    there = [name for name in FILES if (folder / name).exists()]
    if 0 < len(there) < len(FILES):
        raise ValueError(f"{folder} has a file {there[0]} already: expected an empty folder or an earlier export")
    vectors, ratings = vectors_of(recommender), recommender.ratings
    users = pd.DataFrame({"user": ids_of(ratings.source_user_ids, torch.arange(ratings.num_users))})
    items = pd.DataFrame({"item": ids_of(ratings.source_item_ids, torch.arange(ratings.num_items))})
    if ratings.titles:
        items["title"] = ratings.titles
    for name, matrix, ids in (("users", vectors.users, users), ("items", vectors.items, items)):
        content = io.BytesIO()
        np.save(content, matrix.numpy())
        write_whole(content.getvalue(), folder / f"{name}.npy")
        write_whole(ids.to_csv(index=False).encode(), folder / f"{name}.csv")
    size = vectors.users.shape[1]
    return f"{len(users):,} users and {len(items):,} items, vectors of {size} numbers each, in {folder}"
