"""What the ops with an activation share: its name, its PyTorch twin, its inputs' checks."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..attention.checks import DTYPES
from ..errors import ArgumentError, DtypeError


def check_approximate(approximate) -> None:
    if approximate not in ("none", "tanh"):
        raise ArgumentError(
            'approximate: approximate argument must be either "none" (exact, by erf) or "tanh", '
            f"got {approximate!r}"
        )


def check_tensor(name: str, x) -> None:
    """A dense tensor of floating dtype."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.layout != torch.strided or x.is_nested:
        raise NotImplementedError(f"{name}: expected a dense tensor, got a nested or sparse one")
    if x.dtype not in DTYPES:
        expected = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise DtypeError(f"{name}: expected dtype {expected}, got {x.dtype}")


def activate(x: torch.Tensor, kind: str) -> torch.Tensor:
    """``kind`` is silu, or what F.gelu calls approximate."""
    return F.silu(x) if kind == "silu" else F.gelu(x, approximate=kind)


def activation_gradient(dy: torch.Tensor, x: torch.Tensor, kind: str) -> torch.Tensor:
    """Of `activate`, at ``x``."""
    if kind == "silu":
        return torch.ops.aten.silu_backward(dy, x)
    return torch.ops.aten.gelu_backward(dy, x, approximate=kind)
