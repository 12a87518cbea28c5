"""Uses of a trained network: recommendations, predicted ratings, similar items, and new users.

    recommender.py  recommendations of a trained network; start reading here
    loading.py      a run's ratings and network, from its folder
    changed.py      ratings that have changed since a run, matched by their IDs
    tables.py       tables of items and of a user's interactions
    lookup.py       users and items by their IDs and titles
    quartiles.py    test metrics by activity of the users and by popularity of the items
    new_users.py    users without trained embeddings
    fold_in.py      the embeddings of a new user, from a few interactions
    saved.py        a recommender in one file
    export.py       vectors for a nearest-neighbour index

``python recommend.py`` is the command.
"""
