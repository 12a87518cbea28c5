"""The sources of ratings: releases of MovieLens and files of the user's own.

    source.py      the options that choose the ratings, and how these are read; start reading here
    ratings.py     ratings as arrays; files united, repeated pairs left out
    ids.py         consecutive indices instead of the source's IDs
    cache.py       cache files of ratings
    summary.py     the line that says how ratings were read
    releases.py    releases of MovieLens: archives, digests, places
    download.py    downloads over a network that may be slow, absent or in the way
    reading.py     ratings read from text, and the place of a mistake
    parquet.py     ratings read from Parquet, and the place of a mistake
    quoted.py      ratings read from CSV with quotation marks, and the place of a mistake
    gathering.py   the interactions of a file, gathered block by block
    layout.py      the layout of a file of ratings: separator, columns
    header.py      the header of a file, or the kinds of its columns without one
    cells.py       numbers, missing values, ratings and counts in a cell
    columns.py     the columns of the user, the item and the rating, by usual names or chosen
    records.py     records of a CSV file with quotation marks
    textfile.py    a text file of any size as blocks of whole lines
    formats.py     packed files, and files that are no text, by their first bytes
    jsonlines.py   JSON Lines as a table
    adjacency.py   adjacency lists, a user and the items in each line, as a table
    times.py       times of interactions as numbers
    parts.py       a column that splits a file into sets
    frame.py       interactions from a pandas DataFrame
    items.py       titles and genres of items
    synthetic.py   ratings of MovieLens's shape and any size, for tests and benchmarks

``data.py`` makes ``Interactions`` from the ratings.
"""
