"""Where ratings come from: releases, their formats and digests, and how they are fetched.

    source.py      what every source gives; start reading here
    choice.py      which ratings a command is to use: its flags, and what they mean
    movielens.py   MovieLens 100K: its sources, digests and formats
    releases.py    the other releases of MovieLens: archives, digests, formats
    layout.py      how a file of ratings is laid out: separator, header, columns
    reading.py     ratings from a file of any size, and where in it something is wrong
    blocks.py      a file as blocks of whole lines
    parquet.py     ratings from a Parquet file
    titles.py      the items' titles
    coding.py      ids of any kind as numbers from 0; pairs that come twice
    cache.py       ratings that were read once, in a form that is read in seconds
    download.py    fetching a file over a network that may be slow, absent or in the way
    synthetic.py   ratings of the same shape at any size, for tests and benchmarks

``data.py`` makes ``Interactions`` of what comes from here.
"""
