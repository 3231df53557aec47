"""Checks of the arguments of the norms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...plain import check_plain
from ..checks import ArgumentError, check_floating, check_same_device
from ..layout import accumulator


def check_normalized_shape(x: torch.Tensor, normalized_shape) -> None:
    """``normalized_shape`` is the last dimensions of ``x``, at least one."""
    if not isinstance(normalized_shape, Sequence):
        raise TypeError(
            f"normalized_shape: expected a sequence of ints, got {type(normalized_shape).__name__}"
        )
    size = len(normalized_shape)
    if size == 0:
        raise ArgumentError("normalized_shape: expected at least one dimension, got ()")
    if size > x.ndim or tuple(x.shape[x.ndim - size :]) != tuple(normalized_shape):
        raise ArgumentError(
            f"normalized_shape: expected the last dimensions of x, of shape {tuple(x.shape)}, "
            f"got {tuple(normalized_shape)}"
        )


def check_parameter(name: str, parameter, x, normalized_shape, dtypes: Sequence) -> None:
    """A weight or bias is None, or of shape ``normalized_shape`` and one of ``dtypes``."""
    if parameter is None:
        return
    if not isinstance(parameter, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor or None, got {type(parameter).__name__}")
    check_plain(name, parameter)
    if tuple(parameter.shape) != tuple(normalized_shape):
        raise ArgumentError(
            f"{name}: expected shape {tuple(normalized_shape)}, that of normalized_shape, "
            f"got {tuple(parameter.shape)}"
        )
    check_same_device(name, parameter, "x", x)
    if parameter.dtype not in dtypes:
        expected = " or ".join(dict.fromkeys(str(d).removeprefix("torch.") for d in dtypes))
        raise TypeError(f"{name}: expected dtype {expected}, got {parameter.dtype}")


def check_affine(weight, bias, x, normalized_shape) -> None:
    """The weight is of x's dtype or, for half precision, fp32; the bias like it, or else like x."""
    check_parameter("weight", weight, x, normalized_shape, (x.dtype, accumulator(x.dtype)))
    dtype = x.dtype if weight is None else weight.dtype
    check_parameter("bias", bias, x, normalized_shape, (dtype,))


def check_eps(eps) -> None:
    """``eps`` is a finite number, 0 or more."""
    if isinstance(eps, bool) or not isinstance(eps, (int, float)):
        raise TypeError(f"eps: expected a number, got {type(eps).__name__}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps: expected 0 or a positive number, got {eps}")


def check_residual(x: torch.Tensor, residual) -> None:
    """The residual has x's shape and device, and x's dtype or fp32."""
    check_floating("residual", residual)
    if residual.shape != x.shape:
        raise ArgumentError(
            f"residual: expected the shape of x, {tuple(x.shape)}, got {tuple(residual.shape)}"
        )
    check_same_device("residual", residual, "x", x)
    wide = accumulator(x.dtype)
    if residual.dtype not in (x.dtype, wide):
        expected = f"{x.dtype}, that of x" + ("" if wide == x.dtype else f", or {wide}")
        raise TypeError(f"residual: expected {expected}, got {residual.dtype}")
