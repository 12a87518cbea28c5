"""The written record of a run: its folder, its checkpoint, its metrics, TensorBoard's files.

record.py        everything that is written epoch by epoch; start reading here
folder.py        a run's folder: its lock, and moving an older run aside
checkpoint.py    checkpoint.pt and metrics.csv, whole at every moment
run_data.py      data.npz: where a run's data are, and the IDs of its users and items
trained.py       a trained run, read from its folder; training that starts from it
resuming.py      the choice between resuming and starting, and the line that announces it
metric_table.py  the table of all metrics: names, tags, charts; the choice of the best epoch
report.py        a run's closing lines
result.py        result.json: the metrics of the end, with the data, the settings and the versions
tensorboard.py   the event file that shows them
projector.py     the items' embeddings, for TensorBoard's PROJECTOR tab
"""
