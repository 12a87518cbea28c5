"""The choice between resuming a run from the checkpoint in its folder and starting it in an empty folder."""

import sys
from dataclasses import replace

from tracking.checkpoint import BEST, Checkpoint, Run, load_checkpoint
from tracking.folder import RunFolder, contains_run
from tracking.metric_table import best_epoch
from training.trainer import Trainer


def start(trainer: Trainer, folder: RunFolder | None, run: Run, resume: bool) -> Checkpoint | None:
    """Restore a trainer from the checkpoint in its folder, or make room there for a new run.

    The first of several processes owns the folder and reads the checkpoint; it hands the tensors out.

    Args:
        trainer: configured identically to the trainer of the checkpoint.
        folder: the run's folder; None in all processes except the first.
        run: the description of the run.
        resume: True to resume a run, False to move an earlier run aside.

    Returns:
        The checkpoint; None for a new run.

    Raises:
        ValueError, OSError: the checkpoint cannot be resumed, or the earlier run cannot be moved.
    """
    group, epochs = trainer.group, trainer.settings.epochs
    group.check_same(f"{run} {epochs}")
    with group.agreement():
        found = find_checkpoint(folder, run) if folder is not None and resume else None
    described = group.from_first(None if found is None else replace(found, tensors={}))
    found = found or described
    with group.agreement():
        if found is not None:
            restore(trainer, found)
        if folder is not None and resume:
            announce(folder, run, epochs, found)
        if folder is not None and found is None:
            make_room(folder)
    return found


def restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Restore the state of an identically configured trainer.

    Raises:
        ValueError: the names, shapes or types of the tensors differ from the trainer's.
    """
    trainer.load_state(checkpoint.tensors, len(checkpoint.history), checkpoint.run.device)


def find_checkpoint(folder: RunFolder, run: Run) -> Checkpoint | None:
    """Read the checkpoint that a run resumes from; None if there is none.

    Raises:
        ValueError: the checkpoint or that of the best epoch is damaged, or of a run with other settings or data.
    """
    found = load_checkpoint(folder.path)
    if found is None:
        return None
    if differences := found.run.differences(run):
        said = "; ".join(differences)
        if differences == [found.run.other_data(run)]:
            said += ": give the run's ratings, or another logdir with warm_start"
        raise ValueError(f"{folder.path} holds a run with other settings: {said}")
    if best_epoch(found.metrics) is not None and load_checkpoint(folder.path, BEST) is None:
        raise ValueError(f"{folder.path / BEST}, the run's best epoch, is missing: put it back, or start again")
    return found


def announce(folder: RunFolder, run: Run, epochs: int, found: Checkpoint | None) -> None:
    """Print on stderr where a run resumes, with the reason if its metrics will not be bit-identical.

    Args:
        folder: the run's folder.
        run: the description of the run.
        epochs: the number of epochs in all.
        found: the checkpoint; None if the run starts.
    """
    if found is None:
        print(f"nothing to resume in {folder.path}: starting", file=sys.stderr)
        return
    done = len(found.history)
    ended = "; nothing is left to train" if done >= epochs else ""
    reason = ""
    if (found.run.device, found.run.eager) != (run.device, run.eager):
        reason = "; not bit-identical, because the device or the kind of step differs"
    elif found.run.processes != run.processes:
        reason = "; not bit-identical, because the number of processes differs"
    print(f"resuming {folder.path} after epoch {done - 1}{ended}{reason}", file=sys.stderr)


def make_room(folder: RunFolder) -> None:
    """Move aside a run that the folder holds, and print a line on stderr.

    Raises:
        OSError: the folder cannot be moved.
    """
    if contains_run(folder.path):
        aside = folder.move_aside()
        reason = ", because the folder cannot be renamed" if aside.parent == folder.path else ""
        print(f"{folder.path} holds a run: moved to {aside}{reason}", file=sys.stderr)
