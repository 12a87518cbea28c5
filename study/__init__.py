"""What comes of many runs: tables with intervals, curves, baselines, and experiments with one thing changed.

    four_experiments.py  the four experiments and their runs; start reading here
    processes.py         running many of them, some at a time
    baselines.py         what a trained network has to beat
    summary.py           tables: means over seeds, differences with their intervals
    picture.py           the curves in one picture
    search.py            the search for the flags of --preset tuned: python -m study.search
    ablation.py          the tuned preset without each of its ingredients: python -m study.ablation
    probes.py            the explanations of the write-up put to the test: python -m study.probes

``python experiments.py`` runs them over several seeds and sums them up.
"""
