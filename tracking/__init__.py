"""The written record of a run: its folder, its checkpoint, its metrics, TensorBoard's files.

record.py        everything that is written epoch by epoch; start reading here
folder.py        the owner of a run's folder, and how an older run is kept
checkpoint.py    checkpoint.pt and metrics.csv, whole at every moment
resuming.py      whether a run resumes from its checkpoint, and the line that says so
history.py       the table of all metrics: names, tags, charts; the lines that a run closes with
tensorboard.py   the event file that shows them
projector.py     the items' embeddings, for TensorBoard's PROJECTOR tab
"""
