"""Autocast for ops that, as matrix products do, compute in its dtype."""

from __future__ import annotations

import torch

# Looked up at import: before torch 2.13 Dynamo cannot trace the call.
_DEVICES = frozenset(
    device
    for device in ("cpu", "cuda", "xpu", "mps", "hpu", "xla", "mtia", "maia", "privateuseone")
    if torch.amp.is_autocast_available(device)
)


def active_dtype(device: str) -> torch.dtype | None:
    """The dtype of autocast on a type of device; None where it is off."""
    on = device in _DEVICES and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None


def cast(*tensors):
    """The tensors in the dtype of autocast; fp64 tensors and other objects are unchanged."""
    return tuple(map(_cast, tensors))


def _cast(x):
    if not (isinstance(x, torch.Tensor) and x.is_floating_point()) or x.dtype == torch.float64:
        return x
    dtype = active_dtype(x.device.type)
    return x if dtype is None else x.to(dtype)
