"""The autograder: the rubric, and the processes in which submissions run (``grader.py``).

    rubric.py           the lines of the rubric, with their points; start reading here
    checks.py           the checks of tables, MLP and shapes, and their comparisons
    trained_metrics.py  the checks that train
    submissions.py      a submission's files, read from a file, a folder, a zip or a class's download
    archives.py         the names in folders and zips, within limits
    sources.py          Python source, or the code cells of a notebook
    downloads.py        each student's files in the download of an LMS
    pool.py             one submission's checks, a few at a time
    results.py          results as lines, causes in words, and JSON
    table.py            the table of a class, and the labels of its submissions
    feedback.py         pages for students
    record.py           the files that are written after each submission
    sandbox.py          processes in which submissions run
    session.py          questions to one of these processes, and its answers
    inside/             the files that are copied beside a submission, with the walls around it

The hidden checks, which students do not get:

    hidden.py           the lines, with their points: equations 1 and 4, batches, gradients
    hidden_oracle.py    the equations and their gradients in float64, and the outputs of usual mistakes
    hidden_metrics.py   the equations with trained parameters
"""
