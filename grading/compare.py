"""Comparing a submission's arrays with the expected ones: ``Wrong``, ``close``, and the output of an MLP's layers.

Parameters are arrays by name ("U", "B", "mlp.0.weight", …), as those of ``worker.Submission.parameters`` are.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

TOLERANCE = 1e-4  # relative and absolute; float32 is good to 1e-6 here


class Wrong(Exception):
    """A submission fails a check; gives the expected value, the value found and the likely cause, if known."""


def close(got: Array, expected: Array) -> bool:
    """All finite and as near as float32 should be."""
    return got.shape == expected.shape and bool(np.isclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE).all())


def mlp(inputs: Array, parameters: Mapping[str, Array], between: Callable[[Array], Array] | None = None) -> Array:
    """Linear layers with ReLUs, or something else, between them: (n, width) → (n,), NaN where they do not fit.

    They are put in the order in which their widths follow each other, not the order in which they were made.
    """
    places = [name.split(".")[1] for name in parameters if name.startswith("mlp.") and name.endswith(".weight")]
    hidden = inputs
    while places:
        fitting = [at for at in places if parameters[f"mlp.{at}.weight"].shape[1:] == hidden.shape[1:]]
        if not fitting:
            return np.full(len(inputs), np.nan)
        places.remove(fitting[0])
        layer = f"mlp.{fitting[0]}"
        weight = parameters[f"{layer}.weight"]
        bias = parameters.get(f"{layer}.bias", np.zeros(len(weight)))
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise Wrong(f"a linear layer has a weight of shape {weight.shape} and a bias of shape {bias.shape}")
        hidden = hidden @ weight.T + bias
        if places:
            hidden = np.maximum(hidden, 0) if between is None else between(hidden)
    return hidden[:, 0] if hidden.shape[1] == 1 else np.full(len(inputs), np.nan)
