"""Registered operators of LayerNorm (``centered``) and RMSNorm, with and without a residual.

They take matrices, and normalize each row over its columns.
"""

from __future__ import annotations

import math

import torch

from ... import philox
from .. import backend
from ..layout import accumulator
from ..registration import define

_INSTEAD = "the norm of torch.nn.functional"


def default_eps(dtype: torch.dtype) -> float:
    """The eps of RMSNorm in torch."""
    return torch.finfo(accumulator(dtype)).eps


def apply(x, num_dims: int, weight, bias, eps: float, *, centered: bool):
    """The norm over the last ``num_dims`` dimensions, on checked arguments."""
    dtype = result_dtype(x)
    y, _, _ = _norm(as_matrix(x, num_dims), flat(weight), flat(bias), float(eps), centered, dtype)
    return y.view(x.shape)


def apply_add(
    x, residual, num_dims: int, weight, bias, eps: float, dropout_p: float, *, centered: bool
):
    """(norm, sum) of ``residual + dropout(x)``, on checked arguments."""
    seed = philox.new_seed(x.device) if dropout_p > 0 else None
    y, h, _, _ = _add_norm(
        as_matrix(x, num_dims),
        as_matrix(residual, num_dims),
        flat(weight),
        flat(bias),
        float(eps),
        centered,
        float(dropout_p),
        seed,
        result_dtype(x),
    )
    return y.view(x.shape), h.view(x.shape)


def as_matrix(x, num_dims: int):
    """(rows, columns), the last ``num_dims`` dimensions being the columns."""
    shape = x.shape[: x.ndim - num_dims], x.shape[x.ndim - num_dims :]
    return x.reshape(math.prod(shape[0]), math.prod(shape[1]))


def flat(parameter):
    return None if parameter is None else parameter.flatten()


def result_dtype(x) -> torch.dtype:
    """The dtype of x, but fp32 under autocast on CUDA, the only device where it lists norms."""
    autocast = x.is_cuda and torch.is_autocast_enabled("cuda")
    return torch.float32 if autocast and x.dtype != torch.float64 else x.dtype


def _empty_statistics(x, centered):
    num_rows, dtype = x.shape[0], accumulator(x.dtype)
    mean = x.new_empty(num_rows if centered else 0, dtype=dtype)
    return mean, x.new_empty(num_rows, dtype=dtype)


def _norm_forward(x, weight, bias, eps, centered, dtype):
    y = x.new_empty(x.shape, dtype=dtype)
    mean, rstd = _empty_statistics(x, centered)
    backend.of("norm", x).forward(x, None, weight, bias, y, None, mean, rstd, eps, 0.0, None)
    return y, mean, rstd


def _norm_fake(x, weight, bias, eps, centered, dtype):
    return x.new_empty(x.shape, dtype=dtype), *_empty_statistics(x, centered)


def _norm_backward_forward(dy, x, weight, bias, mean, rstd, wanted):
    dx, dweight, dbias = _norm_backward_fake(dy, x, weight, bias, mean, rstd, wanted)
    backend.of("norm", x).backward(
        dy, None, x, weight, mean, rstd, dx, None, dweight, dbias, 0.0, None
    )
    return dx, dweight, dbias


def _norm_backward_fake(dy, x, weight, bias, mean, rstd, wanted):
    return x.new_empty(x.shape), *_empty_parameter_gradients(x, weight, bias, wanted)


def _empty_parameter_gradients(x, weight, bias, wanted):
    """Gradients of weight and bias; without elements if not wanted."""
    return (
        parameter.new_empty(parameter.shape) if want else x.new_empty(0)
        for parameter, want in zip((weight, bias), wanted, strict=True)
    )


def _norm_setup(ctx, inputs, output):
    x, weight, bias, _, _, _ = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, weight, bias, mean, rstd)


def _norm_autograd(ctx, dy, dmean, drstd):
    wanted = list(ctx.needs_input_grad[1:3])
    dx, dweight, dbias = _norm_backward(dy, *ctx.saved_tensors, wanted)
    return dx, *_wanted(dweight, dbias, wanted), None, None, None


