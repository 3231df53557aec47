"""GELU of a sum with a bias: the public function and its registered operators."""

from __future__ import annotations

import torch

from .. import backend
from ..checks import DtypeError, check_floating, check_same_device
from ..registration import define
from ..transforms import refuse_forward_mode
from . import torch_backend
from .checks import check_approximate

_INSTEAD = "torch.nn.functional.gelu of the sum"


def bias_gelu(x: torch.Tensor, bias: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """``gelu(x + bias)`` in one pass, and its gradients in another.

    Args:
        x: (..., columns); fp16, bf16, fp32 or fp64.  Read in place if its rows are contiguous and
            evenly spaced.
        bias: (columns,), floating.
        approximate: "none" (exact) or "tanh", as for `gelu`.

    Returns:
        (..., columns), in the dtype to which PyTorch promotes ``x + bias``.  On a GPU contiguous,
        and the sum is not rounded to that dtype before the activation.

    The gradient of ``bias`` is summed in fp32 and deterministic.  Only ``x`` and ``bias`` are saved
    for the backward pass.

    Raises:
        ValueError: ``bias`` is not (columns,) or on another device, unknown ``approximate``.
        TypeError: not a tensor, or a tensor of integers.
        NotImplementedError: on a GPU, double backward and forward-mode derivatives.
    """
    check_approximate(approximate)
    check_floating("x", x, dtype_error=DtypeError)
    check_floating("bias", bias, dtype_error=DtypeError)
    if x.ndim == 0:
        raise ValueError("x: expected at least 1 dimension (..., columns), got a scalar")
    if bias.shape != x.shape[-1:]:
        raise ValueError(
            f"bias: expected shape {tuple(x.shape[-1:])}, the last dimension of x, "
            f"got {tuple(bias.shape)}"
        )
    check_same_device("bias", bias, "x", x)
    if not backend.uses_triton(x, bias):
        return torch_backend.activate(x + bias, approximate)
    refuse_forward_mode("bias_gelu", _INSTEAD, x, bias)
    return _bias_gelu(x, bias, approximate)


def _forward(x, bias, approximate):
    y = _forward_fake(x, bias, approximate)
    backend.of("activation", y).bias_gelu_forward(x, bias, y, approximate)
    return y


def _forward_fake(x, bias, approximate):
    return x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, bias.dtype))


def _backward(dy, x, bias, approximate):
    dx, dbias = _backward_fake(dy, x, bias, approximate)
    backend.of("activation", dy).bias_gelu_backward(dy, x, bias, dx, dbias, approximate)
    return dx, dbias


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
