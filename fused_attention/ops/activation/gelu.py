"""GELU: the public function and its registered operators."""

from __future__ import annotations

import torch

from .. import backend
from ..checks import DtypeError, check_floating
from ..layout import pointwise_like
from ..registration import define
from ..transforms import refuse_forward_mode
from . import torch_backend
from .checks import check_approximate

_INSTEAD = "torch.nn.functional.gelu"


def gelu(input: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """Drop-in for `torch.nn.functional.gelu`; on the CPU it calls that function.

    The gradient of "tanh" is right for every number, where PyTorch's is NaN beyond 1e19.

    Args:
        input: any shape and strides; fp16, bf16, fp32 or fp64.
        approximate: "none" is ``x * Φ(x)``, the exact function; "tanh" is its approximation,
            up to 5e-4 away.  A model needs the one it was trained with.

    Returns:
        The shape and dtype of ``input``, and its memory layout if dense (channels last, say).
        On a GPU computed in fp32 and accurate in the tails: the relative error of fp32 results
        is below 2e-5 until they underflow; PyTorch's results are 0 for ``x < -5.5``.

    Only ``input`` is saved for the backward pass.

    Raises:
        ValueError: unknown ``approximate``; also a RuntimeError, as in PyTorch.
        TypeError: ``input`` is not a tensor, or of integers (then also a NotImplementedError).
        NotImplementedError: on a GPU, double backward and forward-mode derivatives.
    """
    check_approximate(approximate)
    check_floating("input", input, dtype_error=DtypeError)
    if not backend.uses_triton(input):
        return torch_backend.activate(input, approximate)
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
