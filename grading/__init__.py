"""The parts of ``grader.py``: the rubric, and the processes in which submissions run.

    rubric.py        the lines of the rubric, with their points; start reading here
    checks.py        what the visible lines ask, and compare
    training.py      the checks that train
    compare.py       a submission's arrays beside what is expected
    submissions.py   finding models.py in what a student hands in
    pool.py          grading one submission, several checks at a time
    results.py       what came of it: lines, tables, CSV, JSON
    sandbox.py       where a submission runs
    session.py       asking one of its processes questions
    messages.py      what crosses the border between the two

The hidden lines, which a student's folder lacks:

    hidden.py        the lines, with their points
    equations.py     the checks of equations 1 and 4, and of batches
    gradients.py     the check of which loss teaches which parameters
    oracle.py        what the homework's equations give, in float64

Of the following, which run beside a submission's code, none imports those above but messages.py:

    warden.py        the process that starts and ends a submission's processes
    survey.py        finding out which walls the machine has
    guard.py         a session's processes, and their limits together
    confinement.py   the walls around them; start reading here
    namespaces.py    a wall: a root folder, process numbers and a network of its own
    landlock.py      a wall: rights to files, TCP and signals
    seccomp.py       a wall: system calls given up
    kernel.py        the calls that they are made of
    worker.py        the submission's process: it answers questions with arrays
    arrays.py        what a submission made, as plain arrays
"""
