"""What a fused op promises: the table that tests, compilation and benchmarks are driven by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

SIZES = (1, 7, 64, 100, 1000, 1024, 4096, 5120, 16384, 40000)


class Problem(NamedTuple):
    """``rows`` independent rows (tokens) of ``hidden`` numbers (channels, or the vocabulary)."""

    rows: int
    hidden: int
    dtype: torch.dtype
    device: str
    seed: int = 0

    def normal(self, *shape: int, stream: int = 0, dtype: torch.dtype | None = None):
        """Standard normal numbers; ``stream`` tells the tensors of a problem apart."""
        generator = torch.Generator(self.device).manual_seed(self.seed * 1000 + stream)
        x = torch.randn(shape, generator=generator, device=self.device)
        return x.to(dtype or self.dtype)


@dataclass(frozen=True)
class Case:
    """One fused op beside the PyTorch code it replaces, both called on the same tensors.

    Attributes:
        name: of the op, as in ``fa.<name>`` where nothing distinguishes two cases of one op.
        op: ours; ``op(*inputs)`` returns a tensor or a tuple of tensors.
        reference: PyTorch's own call, or textbook PyTorch where there is none.  In fp64 it is the
            oracle, in the inputs' dtype the naive result and the rival of the benchmarks.
        make_inputs: the tensors of a problem; gradients flow into the floating ones.
        flops: (problem, backward) -> arithmetic, by the textbook count.
        bytes: (problem, backward) -> memory traffic that no implementation avoids.
        liger: the same op of Liger, imported where it is called; None if it has none.
        double_backward: whether the operator's gradient has one itself.
        sizes: hidden sizes it is tested at, those that make sense for it.
    """

    name: str
    op: Callable
    reference: Callable
    make_inputs: Callable[[Problem], tuple[torch.Tensor, ...]]
    flops: Callable[[Problem, bool], int]
    bytes: Callable[[Problem, bool], int]
    liger: Callable | None = None
    double_backward: bool = False
    sizes: tuple[int, ...] = SIZES
