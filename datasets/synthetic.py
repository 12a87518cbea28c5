"""Synthetic ratings of MovieLens's shape and any size, for tests and benchmarks without a download."""

import numpy as np
from numpy.typing import NDArray

from datasets.ratings import Ratings


def draw(num_users: int, num_items: int, num_interactions: int, seed: int) -> Ratings:
    """Draw ratings with skewed popularity and activity, and with taste to be learned.

    Users and items get latent vectors. A pair is drawn by the user's activity and the item's popularity, both
    log-normal, and kept more often where the vectors agree, so that taste shows in the observed pairs; each pair occurs
    once. The rating is the agreement plus noise, cut so that 1 to 5 stars have the shares of MovieLens 100K.

    Args:
        num_users, num_items: IDs are drawn from [0, num_users) and [0, num_items); a few may have no rating.
        num_interactions: the number of ratings; ValueError is raised where it exceeds a quarter of all pairs.
    """
    most = num_users * num_items // 4
    if not 0 < num_interactions <= most:
        wanted = f"{num_interactions} ratings by {num_users} users of {num_items} items"
        raise ValueError(f"{wanted}: expected 1 to {most}, a quarter of all pairs")
    rng = np.random.default_rng(seed)
    user_taste, item_taste = rng.standard_normal((num_users, 8)), rng.standard_normal((num_items, 8))
    activity = np.cumsum(rng.lognormal(0.0, 1.0, num_users))
    popularity = np.cumsum(rng.lognormal(0.0, 1.7, num_items))
    pairs, drawn = np.empty(0, dtype=np.int64), list[NDArray[np.int64]]()
    while len(pairs) < num_interactions:
        while sum(map(len, drawn)) < 1.1 * num_interactions:
            users = np.searchsorted(activity, rng.random(2**18) * activity[-1], side="right")
            items = np.searchsorted(popularity, rng.random(2**18) * popularity[-1], side="right")
            agreement = np.einsum("nd,nd->n", user_taste[users], item_taste[items])
            kept = rng.random(2**18) < 1.0 / (1.0 + np.exp(-agreement))
            drawn.append(users[kept] * num_items + items[kept])
        pairs = np.unique(np.concatenate([pairs, *drawn]))
        drawn.clear()
    rng.shuffle(pairs)
    users, items = np.divmod(pairs[:num_interactions], num_items)
    del pairs
    liking = np.empty(num_interactions)
    for start in range(0, num_interactions, 2**18):  # in parts, because each rating needs two vectors of eight numbers
        part = slice(start, start + 2**18)
        liking[part] = np.einsum("nd,nd->n", user_taste[users[part]], item_taste[items[part]])
        liking[part] += 2.0 * rng.standard_normal(len(liking[part]))
    shares = np.array([0.0611, 0.1137, 0.27145, 0.34174])  # of 1, 2, 3 and 4 stars in MovieLens 100K
    ratings = 1 + np.searchsorted(np.quantile(liking, np.cumsum(shares)), liking)
    stars = ratings.astype(np.float32)
    return Ratings(users.astype(np.int32), items.astype(np.int32), stars, np.arange(num_users), np.arange(num_items))
