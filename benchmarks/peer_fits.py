"""Fit the peers of ``peer_models.py`` in their own environment, and judge them as this project is judged."""

import json
import os
import subprocess
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import peer_models
import torch

import data
import metrics

REQUIREMENTS = ["implicit==0.7.2", "scikit-surprise==1.1.5", "cornac==3.0.1", "pandas<4"]


class Result(NamedTuple):
    seconds: float
    mrr: float | None
    mse: float | None


class Given:
    """A fitted peer as ``metrics`` sees it: a matrix of scores."""

    def __init__(self, scores: torch.Tensor) -> None:
        self.scores = scores

    def predict_all_items(self, user_ids: torch.Tensor) -> torch.Tensor:
        return self.scores[user_ids].clone()

    def predict_ratings(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        return self.scores[user_ids, item_ids]


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment of its own in this folder, which is made when it is not there.

    Raises:
        subprocess.CalledProcessError: something cannot be installed.
    """
    folder = Path(__file__).parent / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *requirements]
        subprocess.run(install, check=True, stderr=subprocess.PIPE, text=True)
        (folder / "complete").touch()
    return python


def peers_python() -> Path:
    """The interpreter of the peers' environment."""
    return environment(".peers", REQUIREMENTS)


def reason(error: subprocess.CalledProcessError) -> str:
    """Why it failed, in a line."""
    return ((error.stderr or "").strip() or str(error)).splitlines()[-1]


def fit_peer(
    name: str,
    seed: int,
    sides: tuple[data.Interactions, data.Interactions],
    python: Path,
    settings: Mapping[str, object] = MappingProxyType({}),
) -> Result:
    """Fit a peer on the first of two sides, and judge it on the second.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    train_side, test = sides
    rows = [torch.stack([x.user_ids, x.item_ids, x.ratings.long()], 1).double().numpy() for x in (train_side, test)]
    with tempfile.TemporaryDirectory() as folder:
        split, result = Path(folder) / "split.npz", Path(folder) / "result.npz"
        np.savez(split, train=rows[0], test=rows[1], num_users=test.num_users, num_items=test.num_items)
        arguments = [peer_models.__file__, name, str(seed), str(split), str(result), json.dumps(dict(settings))]
        subprocess.run([python, *arguments], check=True, capture_output=True, text=True)
        with np.load(result) as file:
            seconds, scores, ratings = float(file["seconds"]), torch.from_numpy(file["scores"]), file["ratings"]
    mse = float(((ratings - test.ratings.numpy()) ** 2).mean()) if len(ratings) else None
    return Result(seconds, metrics.mrr_score(Given(scores), test, train_side) if len(scores) else None, mse)
