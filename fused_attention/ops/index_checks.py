"""Complaints about tensors of indices: token ids, positions."""

from __future__ import annotations

import torch


def check_index_type(name: str, x) -> None:
    """A tensor of int32 or int64."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name}: expected dtype int32 or int64, got {x.dtype}")


def check_index_range(name: str, x: torch.Tensor, count: int, of: str = "") -> None:
    """From 0 to count - 1, where looking waits for no GPU."""
    if readable(x):
        least, most = (value.item() for value in x.aminmax())
        if least < 0 or most >= count:
            raise ValueError(f"{name}: expected 0 to {count - 1}{of}, got {least} to {most}")


def readable(x: torch.Tensor) -> bool:
    """Whether there are values, and known: on the CPU, and not while compiling."""
    plain = x.device.type == "cpu" and type(x) is torch.Tensor and x.numel() > 0
    return plain and not torch.compiler.is_compiling()
