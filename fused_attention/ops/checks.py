"""Argument checks that several families of ops share, and the exceptions they raise.

Every check of an op runs before anything is allocated.  A message names the argument, what was
expected and what was got.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..plain import check_plain

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ArgumentError(ValueError, RuntimeError):
    """A wrong shape, choice or value: a ValueError, and the RuntimeError that PyTorch raises."""


class DtypeError(TypeError, NotImplementedError):
    """An unsupported dtype: a TypeError, and the NotImplementedError that PyTorch raises."""


def check_dense(
    name: str,
    x,
    dtypes: Sequence[torch.dtype],
    *,
    hint: str = "",
    dtype_error: type[TypeError] = TypeError,
) -> None:
    """``x`` is a plain, dense tensor of one of ``dtypes``."""
    check_plain(name, x, hint)
    if x.dtype not in dtypes:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise dtype_error(f"{name}: expected dtype {expected}, got {x.dtype}")


def check_floating(name: str, x, **options) -> None:
    """``x`` is a dense tensor of a floating dtype that the ops compute in."""
    check_dense(name, x, FLOATING, **options)


def check_same_device(name: str, x: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """``x`` is on the device of ``other``."""
    if x.device != other.device:
        raise ArgumentError(
            f"{name}: expected the device of {other_name}, {other.device}, got {x.device}"
        )


def check_scale(scale: float | None) -> None:
    """The scale of the scores is a finite number or None."""
    if scale is None:
        return
    if isinstance(scale, bool) or not isinstance(scale, (int, float, torch.SymFloat)):
        raise TypeError(f"scale: expected a number or None, got {type(scale).__name__}")
    if not -math.inf < scale < math.inf:
        raise ValueError(f"scale: expected a finite number, got {scale}")


def check_dropout(dropout_p: float) -> None:
    """``dropout_p`` is a probability."""
    if isinstance(dropout_p, bool) or not isinstance(dropout_p, (int, float)):
        raise TypeError(f"dropout_p: expected a number, got {type(dropout_p).__name__}")
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p: expected a probability from 0 to 1, got {dropout_p}")


def check_index_type(name: str, x) -> None:
    """``x`` is a tensor of int32 or int64."""
    check_plain(name, x)
    if x.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name}: expected dtype int32 or int64, got {x.dtype}")


def check_index_range(name: str, x: torch.Tensor, count: int, of: str = "") -> None:
    """Indices are from 0 to count - 1.  Checked where reading them does not wait for a GPU."""
    if readable(x):
        least, most = (value.item() for value in x.aminmax())
        if least < 0 or most >= count:
            raise ValueError(f"{name}: expected 0 to {count - 1}{of}, got {least} to {most}")


def readable(x: torch.Tensor) -> bool:
    """Whether the values of ``x`` can be read at once: on the CPU, and not while compiling."""
    plain = x.device.type == "cpu" and type(x) is torch.Tensor and x.numel() > 0
    return plain and not torch.compiler.is_compiling()
