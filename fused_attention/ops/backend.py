"""Which backend computes an op: Triton kernels or PyTorch operations.  Decided here alone.

Every family of ops is a folder with a ``triton_backend`` and a ``torch_backend``, which have the
same functions.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import torch

from .. import _triton


def uses_triton(*tensors: torch.Tensor) -> bool:
    """Whether the kernels compute on such tensors: on a GPU, or interpreted on the CPU.

    fp64 is PyTorch's on every device.
    """
    return _triton.AVAILABLE and all(
        (x.is_cuda or _triton.INTERPRETED) and x.dtype != torch.float64 for x in tensors
    )


def of(family: str, *tensors: torch.Tensor) -> ModuleType:
    """The backend module of a family of ops for such tensors: ``of("norm", x).forward(...)``.

    For an empty tensor there is no kernel to launch: PyTorch's.
    """
    triton = uses_triton(*tensors) and all(x.numel() > 0 for x in tensors)
    return _module(family, "triton" if triton else "torch")


@functools.cache
def _module(family: str, backend: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{family}.{backend}_backend")
