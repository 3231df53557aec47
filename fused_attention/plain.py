"""Refuses tensors whose memory does not hold their values: nested, sparse, subclasses."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

_PLAIN = (torch.Tensor, torch.nn.Parameter)
# What tracing passes in place of plain tensors.
_TRACED = (FakeTensor, FunctionalTensor)


def check_plain(name: str, x, hint: str = "") -> None:
    """``x`` is a dense tensor, and not of a subclass that redefines PyTorch's operations.

    Such a subclass (``DTensor``, ``MaskedTensor``, ``CausalBias``, one of the user) may hold its
    values elsewhere than in its memory, where a kernel would look for them.

    Raises TypeError if ``x`` is not a tensor, otherwise NotImplementedError, naming the type.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if type(x) in _PLAIN:
        dense = not x.is_nested and x.layout == torch.strided
    else:
        with torch._C.DisableTorchFunctionSubclass():
            dense = not x.is_nested and x.layout == torch.strided
    if not dense:
        raise NotImplementedError(
            f"{name}: expected a dense tensor, got a nested or sparse one{hint}"
        )
    if type(x) not in _PLAIN and not isinstance(x, _TRACED) and _redefines_operations(type(x)):
        raise NotImplementedError(
            f"{name}: expected a plain tensor, got a {type(x).__name__}, whose type redefines "
            "PyTorch's operations; convert it first"
        )


def _redefines_operations(kind: type) -> bool:
    function = getattr(kind.__torch_function__, "__func__", kind.__torch_function__)
    inherited = (torch.Tensor.__torch_function__.__func__, torch.nn.Parameter.__torch_function__)
    dispatch = kind.__torch_dispatch__
    return function not in inherited or dispatch is not torch.Tensor.__torch_dispatch__
