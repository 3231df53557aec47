"""Differences between two results, in words, and what rounding allows a hook.

Every result is judged by its largest error: an error of a score counts absolutely.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..variants.base import Variant
from .calls import Call

EPS = torch.finfo(torch.float32).eps
_AXES = ("batch", "head", "query", "key")


def largest(x: torch.Tensor) -> float:
    """The largest absolute value that is finite, 0 if there is none."""
    x = x[x.isfinite()].abs()
    return x.max().item() if x.numel() else 0.0


def difference(found: torch.Tensor, expected: torch.Tensor, allowed: float = 0.0) -> str | None:
    """Where and by how much two results (B, H, M, N) differ most; None if within ``allowed``."""
    found, expected = torch.broadcast_tensors(found.cpu().double(), expected.cpu().double())
    apart = torch.where(found == expected, 0.0, (found - expected).abs()).nan_to_num(nan=torch.inf)
    if not (apart > allowed).any():
        return None
    index = torch.unravel_index(apart.argmax(), apart.shape)
    where = ", ".join(f"{axis} {int(i)}" for axis, i in zip(_AXES, index, strict=False))
    tolerance = f", allowed error {allowed:.2g}" if allowed else ""
    return f"at {where}: expected {_shown(expected[index])}, got {_shown(found[index])}{tolerance}"


def _shown(x: torch.Tensor) -> str:
    return f"{x.item():.7g}"


def rounding(call: Call, twin: Callable, *operands: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The exact result of a hook, and the error that fp32 allows it.

    ``twin(call, *operands)`` computes the hook in PyTorch.  Exact is its result in fp64.  Allowed
    is twice its own error in fp32, one rounding of the largest number that enters or leaves, and
    what the result changes by if every floating operand and argument is off by one rounding: a
    hook whose every step is accurate may differ by that.
    """
    doubled = call.double()
    exact = twin(doubled, *(x.double() for x in operands))
    naive = twin(call, *operands)
    off = Nudge()
    changed = twin(off.call(doubled), *(off(x.double()) for x in operands))
    error, change = (_finite_difference(x, exact) for x in (naive, changed))
    size = max(map(largest, (exact, *operands)))
    return exact, 2 * error + EPS * size + change


def _finite_difference(x, exact) -> float:
    return largest(torch.where(x == exact, 0.0, x.double() - exact))


class Nudge:
    """Moves numbers up or down by one rounding in fp32, at random."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        up = torch.rand(x.shape, generator=self.generator) < 0.5
        return x * torch.where(up, 1 + EPS, 1 - EPS)

    def call(self, call: Call) -> Call:
        """``call`` with its floating arguments moved."""
        moved = call.map(lambda x: self(x) if x.is_floating_point() else x)
        args = (x * (1 + EPS) if isinstance(x, float) else x for x in moved.variant.args)
        return Call(Variant(call.variant.type, tuple(args)), call.shape)
