"""A fused op as tests, compilation and benchmarks see it: an `OpCase`, and its `OpProblem`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

SIZES = (1, 7, 64, 100, 1000, 1024, 4096, 5120, 16384, 40000)


class OpProblem(NamedTuple):
    """``rows`` independent rows (tokens) of ``hidden`` numbers (channels, or the vocabulary)."""

    rows: int
    hidden: int
    dtype: torch.dtype
    device: str
    seed: int = 0

    def normal(self, *shape: int, stream: int = 0, dtype: torch.dtype | None = None):
        """Standard normal numbers; ``stream`` numbers the tensors of a problem."""
        generator = torch.Generator(self.device).manual_seed(self.seed * 1000 + stream)
        x = torch.randn(shape, generator=generator, device=self.device)
        return x.to(dtype or self.dtype)


@dataclass(frozen=True)
class OpCase:
    """One fused op beside the PyTorch code it replaces, both called on the same tensors.

    Attributes:
        name: ``fa.<name>``, followed by the options where an op has several cases.
        op: this package's call; ``op(*inputs)`` returns a tensor or a tuple of tensors.
        reference: PyTorch's call, or textbook PyTorch where PyTorch has none.  In fp64 it is the
            oracle; in the inputs' dtype it is the naive result and what benchmarks compare with.
        make_inputs: makes the tensors of a problem; the floating ones get gradients.
        flops: (problem, backward) -> number of arithmetic operations, by the textbook count.
        bytes: (problem, backward) -> bytes that any implementation reads and writes.
        liger: Liger's implementation, which imports Liger when called; None if Liger has none.
        double_backward: whether the op can be differentiated twice.
        sizes: the hidden sizes at which the op is tested.
    """

    name: str
    op: Callable
    reference: Callable
    make_inputs: Callable[[OpProblem], tuple[torch.Tensor, ...]]
    flops: Callable[[OpProblem, bool], int]
    bytes: Callable[[OpProblem, bool], int]
    liger: Callable | None = None
    double_backward: bool = False
    sizes: tuple[int, ...] = SIZES


def operations(forward: int, backward: int) -> Callable[[OpProblem, bool], int]:
    """The `flops` of an elementwise op: so many operations a number; erf, exp and tanh are one."""
    return lambda problem, is_backward: (
        (backward if is_backward else forward) * problem.rows * problem.hidden
    )
