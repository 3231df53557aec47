"""Gated linear units: the public functions and their registered operators."""

from __future__ import annotations

import torch

from .. import backend
from ..checks import DtypeError, check_floating, check_same_device
from ..registration import define
from ..transforms import refuse_forward_mode
from . import torch_backend
from .checks import check_approximate


def geglu(gate: torch.Tensor, up: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """``gelu(gate) * up``: the first argument is the one activated.

    Forward and backward in one pass each.  Shazeer 2020, arXiv 2002.05202.

    Args:
        gate, up: tensors of one shape; fp16, bf16, fp32 or fp64.  Halves of one projection, as
            ``gate, up = h.chunk(2, -1)``, are read in place.
        approximate: "none" (exact) or "tanh", as for `gelu`.

    Returns:
        The shape of ``gate``, in the dtype to which PyTorch promotes the product; on a GPU
        contiguous.  Only ``gate`` and ``up`` are saved for the backward pass.

    Raises:
        ValueError: shapes or devices differ, unknown ``approximate``.
        TypeError: not a tensor, or a tensor of integers.
        NotImplementedError: on a GPU, double backward and forward-mode derivatives.
    """
    check_approximate(approximate)
    return _glu("geglu", gate, up, approximate)


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up``: the first argument is the one activated.  Otherwise as `geglu`."""
    return _glu("swiglu", gate, up, "silu")


def _glu(name, gate, up, kind):
    check_floating("gate", gate, dtype_error=DtypeError)
    check_floating("up", up, dtype_error=DtypeError)
    if gate.shape != up.shape:
        raise ValueError(
            f"up: expected the shape of gate, {tuple(gate.shape)}, got {tuple(up.shape)}"
        )
    check_same_device("up", up, "gate", gate)
    if not backend.uses_triton(gate, up):
        return torch_backend.activate(gate, kind) * up
    refuse_forward_mode(name, "the PyTorch expression it replaces", gate, up)
    return _operator(gate, up, kind)


def _forward(gate, up, kind):
    y = _forward_fake(gate, up, kind)
    backend.of("activation", y).glu_forward(gate, up, y, kind)
    return y


def _forward_fake(gate, up, kind):
    return gate.new_empty(gate.shape, dtype=torch.promote_types(gate.dtype, up.dtype))


def _backward(dy, gate, up, kind):
    dgate, dup = _backward_fake(dy, gate, up, kind)
    backend.of("activation", dy).glu_backward(dy, gate, up, dgate, dup, kind)
    return dgate, dup


def _backward_fake(dy, gate, up, kind):
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.kind = inputs
    ctx.save_for_backward(*tensors)


def _autograd(ctx, dy):
    return *_operator_backward(dy, *ctx.saved_tensors, ctx.kind), None


_operator = define(
    "glu(Tensor gate, Tensor up, str kind) -> Tensor",
    _forward,
    _forward_fake,
    autograd=_autograd,
    setup_context=_setup_context,
)
_operator_backward = define(
    "glu_backward(Tensor grad_out, Tensor gate, Tensor up, str kind) -> (Tensor dgate, Tensor dup)",
    _backward,
    _backward_fake,
    instead="the PyTorch expression it replaces",
)
