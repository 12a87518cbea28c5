from torch import nn


def make_mlp(sizes):
    if len(sizes) == 1:
        return nn.Sequential(nn.Linear(sizes[0], 1))
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), *make_mlp(sizes[1:]))
