"""PyTorch's GELU on the CPU, right for large numbers too.

Where x is large GELU is x or 0, and its derivative 1 or 0.  PyTorch computes 2x on the way to the
exact GELU, infinite for the largest numbers, and the derivative of the tanh GELU as the square of
x, infinite beyond 1e19, times a slope of 0, which is NaN.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

_FAR = 2.0**60  # its square is finite in fp32 and bf16; fp16 ends below it


def gelu(x: torch.Tensor, approximate: str) -> torch.Tensor:
    """``F.gelu``, finite for finite numbers, as its derivative is."""
    right = approximate == "tanh" and not _differentiated(x)
    if right or x.dtype == torch.float16 or _all_near(x):
        return F.gelu(x, approximate=approximate)
    far = _is_far(x)
    near = F.gelu(x.masked_fill(far, 0), approximate=approximate)
    return torch.where(far, x * (x > 0), near)


def gelu_backward(dy: torch.Tensor, x: torch.Tensor, approximate: str) -> torch.Tensor:
    """dy times the derivative at ``x``."""
    if x.dtype != torch.float16:
        x = torch.where(_is_far(x), x.clamp(-_FAR, _FAR), x)
    return torch.ops.aten.gelu_backward(dy, x, approximate=approximate)


def _is_far(x: torch.Tensor) -> torch.Tensor:
    """Where x is large and finite: what becomes of infinity is for PyTorch to say."""
    return (x.abs() > _FAR) & ~x.isinf()


def _differentiated(x: torch.Tensor) -> bool:
    if _is_traced(x) or torch.autograd.forward_ad._current_level >= 0:
        return True
    return x.requires_grad and torch.is_grad_enabled()


def _all_near(x: torch.Tensor) -> bool:
    """Whether no number is large or NaN, if reading them waits for no GPU and is not traced."""
    if x.device.type != "cpu" or _is_traced(x):
        return False
    return x.numel() == 0 or all(abs(value.item()) <= _FAR for value in x.detach().aminmax())


def _is_traced(x: torch.Tensor) -> bool:
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
    )
