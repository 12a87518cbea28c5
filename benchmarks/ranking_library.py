"""Recall, NDCG and hit rate of ``metrics.ranking_scores`` beside those of ranx (Bassani, ECIR 2022).

    python benchmarks/ranking_library.py                # a minute, the first time with an installation

A network is trained for some epochs on MovieLens 100K; ranx is given each test user's ranking of all items without a
training rating by that user. It runs in an environment of its own, ``benchmarks/.ranx``. The exit status is 1 where a
value differs by more than 1e-6. ranx's mrr is of a user's first test item alone, and not this project's.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import json
import subprocess
import tempfile

import numpy as np
import torch
from peer_fits import environment

import metrics
from cli.arguments import Parser
from main import set_up
from training.flags import parse_arguments

RANX = """
import json, sys
import numpy as np
from ranx import Qrels, Run, evaluate
with np.load(sys.argv[1]) as file:
    scores, pairs = file["scores"], file["pairs"]
names = json.loads(sys.argv[2])
relevant, ranking = {}, {}
for user, item in pairs.tolist():
    relevant.setdefault(f"u{user}", {})[f"i{item}"] = 1
for user in relevant:
    row = scores[int(user[1:])]
    ranking[user] = {f"i{item}": float(row[item]) for item in np.flatnonzero(np.isfinite(row))}
values = evaluate(Qrels(relevant), Run(ranking), names)
print(json.dumps({name: float(values[name]) for name in names}))
"""
CUTOFFS = (1, 5, 10, 50)


def command_line() -> int:
    """Train, evaluate twice, print a table; returns the exit status."""
    parser = Parser(description="Ranking metrics beside ranx's.")
    parser.add_argument("--epochs", type=int, default=20, help="of training (%(default)s)")
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data", help="folder for the data (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = [f"--epochs={options.epochs}", f"--logdir={folder}", f"--data_dir={options.data_dir}", "--device=cpu"]
        own = parse_arguments(flags)
        trainer, (train_side, _, test) = set_up(own)
        for _ in range(own.epochs):
            trainer.run_epoch()
        with torch.no_grad():
            scores = trainer.recommender.predict_all_items(torch.arange(test.num_users))
        scores[train_side.user_ids, train_side.item_ids] = -torch.inf
        np.savez(folder / "ranking.npz", scores=scores, pairs=torch.stack([test.user_ids, test.item_ids], 1))
        names = [f"{metric}@{k}" for k in CUTOFFS for metric in ("recall", "ndcg", "hit_rate")]
        python = environment(".ranx", ["ranx==0.3.21"])
        arguments = [str(python), "-c", RANX, str(folder / "ranking.npz"), json.dumps(names)]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    theirs, agree = json.loads(done.stdout.strip().splitlines()[-1]), True
    print("| | this project | ranx |\n| --- | --- | --- |")
    for k in CUTOFFS:
        ours = metrics.ranking_scores(trainer.recommender, test, train_side, k)
        for metric, value in (("recall", ours.recall), ("ndcg", ours.ndcg), ("hit_rate", ours.hit_rate)):
            print(f"| {metric}@{k} | {value:.6f} | {theirs[f'{metric}@{k}']:.6f} |")
            agree &= abs(value - theirs[f"{metric}@{k}"]) < 1e-6
    return 0 if agree else 1


if __name__ == "__main__":
    command.end(command_line)
