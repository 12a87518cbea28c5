"""The step of ``fused.py`` recorded as a CUDA graph and replayed: the CPU starts hundreds of steps at once."""

import torch
from torch import Tensor

from training.fused import FusedStep


class GraphStep(FusedStep):
    """FusedStep's steps, up to ``LONGEST`` at a time, recorded as one CUDA graph: the CPU starts it and waits for none.

    The graph reads and writes the tensors it was recorded with, ``captured``; others are copied there and back.
    """

    name = "CUDA graph"
    LONGEST = 512
    captured: list[tuple[Tensor, ...]] | None = None
    graph: "torch.cuda.CUDAGraph | None" = None

    def _steps(self, batches: list[tuple[Tensor, ...]]) -> None:
        if self.captured is None:
            self.captured = [tuple(x.clone() for x in batch) for batch in batches[: self.LONGEST]]
            self.graph = self._capture()
        captured, done = self.captured, 0
        assert self.graph is not None
        while _shapes(batches[done : done + len(captured)]) == _shapes(captured):
            given = batches[done : done + len(captured)]
            _copy(given, captured)
            self.graph.replay()
            _copy([batch[3:] for batch in captured], [batch[3:] for batch in given])
            done += len(captured)
        super()._steps(batches[done:])

    def _capture(self) -> "torch.cuda.CUDAGraph":
        """Record the graph. That takes real steps first, to set up libraries and workspaces; they are undone."""
        trained = [self.flat, *self.adam[1:4]]
        before = [tensor.clone() for tensor in trained]
        try:
            return self._record()
        finally:
            for tensor, value in zip(trained, before, strict=True):
                tensor.copy_(value)

    def _record(self) -> "torch.cuda.CUDAGraph":
        assert self.captured is not None
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            super()._steps([self.captured[0], self.captured[-1]] * 2)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            super()._steps(self.captured)
        return graph


def _copy(source: list[tuple[Tensor, ...]], target: list[tuple[Tensor, ...]]) -> None:
    torch._foreach_copy_([x for batch in target for x in batch], [x for batch in source for x in batch])


def _shapes(batches: list[tuple[Tensor, ...]]) -> list[torch.Size]:
    return [batch[2].shape for batch in batches]
