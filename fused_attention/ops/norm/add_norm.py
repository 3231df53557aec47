"""Dropout, residual sum and norm in one pass over memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ... import philox
from .. import backend
from ..checks import check_dropout, check_floating
from ..transforms import refuse_forward_mode
from . import checks, operators
from .torch_backend import dropped


def add_layer_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    *,
    dropout_p: float = 0.0,
    prenorm: bool = True,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """``layer_norm(residual + dropout(x))``, and the sum.

    Args:
        x: (..., *normalized_shape), what a layer returned; fp16, bf16, fp32 or fp64.
        residual: of x's shape and device, in x's dtype or in fp32.
        normalized_shape, weight, bias, eps: as for `layer_norm`.
        dropout_p: probability with which an element of x is dropped; the seed comes from the
            default generator of the device.  The mask is never stored.
        prenorm: return (normed, new_residual), for pre-norm blocks; otherwise normed alone, for
            post-norm blocks.

    Returns:
        ``normed`` in the dtype that `layer_norm` returns for x; ``new_residual`` in that of
        residual: bf16 and fp32 for a bf16 ``x`` and an fp32 ``residual``.  The sum is rounded to
        the dtype of ``residual`` before it is normalized, as in unfused code.

    Raises:
        ValueError, TypeError, NotImplementedError: as `layer_norm` does.
    """
    check_floating("x", x)
    checks.check_residual(x, residual)
    checks.check_normalized_shape(x, normalized_shape)
    checks.check_affine(weight, bias, x, normalized_shape)
    checks.check_eps(eps)
    check_dropout(dropout_p)
    if backend.uses_triton(x):
        refuse_forward_mode("add_layer_norm", "layer_norm of a sum", x, residual, weight, bias)
        size = len(normalized_shape)
        normed, total = operators.apply_add(
            x, residual, size, weight, bias, eps, dropout_p, centered=True
        )
    else:
        total = _sum(x, residual, len(normalized_shape), dropout_p)
        weight, bias = (_in_dtype(p, total) for p in (weight, bias))
        normed = F.layer_norm(total, normalized_shape, weight, bias, eps).to(
            operators.result_dtype(x)
        )
    return (normed, total) if prenorm else normed


def add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
    *,
    dropout_p: float = 0.0,
    prenorm: bool = True,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """``rms_norm(residual + dropout(x))``, and the sum.

    Args:
        x, residual, dropout_p, prenorm: as for `add_layer_norm`.
        normalized_shape, weight, eps: as for `rms_norm`; the weight in x's dtype or, for half
            precision, in fp32.

    Returns:
        As `add_layer_norm` does.

    Raises:
        ValueError, TypeError, NotImplementedError: as `layer_norm` does.
    """
    check_floating("x", x)
    checks.check_residual(x, residual)
    checks.check_normalized_shape(x, normalized_shape)
    checks.check_affine(weight, None, x, normalized_shape)
    if eps is not None:
        checks.check_eps(eps)
    check_dropout(dropout_p)
    if backend.uses_triton(x):
        refuse_forward_mode("add_rms_norm", "rms_norm of a sum", x, residual, weight)
        eps = operators.default_eps(x.dtype) if eps is None else eps
        size = len(normalized_shape)
        normed, total = operators.apply_add(
            x, residual, size, weight, None, eps, dropout_p, centered=False
        )
    else:
        total = _sum(x, residual, len(normalized_shape), dropout_p)
        weight = _in_dtype(weight, total)
        normed = F.rms_norm(total, normalized_shape, weight, eps).to(operators.result_dtype(x))
    return (normed, total) if prenorm else normed


def _sum(x, residual, num_dims: int, dropout_p: float):
    """residual + dropout(x); drops the same elements as the kernels."""
    if dropout_p > 0:
        matrix = operators.as_matrix(x, num_dims)
        x = dropped(matrix, dropout_p, philox.new_seed(x.device)).view(x.shape)
    return residual + x


def _in_dtype(parameter, x):
    """``parameter`` as PyTorch's norm of ``x`` takes it: not in half precision if x is fp32."""
    half = parameter is not None and x.dtype == torch.float32
    return parameter.float() if half else parameter
