"""The sources of ratings: releases of MovieLens and files of the user's own.

    source.py      the options that choose the ratings, and how these are read; start reading here
    ratings.py     ratings as arrays, consecutive indices instead of IDs, cache files
    releases.py    releases of MovieLens: archives, digests, places
    download.py    downloads over a network that may be slow, absent or in the way
    reading.py     ratings read from text, and the place of a mistake
    parquet.py     ratings read from Parquet, and the place of a mistake
    layout.py      the layout of a file of ratings: separator, header, columns
    records.py     records of a CSV file with quotation marks
    textfile.py    a text file of any size as blocks of whole lines
    formats.py     packed files, and files that are no text, by their first bytes
    jsonlines.py   JSON Lines as a table
    times.py       times of interactions as numbers
    items.py       titles and genres of items
    synthetic.py   ratings of MovieLens's shape and any size, for tests and benchmarks

``data.py`` makes ``Interactions`` from the ratings.
"""
