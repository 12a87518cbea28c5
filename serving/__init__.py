"""Uses of a trained network: recommendations, predicted ratings, similar items, and users who are not in the ratings.

    recommender.py  a run that recommends; start reading here
    loading.py      a run read from its checkpoint: its ratings and its network
    lookup.py       users and items by their IDs and titles
    quartiles.py    test metrics by activity of the users and by popularity of the items
    fold_in.py      the embeddings of a new user, from a few ratings

``python recommend.py`` is the command.
"""
