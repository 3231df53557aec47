"""GELU: the registered operators, and the public function."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .. import backend
from ..checks import DtypeError, check_floating
from ..layout import pointwise_like
from ..registration import define, refuse_forward_mode
from .checks import check_approximate

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
    check_approximate(approximate)
    check_floating("input", input, dtype_error=DtypeError)
    if not backend.uses_triton(input):
        return F.gelu(input, approximate=approximate)
    refuse_forward_mode("gelu", _INSTEAD, input)
    return _gelu(input, approximate)


def _forward(x, approximate):
    y = pointwise_like(x)
    backend.of("activation", x).gelu_forward(x, y, approximate)
    return y


def _backward(dy, x, approximate):
    dx = pointwise_like(x)
    backend.of("activation", x).gelu_backward(dy, x, dx, approximate)
    return dx


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
