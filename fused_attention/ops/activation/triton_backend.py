"""Activations on Triton kernels; every function fills the results it is given.

``kind`` is "silu", or what ``F.gelu`` calls approximate: "none" or "tanh".
"""

from __future__ import annotations

import torch

from ... import tuning
from ...kernels import gelu, glu
from ..layout import as_rows


def gelu_forward(x, y, approximate: str) -> None:
    gelu.gelu_forward(_laid_out(x, y), y, approximate, tuning.pointwise())


def gelu_backward(dy, x, dx, approximate: str) -> None:
    dy, x = _laid_out(dy, dx), _laid_out(x, dx)
    gelu.gelu_backward(dy, x, dx, approximate, tuning.pointwise())


def _laid_out(x, like):
    """``x`` with the strides of ``like``, copied if they differ in a dimension larger than 1."""
    relevant = [a == b for a, b, n in zip(x.stride(), like.stride(), x.shape, strict=True) if n > 1]
    return x if all(relevant) else torch.empty_like(like, dtype=x.dtype).copy_(x)


def bias_gelu_forward(x, bias, y, approximate: str) -> None:
    config = tuning.tile(x.shape[-1])
    gelu.bias_gelu_forward(as_rows(x), bias.contiguous(), as_rows(y), approximate, config)


def bias_gelu_backward(dy, x, bias, dx, dbias, approximate: str) -> None:
    rows = as_rows(x)
    config = tuning.tile(rows.shape[1])
    programs = tuning.reducing_programs(*rows.shape, config)
    partial = x.new_empty(programs, rows.shape[1], dtype=torch.float32)
    dy, bias, dx = as_rows(dy), bias.contiguous(), as_rows(dx)
    gelu.bias_gelu_backward(dy, rows, bias, dx, partial, approximate, config)
    dbias.copy_(partial.sum(0))


def glu_forward(gate, up, y, kind: str) -> None:
    gate, up, y = as_rows(gate), as_rows(up), as_rows(y)
    glu.glu_forward(gate, up, y, kind, tuning.tile(gate.shape[1]))


def glu_backward(dy, gate, up, dgate, dup, kind: str) -> None:
    dy, gate, up = as_rows(dy), as_rows(gate), as_rows(up)
    glu.glu_backward(dy, gate, up, as_rows(dgate), as_rows(dup), kind, tuning.tile(dy.shape[1]))
