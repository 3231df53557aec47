"""GELU: the registered operators, and the public function."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ... import _triton, tuning
from ..layout import pointwise_like
from ..registration import define, refuse_forward_mode
from . import activations

_INSTEAD = "torch.nn.functional.gelu"


def gelu(input: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """Drop-in for `torch.nn.functional.gelu`; on the CPU that function itself.

    Args:
        input: any shape and strides; fp16, bf16, fp32 or fp64.
        approximate: "none" is ``x * Φ(x)``, the exact function; "tanh" is its approximation,
            up to 5e-4 away.  Models are trained with one or the other: they do not mix.

    Returns:
        The shape and dtype of ``input``, and its layout where that is dense (channels last, say).
        On a GPU computed in fp32, accurate in the tails too: the relative error of fp32 results
        stays below 2e-5 until they underflow, where PyTorch's results for ``x < -5.5`` are 0.

    The backward pass keeps ``input`` alone.

    Raises:
        ValueError: ``approximate`` is neither; it is a RuntimeError too, as PyTorch's.
        TypeError: ``input`` is no tensor, or an integer one (NotImplementedError too).
        NotImplementedError: on a GPU, double backward and forward-mode derivatives.
    """
    activations.check_approximate(approximate)
    activations.check_tensor("input", input)
    if not _triton.serves(input):
        return F.gelu(input, approximate=approximate)
    refuse_forward_mode("gelu", _INSTEAD, input)
    return _gelu(input, approximate)


def _forward(x, approximate):
    y = pointwise_like(x)
    if not _triton.serves(x):
        return y.copy_(F.gelu(x, approximate=approximate))
    from ...kernels.gelu import gelu_forward

    if x.numel() > 0:
        with torch.cuda.device_of(x):
            gelu_forward(_laid_out(x, y), y, approximate, tuning.pointwise())
    return y


def _backward(dy, x, approximate):
    dx = pointwise_like(x)
    if not _triton.serves(x):
        return dx.copy_(activations.activation_gradient(dy, x, approximate))
    from ...kernels.gelu import gelu_backward

    if x.numel() > 0:
        with torch.cuda.device_of(x):
            gelu_backward(_laid_out(dy, dx), _laid_out(x, dx), dx, approximate, tuning.pointwise())
    return dx


def _laid_out(x, like):
    """``x``, copied unless it lies in memory as ``like`` does; strides of size 1 mean nothing."""
    relevant = [a == b for a, b, n in zip(x.stride(), like.stride(), x.shape, strict=True) if n > 1]
    return x if all(relevant) else torch.empty_like(like, dtype=x.dtype).copy_(x)


def _setup_context(ctx, inputs, output):
    x, ctx.approximate = inputs
    ctx.save_for_backward(x)


def _autograd(ctx, dy):
    (x,) = ctx.saved_tensors
    return _gelu_backward(dy, x, ctx.approximate), None


_gelu = define(
    "gelu(Tensor input, str approximate) -> Tensor",
    _forward,
    lambda x, approximate: pointwise_like(x),
    autograd=_autograd,
    setup_context=_setup_context,
)
_gelu_backward = define(
    "gelu_backward(Tensor grad_out, Tensor input, str approximate) -> Tensor",
    _backward,
    lambda dy, x, approximate: pointwise_like(x),
    instead=_INSTEAD,
)
