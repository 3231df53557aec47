"""GELU of a sum with a bias: the registered operators, and the public function."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ... import _triton, tuning
from ..layout import accumulator, as_rows
from ..registration import define, refuse_forward_mode
from . import activations

_INSTEAD = "torch.nn.functional.gelu of the sum"


def bias_gelu(x: torch.Tensor, bias: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """``gelu(x + bias)`` in one pass, and its gradients in another.

    Args:
        x: (..., columns); fp16, bf16, fp32 or fp64.  Read in place if its rows are contiguous and
            evenly spaced.
        bias: (columns,), floating.
        approximate: "none" (exact) or "tanh", as for `gelu`.

    Returns:
        (..., columns), in the dtype to which PyTorch promotes ``x + bias``; on a GPU contiguous,
        and the sum is not rounded to it first.

    The gradient of ``bias`` is summed in fp32 and deterministic.  The backward pass keeps ``x``
    and ``bias`` alone.

    Raises:
        ValueError: ``bias`` is not (columns,) or on another device, ``approximate`` is neither.
        TypeError: a tensor of integers, or none at all.
        NotImplementedError: on a GPU, double backward and forward-mode derivatives.
    """
    activations.check_approximate(approximate)
    activations.check_tensor("x", x)
    activations.check_tensor("bias", bias)
    if x.ndim == 0:
        raise ValueError("x: expected at least 1 dimension (..., columns), got a scalar")
    if bias.shape != x.shape[-1:]:
        raise ValueError(
            f"bias: expected shape {tuple(x.shape[-1:])}, the last dimension of x, "
            f"got {tuple(bias.shape)}"
        )
    if bias.device != x.device:
        raise ValueError(f"bias: expected the device of x, {x.device}, got {bias.device}")
    if not (_triton.serves(x) and _triton.serves(bias)):
        return F.gelu(x + bias, approximate=approximate)
    refuse_forward_mode("bias_gelu", _INSTEAD, x, bias)
    return _bias_gelu(x, bias, approximate)


def _forward(x, bias, approximate):
    y = _forward_fake(x, bias, approximate)
    if not _triton.serves(y):
        return y.copy_(F.gelu(x + bias, approximate=approximate))
    from ...kernels.gelu import bias_gelu_forward

    if x.numel() > 0:
        config = tuning.tile(x.shape[-1])
        with torch.cuda.device_of(x):
            bias_gelu_forward(as_rows(x), bias.contiguous(), as_rows(y), approximate, config)
    return y


def _forward_fake(x, bias, approximate):
    return x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, bias.dtype))


def _backward(dy, x, bias, approximate):
    dx, dbias = _backward_fake(dy, x, bias, approximate)
    if not _triton.serves(dy):
        dsum = activations.activation_gradient(dy, x + bias, approximate)
        dbias.copy_(as_rows(dsum).sum(0, dtype=accumulator(dsum.dtype)))
        return dx.copy_(dsum), dbias
    from ...kernels.gelu import bias_gelu_backward

    if x.numel() == 0:
        return dx, dbias.zero_()
    rows = as_rows(x)
    config = tuning.tile(rows.shape[1])
    programs = tuning.reducing_programs(*rows.shape, config)
    partial = x.new_empty(programs, rows.shape[1], dtype=torch.float32)
    with torch.cuda.device_of(x):
        bias_gelu_backward(
            *(as_rows(dy), rows, bias.contiguous(), as_rows(dx), partial), approximate, config
        )
    return dx, dbias.copy_(partial.sum(0))


def _backward_fake(dy, x, bias, approximate):
    return x.new_empty(x.shape), bias.new_empty(bias.shape)


def _setup_context(ctx, inputs, output):
    x, bias, ctx.approximate = inputs
    ctx.save_for_backward(x, bias)


def _autograd(ctx, dy):
    return *_bias_gelu_backward(dy, *ctx.saved_tensors, ctx.approximate), None


_bias_gelu = define(
    "bias_gelu(Tensor x, Tensor bias, str approximate) -> Tensor",
    _forward,
    _forward_fake,
    autograd=_autograd,
    setup_context=_setup_context,
)
_bias_gelu_backward = define(
    "bias_gelu_backward(Tensor grad_out, Tensor x, Tensor bias, str approximate) "
    "-> (Tensor dx, Tensor dbias)",
    _backward,
    _backward_fake,
    instead=_INSTEAD,
)
