"""Records which of our operators a fused op calls, and forces them where ATen would be used."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fused_attention.ops import backend

from .support import runs_triton

NAMESPACE = "fused_attention"


class Call(NamedTuple):
    operator: torch._ops.OpOverload
    args: tuple
    kwargs: dict

    @property
    def is_gradient(self) -> bool:
        return self.operator._schema.name.endswith("_backward")

    def __str__(self):
        return self.operator._schema.name


class Calls(TorchDispatchMode):
    """Records the calls of our operators while it is active."""

    def __init__(self):
        super().__init__()
        self.calls: list[Call] = []
        self.inside = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace != NAMESPACE:
            return func(*args, **kwargs)
        self.calls.append(Call(func, args, kwargs))
        self.inside = True
        try:
            return func(*args, **kwargs)
        finally:
            self.inside = False


@contextlib.contextmanager
def recorded(monkeypatch, device: str):
    """Yield the list of calls made in the context.

    Without Triton the fused op calls its operators all the same, and they compute with PyTorch.
    """
    calls = Calls()
    with monkeypatch.context() as patch, calls:
        if not runs_triton(device):
            patch.setattr(backend, "uses_triton", lambda *tensors: not calls.inside)
        yield calls.calls


def traced_through_operators(monkeypatch, device: str) -> None:
    """Make tracing record the operators; when run, they compute on the available backend."""
    if not runs_triton(device):
        compiling = torch.compiler.is_compiling
        monkeypatch.setattr(backend, "uses_triton", lambda *tensors: compiling())
