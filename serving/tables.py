"""Tables of items: their IDs and titles, those similar to an item, and those of a user's own interactions."""

import pandas as pd
import torch
from torch import Tensor

from data import Interactions
from serving.lookup import Id, ids_of, row_of


def of_items(ratings: Interactions, items: Tensor) -> pd.DataFrame:
    """Return a row for each of (n,) items: item, and title if the ratings have titles."""
    frame = pd.DataFrame({"item": ids_of(ratings.source_item_ids, items)})
    if ratings.titles:
        frame["title"] = [ratings.titles[item] for item in items.tolist()]
    return frame


def of_similar(ratings: Interactions, embeddings: Tensor, item: int, n: int) -> pd.DataFrame:
    """Return the n items whose (num_items, d) embeddings have the largest cosine with an item's, as ``similarity``."""
    table = torch.nn.functional.normalize(embeddings.detach(), dim=1)
    cosines = table @ table[item]
    cosines[item] = -torch.inf
    best = cosines.topk(min(n, len(cosines) - 1))
    frame = of_items(ratings, best.indices)
    frame["similarity"] = best.values.numpy()
    return frame


def of_user(ratings: Interactions, user: Id, n: int) -> pd.DataFrame:
    """Return the n items that a user rated highest, or if the user rated none, the latest ones.

    Returns:
        A row for each item: item, title (if the ratings have titles), and rating (if there are ratings).
    """
    try:
        row = row_of(ratings.source_user_ids, user, "user")
    except ValueError:  # the user is no longer in them
        row = -1
    places = (ratings.user_ids == row).nonzero().squeeze(1)
    if bool(ratings.rated[places].any()):
        order = torch.sort(ratings.ratings[places].nan_to_num(nan=-torch.inf), descending=True, stable=True).indices
    elif ratings.times is None:
        order = torch.arange(len(places)).flip(0)
    else:
        order = torch.sort(ratings.times[places].nan_to_num(nan=-torch.inf), stable=True).indices.flip(0)
    best = places[order[:n]]
    frame = of_items(ratings, ratings.item_ids[best])
    if bool(ratings.rated.any()):
        frame["rating"] = ratings.ratings[best].numpy()
    return frame
