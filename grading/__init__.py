"""The parts of ``grader.py``: the rubric, and the processes in which submissions run."""
