"""Activations on PyTorch operations; every function fills the results it is given.

``kind`` is "silu", or what ``F.gelu`` calls approximate: "none" or "tanh".
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..layout import accumulator, as_rows
from . import torch_gelu


def gelu_forward(x, y, approximate: str) -> None:
    y.copy_(activate(x, approximate))


def gelu_backward(dy, x, dx, approximate: str) -> None:
    dx.copy_(_slope_times(dy, x, approximate))


def bias_gelu_forward(x, bias, y, approximate: str) -> None:
    y.copy_(activate(x + bias, approximate))


def bias_gelu_backward(dy, x, bias, dx, dbias, approximate: str) -> None:
    dsum = _slope_times(dy, x + bias, approximate)
    dbias.copy_(as_rows(dsum).sum(0, dtype=accumulator(dsum.dtype)))
    dx.copy_(dsum)


def glu_forward(gate, up, y, kind: str) -> None:
    y.copy_(activate(gate, kind) * up)


def glu_backward(dy, gate, up, dgate, dup, kind: str) -> None:
    dup.copy_(dy * activate(gate, kind))
    dgate.copy_(_slope_times(dy * up, gate.to(dy.dtype), kind))


def activate(x: torch.Tensor, kind: str) -> torch.Tensor:
    """The activation of ``x``, differentiable."""
    return F.silu(x) if kind == "silu" else torch_gelu.gelu(x, kind)


def _slope_times(dy: torch.Tensor, x: torch.Tensor, kind: str) -> torch.Tensor:
    """dy times the derivative of `activate` at ``x``."""
    if kind == "silu":
        return torch.ops.aten.silu_backward(dy, x)
    return torch_gelu.gelu_backward(dy, x, kind)
