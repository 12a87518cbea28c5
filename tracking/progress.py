"""The progress bar of a run."""

import shutil
from typing import NoReturn

from tqdm import tqdm

# Short enough that the metrics fit into 80 columns.
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


def progress_bar(epochs: int, done: int, shown: bool) -> "tqdm[NoReturn]":
    """A bar of so many epochs, some of them done; none where the output is not a terminal."""
    columns, lines = shutil.get_terminal_size()  # some terminals report no size to tqdm
    disable = None if shown else True
    return tqdm(total=epochs, initial=done, disable=disable, ncols=columns, nrows=lines, bar_format=BAR)
