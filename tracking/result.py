"""The result of a run: result.json, its closing metrics by name, and the data, the settings and the program."""

import json
import math
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cli import VERSION
from cli.files import write_whole
from data import Interactions
from tracking.checkpoint import RESULT, Run
from tracking.metric_table import METRICS, History
from training.splits import Split
from training.trainer import Trainer


def write_result(
    folder: Path, history: History, run: Run, trainer: Trainer, data: dict[str, Any], seconds: float
) -> None:
    """Write ``result.json``, whole.

    Args:
        folder: the run's folder.
        history: the metrics of each epoch and of the end.
        run: the description of the run.
        trainer: the trainer at the end of the run.
        data: the description of the data, as ``data_of`` returns it.
        seconds: the duration of the command.

    Raises:
        OSError: the file cannot be written.
    """
    described = metrics_of(history) | {
        "epoch": history.recommending,
        "epochs": len(history),
        "seconds": round(seconds, 3),
        "seed": trainer.settings.seed,
        **data,
        "settings": asdict(trainer.settings),
        "device": trainer.device.type,
        "processes": trainer.group.size,
        "versions": {
            "program": VERSION,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    write_whole(f"{json.dumps(described, indent=2, allow_nan=False)}\n".encode(), folder / RESULT)


def data_of(run: Run, split: Split, ranked: int) -> dict[str, Any]:
    """Describe the data of a run and its split, for ``result.json``; ``ranked`` is the number of ranked test users."""
    sets = {name: _numbers(part) for name, part in split._asdict().items() if part is not None}
    if ranked < sets["test"]["users"]:
        sets["test"]["ranked"] = ranked
    return {
        "split": _rule(run.settings["split"], split),
        "data": {
            "name": run.dataset,
            "options": run.own,
            "fingerprint": run.data,
            "users": split.train.num_users,
            "items": split.train.num_items,
            **sets,
        },
    }


def metrics_of(history: History) -> dict[str, Any]:
    """Return the metrics of the network that recommends, by name, without those that it lacks."""
    chosen = history[history.recommending]
    validation = {name: getattr(chosen, name) for name, metric in METRICS.items() if metric.when == "validation"}
    return {name: value for name, value in (history.closing | validation).items() if math.isfinite(value)}


def _rule(name: str, split: Split) -> str:
    """Return the rule that the data was split by; "own" for the data's own split."""
    if name != "auto":
        return name
    return "random" if split.train.parts is None else "own"


def _numbers(interactions: Interactions) -> dict[str, int]:
    """Count the users, items and interactions of a set, and the interactions with a rating."""
    return {
        "users": len(interactions.user_ids.unique()),
        "items": len(interactions.item_ids.unique()),
        "interactions": len(interactions),
        "rated": int(interactions.rated.sum()),
    }
