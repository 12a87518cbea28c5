"""The parts of ``grader.py``: the rubric, and the processes in which submissions run.

    rubric.py        the lines of the rubric, with their points; start reading here
    checks.py        what the lines ask, and compare
    gradients.py     the check of which loss teaches which parameters
    oracle.py        what the homework's equations give, in float64
    submissions.py   finding models.py in what a student hands in
    sandbox.py       where a submission runs
    warden.py        the process that starts and ends a submission's processes
    worker.py        the submission's process: it answers questions with arrays
    messages.py      what crosses the border between the two

What runs beside a submission's code is only worker.py, messages.py and warden.py.
"""
