"""Gated linear units: the registered operators, and the public functions."""

from __future__ import annotations

import torch

from ... import _triton, tuning
from ..layout import as_rows
from ..registration import define, refuse_forward_mode
from . import activations


def geglu(gate: torch.Tensor, up: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """``gelu(gate) * up``: the first argument is the one activated.

    Forward and backward in one pass each.  Shazeer 2020, arXiv 2002.05202.

    Args:
        gate, up: tensors of one shape; fp16, bf16, fp32 or fp64.  Halves of one projection, as
            ``gate, up = h.chunk(2, -1)``, are read in place.
        approximate: "none" (exact) or "tanh", as for `gelu`.

    Returns:
        The shape of ``gate``, in the dtype to which PyTorch promotes the product; on a GPU
        contiguous.  The backward pass keeps ``gate`` and ``up`` alone.

    Raises:
        ValueError: shapes or devices differ, ``approximate`` is neither.
        TypeError: a tensor of integers, or none at all.
        NotImplementedError: on a GPU, double backward and forward-mode derivatives.
    """
    activations.check_approximate(approximate)
    return _glu("geglu", gate, up, approximate)


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up``: the first argument is the one activated.  Otherwise as `geglu`."""
    return _glu("swiglu", gate, up, "silu")


def _glu(name, gate, up, kind):
    activations.check_tensor("gate", gate)
    activations.check_tensor("up", up)
    for what, want, got in (
        ("shape", tuple(gate.shape), tuple(up.shape)),
        ("device", gate.device, up.device),
    ):
        if got != want:
            raise ValueError(f"up: expected the {what} of gate, {want}, got {got}")
    if not (_triton.serves(gate) and _triton.serves(up)):
        return activations.activate(gate, kind) * up
    refuse_forward_mode(name, "the PyTorch expression it replaces", gate, up)
    return _operator(gate, up, kind)


def _forward(gate, up, kind):
    y = _forward_fake(gate, up, kind)
    if not _triton.serves(y):
        return y.copy_(activations.activate(gate, kind) * up)
    from ...kernels.glu import glu_forward

    if y.numel() > 0:
        matrices = [as_rows(x) for x in (gate, up, y)]
        with torch.cuda.device_of(y):
            glu_forward(*matrices, kind, tuning.tile(matrices[0].shape[1]))
    return y


def _forward_fake(gate, up, kind):
    return gate.new_empty(gate.shape, dtype=torch.promote_types(gate.dtype, up.dtype))


def _backward(dy, gate, up, kind):
    dgate, dup = _backward_fake(dy, gate, up, kind)
    if not _triton.serves(dy):
        dup.copy_(dy * activations.activate(gate, kind))
        return dgate.copy_(activations.activation_gradient(dy * up, gate.to(dy.dtype), kind)), dup
    from ...kernels.glu import glu_backward

    if dy.numel() > 0:
        matrices = [as_rows(x) for x in (dy, gate, up, dgate, dup)]
        with torch.cuda.device_of(dy):
            glu_backward(*matrices, kind, tuning.tile(matrices[0].shape[1]))
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
