"""Many trainings and their results: tables with intervals, curves, baselines, and runs in which one thing is changed.

    four_experiments.py  the four experiments, their comparisons and their runs; start reading here
    processes.py         runs of main.py as processes, several at a time
    summary.py           tables: means over seeds, differences with their intervals
    picture.py           the curves of the four experiments
    baselines.py         popularity, means and EASE
    trials.py            trainings that are scored and not written down, several at a time
    ablation.py          the tuned preset without each of its ingredients: python -m study.ablation
    probes.py            tests of the explanations in docs/writeup.md: python -m study.probes
    tuning.py            a search for settings with Optuna: its space, its trials, its study on disk
    workers.py           the processes of a search
    findings.py          the best settings of a search, their importance, a picture

``python experiments.py`` runs the four experiments over several seeds and summarizes them, ``python tune.py`` searches
settings.
"""
