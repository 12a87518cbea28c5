"""Where ratings come from: releases, their formats and digests, and how they are fetched.

    source.py      what every source gives; start reading here
    movielens.py   MovieLens 100K: its sources, digests and formats
    download.py    fetching a file over a network that may be slow, absent or in the way
    synthetic.py   ratings of the same shape at any size, for tests and benchmarks

``data.py`` makes ``Interactions`` of what comes from here.
"""
