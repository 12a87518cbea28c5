"""What a trained network is for: recommendations, predicted ratings, similar items, and users it has never met.

    recommender.py  a run that recommends; start reading here
    loading.py      a run read back: its ratings and its network
    ids.py          the row that an ID of the ratings stands for
    titles.py       the item that a title means
    quartiles.py    for whom it works: by activity of the users, and popularity of the items
    fold_in.py      a new user's embeddings, from a few ratings

``python recommend.py`` is its command line.
"""
