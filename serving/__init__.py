"""Uses of a trained network: recommendations, predicted ratings, similar items, and new users.

    recommender.py  recommendations of a trained run; start reading here
    loading.py      a run's ratings and network, from its checkpoint
    lookup.py       users and items by their IDs and titles
    quartiles.py    test metrics by activity of the users and by popularity of the items
    fold_in.py      the embeddings of a new user, from a few ratings

``python recommend.py`` is the command.
"""
