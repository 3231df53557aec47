"""Checks of the arguments of the cross-entropies.

Where PyTorch raises RuntimeError the errors are RuntimeErrors too: code that catches either works.
"""

from __future__ import annotations

from numbers import Integral

import torch

from ...plain import check_plain
from ..checks import ArgumentError, DtypeError, check_floating, check_same_device

REDUCTIONS = ("none", "mean", "sum")
INDICES = (torch.int64, torch.uint8)


def check_like(name: str, x, shape: tuple, other_name: str, other, any_dtype: bool = False) -> None:
    """``x`` floating, of ``shape``, on the device and of the dtype of ``other``."""
    check_floating(name, x, dtype_error=DtypeError)
    if tuple(x.shape) != shape:
        raise ArgumentError(f"{name}: expected shape {shape}, got {tuple(x.shape)}")
    check_same_device(name, x, other_name, other)
    if not any_dtype and x.dtype != other.dtype:
        raise DtypeError(
            f"{name}: expected the dtype of {other_name}, {other.dtype}, got {x.dtype}"
        )


def check_options(ignore_index, reduction, label_smoothing) -> None:
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, (Integral, torch.SymInt)):
        raise TypeError(f"ignore_index: expected an integer, got {type(ignore_index).__name__}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if isinstance(label_smoothing, bool) or not isinstance(label_smoothing, (int, float)):
        raise TypeError(f"label_smoothing: expected a number, got {type(label_smoothing).__name__}")
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"label_smoothing: expected from 0 to 1, got {label_smoothing}")


def check_indices(target, shape: tuple, device: torch.device) -> None:
    """``target``: class indices, one for each of ``shape``."""
    check_plain("target", target)
    if tuple(target.shape) != shape:
        raise ArgumentError(f"target: expected shape {shape}, got {tuple(target.shape)}")
    if target.dtype not in INDICES:
        raise DtypeError(f"target: expected class indices, int64 or uint8, got {target.dtype}")
    if target.device != device:
        raise ArgumentError(
            f"target: expected the device of the logits, {device}, got {target.device}"
        )


def check_cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing) -> None:
    check_floating("input", input, dtype_error=DtypeError)
    check_options(ignore_index, reduction, label_smoothing)
    if input.ndim == 0:
        raise ArgumentError("input: expected (C,), (N, C) or (N, C, ...), got a scalar")
    num_classes = input.shape[min(1, input.ndim - 1)]
    check_plain("target", target)
    if target.shape == input.shape:
        if not target.is_floating_point():
            raise DtypeError(
                "target: expected class probabilities, which have the shape of input, to be "
                f"floating point, got {target.dtype}"
            )
        if ignore_index >= 0:
            raise ArgumentError(
                f"ignore_index: expected none with class probabilities, got {ignore_index}"
            )
    else:
        rows = () if input.ndim == 1 else (input.shape[0], *input.shape[2:])
        if input.ndim == 1 and target.shape == (1,):
            rows = (1,)
        check_indices(target, rows, input.device)
    if weight is not None:
        check_like("weight", weight, (num_classes,), "input", input, any_dtype=True)


def check_range(target, num_classes: int, ignore_index: int) -> None:
    """Every target is a class or ``ignore_index``: IndexError, as in torch.  Reads the targets."""
    wrong = (target != ignore_index) & ((target < 0) | (target >= num_classes))
    if wrong.any():
        raise IndexError(
            f"target: expected class indices from 0 to {num_classes - 1}, or ignore_index "
            f"{ignore_index}, got {target[wrong][0].item()}"
        )