def _wanted(dweight, dbias, wanted):
    return (x if want else None for x, want in zip((dweight, dbias), wanted, strict=True))


def _add_norm_forward(x, residual, weight, bias, eps, centered, dropout_p, seed, dtype):
    y, h, mean, rstd = _add_norm_fake(
        x, residual, weight, bias, eps, centered, dropout_p, seed, dtype
    )
    backend.of("norm", x).forward(x, residual, weight, bias, y, h, mean, rstd, eps, dropout_p, seed)
    return y, h, mean, rstd


def _add_norm_fake(x, residual, weight, bias, eps, centered, dropout_p, seed, dtype):
    y, h = x.new_empty(x.shape, dtype=dtype), residual.new_empty(x.shape)
    return y, h, *_empty_statistics(x, centered)


def _add_norm_backward_forward(
    dy, dsum, h, weight, bias, mean, rstd, dropout_p, seed, dtype, wanted
):
    gradients = _add_norm_backward_fake(
        dy, dsum, h, weight, bias, mean, rstd, dropout_p, seed, dtype, wanted
    )
    dx, dresidual, dweight, dbias = gradients
    backend.of("norm", h).backward(
        dy, dsum, h, weight, mean, rstd, dx, dresidual, dweight, dbias, dropout_p, seed
    )
    return gradients


def _add_norm_backward_fake(dy, dsum, h, weight, bias, mean, rstd, dropout_p, seed, dtype, wanted):
    """``dx`` has no elements if it equals ``dresidual``."""
    repeats = seed is None and dtype == h.dtype
    dx = h.new_empty(0 if repeats else h.shape, dtype=dtype)
    return dx, h.new_empty(h.shape), *_empty_parameter_gradients(h, weight, bias, wanted)


def _add_norm_setup(ctx, inputs, output):
    x, _, weight, bias, _, _, dropout_p, seed, _ = inputs
    _, h, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(h, weight, bias, mean, rstd, seed)
    ctx.rest = dropout_p, x.dtype


def _add_norm_autograd(ctx, dy, dsum, dmean, drstd):
    *saved, seed = ctx.saved_tensors
    dropout_p, dtype = ctx.rest
    wanted = list(ctx.needs_input_grad[2:4])
    dy = torch.zeros_like(saved[0]) if dy is None else dy
    dx, dresidual, dweight, dbias = _add_norm_backward(
        dy, dsum, *saved, dropout_p, seed, dtype, wanted
    )
    repeats = seed is None and dtype == dresidual.dtype
    dparameters = _wanted(dweight, dbias, wanted)
    return dresidual if repeats else dx, dresidual, *dparameters, None, None, None, None, None


_norm = define(
    "norm(Tensor x, Tensor? weight, Tensor? bias, float eps, bool centered, ScalarType dtype) "
    "-> (Tensor y, Tensor mean, Tensor rstd)",
    _norm_forward,
    _norm_fake,
    autograd=_norm_autograd,
    setup_context=_norm_setup,
)
_norm_backward = define(
    "norm_backward(Tensor grad_y, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, "
    "Tensor rstd, bool[] wanted) -> (Tensor, Tensor, Tensor)",
    _norm_backward_forward,
    _norm_backward_fake,
    instead=_INSTEAD,
)
_add_norm = define(
    "add_norm(Tensor x, Tensor residual, Tensor? weight, Tensor? bias, float eps, bool centered, "
    "float dropout_p, Tensor? seed, ScalarType dtype) "
    "-> (Tensor y, Tensor sum, Tensor mean, Tensor rstd)",
    _add_norm_forward,
    _add_norm_fake,
    autograd=_add_norm_autograd,
    setup_context=_add_norm_setup,
)
_add_norm_backward = define(
    "add_norm_backward(Tensor grad_y, Tensor? grad_sum, Tensor sum, Tensor? weight, Tensor? bias, "
    "Tensor mean, Tensor rstd, float dropout_p, Tensor? seed, ScalarType dtype, bool[] wanted) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _add_norm_backward_forward,
    _add_norm_backward_fake,
    instead=_INSTEAD,
)
