"""The step of ``steps.py``, three times faster: the same arithmetic with its gradients written out.

``FusedStep`` puts the gradients of ``fused_gradients.py`` together with an updater of ``adam.py``. On a GPU,
``CudaGraph`` starts the operations of hundreds of its steps at once.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from training.adam import Adam, DenseAdam, RowwiseAdam
from training.distributed import ALONE, Group
from training.fused_gradients import Batch, FusedGradients
from training.rehearsal import Way
from training.steps import EagerStep, LossWeights, Triples, joint_loss, rated_in_batches


def ways(lazy: bool, device: torch.device, group: Group) -> list[Way]:
    """List the fast ways of taking the homework's step, the fastest first; lazy: with row-wise Adam."""
    name = "row-wise step" if lazy else "fused step"

    def way(name: str, recorded: bool = False) -> Way:
        return Way(
            name,
            lambda model, adam, weights, rated, _: FusedStep(
                model, adam, weights, lazy, group, recorded, rated.has_gaps
            ),
        )

    if group.size == 1:
        return [way("CUDA graph", recorded=True), way(name)] if device.type == "cuda" else [way(name)]
    shared = way(f"{name} of several processes")
    eager = Way(
        "step of several processes", lambda model, adam, weights, *_: SharedEagerStep(model, adam, weights, group)
    )
    return [shared] if lazy else [shared, eager]


class FusedStep:
    """The step of ``steps.py`` with its gradients by hand; of several processes, each takes its part of a batch.

    ``lazy`` chooses row-wise Adam, ``recorded`` a CUDA graph; with ``has_gaps`` a rating may be missing.
    """

    def __init__(
        self,
        model: nn.Module,
        adam: Adam,
        loss_weights: LossWeights,
        lazy: bool = False,
        group: Group = ALONE,
        recorded: bool = False,
        has_gaps: bool = False,
    ) -> None:
        gradients = FusedGradients(model, adam, loss_weights)
        self.updater = (RowwiseAdam if lazy else DenseAdam)(adam, gradients.table, gradients.bias, gradients.mlp)
        self.gradients, self.group, self.has_gaps = gradients, group, has_gaps
        trained = [adam.flat, adam.first_moment, adam.second_moment, adam.steps_taken]
        self.take = CudaGraph(self.steps, trained).replay if recorded else self.steps

    @torch.inference_mode()
    def run(self, triples: Triples, batch_size: int) -> Tensor:
        sizes = [len(batch) for batch in triples.ratings.split(batch_size)]
        # Each batch's sums of σ(p⁺ − p⁻) and of (r̂ − r)², turned into means at the end of the epoch.
        sums = triples.ratings.new_empty(2, len(sizes))
        self.take(self.gradients.batches(triples, batch_size, sums))
        self.group.add_up(sums)
        means = sums / torch.tensor(sizes, device=sums.device)
        means[0] = 1.0 - means[0]
        if self.has_gaps:
            means[1] = sums[1] / rated_in_batches(triples.ratings, batch_size).clamp(min=1)
        return means.T

    def steps(self, batches: list[Batch]) -> None:
        for batch in batches:
            size = len(batch.ratings)
            rated = (~batch.ratings.isnan()).sum() if self.has_gaps else None
            if self.group.size == 1:
                self.updater.update(self.gradients.of(batch, size, rated))
            else:
                part = self.gradients.of(self.gradients.part(batch, self.group.part(size)), size, rated)
                self.updater.update_together(part, batch.rows, batch.biases, self.group)


class SharedEagerStep(EagerStep):
    """The eager step of several processes: each computes its part of a batch's losses, as a share of their means."""

    def __init__(self, model: nn.Module, adam: Adam, loss_weights: LossWeights, group: Group) -> None:
        super().__init__(model, adam, loss_weights)
        self.gradient, self.group = adam.everything.gradient, group

    def run(self, triples: Triples, batch_size: int) -> Tensor:
        return self.group.add_up(super().run(triples, batch_size))

    def step(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> Tensor:
        part = self.group.part(len(ratings))
        share = len(ratings[part]) / len(ratings)
        rated = ~ratings.isnan()
        rated_share = rated[part].sum() / rated.sum().clamp(min=1)
        losses = torch.zeros(2, device=ratings.device)
        self.optimizer.zero_grad()
        if share > 0:
            factorization, regression = self.losses(users[part], items[part], negatives[part], ratings[part])
            factorization, regression = share * factorization, rated_share * regression
            joint_loss(factorization, regression, self.loss_weights).backward()
            losses = torch.stack([factorization.detach(), regression.detach()]).float()
        self.group.add_up(self.gradient)
        self.optimizer.step()
        return losses


class CudaGraph:
    """Steps on batches, up to ``LONGEST`` at a time, recorded as one CUDA graph: the CPU starts it and waits for none.

    The graph reads and writes the tensors that it was recorded with, ``captured``; others are copied there and back.
    The steps change the tensors ``trained``.
    """

    LONGEST = 512

    def __init__(self, steps: Callable[[list[Batch]], None], trained: list[Tensor]) -> None:
        self.steps, self.trained = steps, trained
        self.captured: list[Batch] = []
        self.graph: torch.cuda.CUDAGraph | None = None

    def replay(self, batches: list[Batch]) -> None:
        """Take the steps by replaying the graph; those left over, or of other shapes, one by one."""
        if self.graph is None:
            self.captured = [Batch(*(x.clone() for x in batch)) for batch in batches[: self.LONGEST]]
            self.graph = self._capture()
        captured, done = self.captured, 0
        while _sizes(batches[done : done + len(captured)]) == _sizes(captured):
            given = batches[done : done + len(captured)]
            _copy(given, captured)
            self.graph.replay()
            _copy([batch[3:] for batch in captured], [batch[3:] for batch in given])
            done += len(captured)
        self.steps(batches[done:])

    def _capture(self) -> "torch.cuda.CUDAGraph":
        """Record the graph. That takes real steps first, to set up libraries and workspaces; they are undone."""
        before = [tensor.clone() for tensor in self.trained]
        try:
            return self._record()
        finally:
            for tensor, value in zip(self.trained, before, strict=True):
                tensor.copy_(value)

    def _record(self) -> "torch.cuda.CUDAGraph":
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.steps([self.captured[0], self.captured[-1]] * 2)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.steps(self.captured)
        return graph


def _sizes(batches: list[Batch]) -> list[int]:
    return [len(batch.ratings) for batch in batches]


def _copy(source: Sequence[tuple[Tensor, ...]], target: Sequence[tuple[Tensor, ...]]) -> None:
    torch._foreach_copy_([x for batch in target for x in batch], [x for batch in source for x in batch])
