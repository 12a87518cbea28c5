"""What is kept of a run while it goes on: its folder, its checkpoint, its metrics, TensorBoard's file.

    folder.py        who may write to a run's folder, and how an older run is kept; start reading here
    checkpoint.py    checkpoint.pt and metrics.csv, whole at every moment
    saving.py        when the checkpoints are written
    resuming.py      whether a run goes on from its checkpoint, and how it says so
    history.py       the table of all metrics, and the lines that a run closes with
    progress.py      the bar at a terminal
    tensorboard.py   the event file: tags, charts, settings
    projector.py     the items' embeddings, for TensorBoard's PROJECTOR tab

``train.fit`` writes the event file after each epoch, and checkpoints as it goes, through ``saving.Saver``.
"""
