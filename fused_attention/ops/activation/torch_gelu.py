"""PyTorch's GELU with a gradient that is right for large numbers too.

PyTorch computes the derivative of the tanh GELU from the square of x, which is infinite beyond
1e19, times a slope of 0: NaN, where the derivative is 1 or 0.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

_FAR = 2.0**60  # its square is finite in fp32 and bf16; fp16 ends below it


def gelu(x: torch.Tensor, approximate: str) -> torch.Tensor:
    """``F.gelu`` with that gradient."""
    right = approximate == "none" or x.dtype == torch.float16 or not _differentiated(x)
    if right or _all_near(x):
        return F.gelu(x, approximate=approximate)
    far = _is_far(x)
    near = F.gelu(x.masked_fill(far, 0), approximate=approximate)
    return torch.where(far, x * (x > 0), near)


def gelu_backward(dy: torch.Tensor, x: torch.Tensor, approximate: str) -> torch.Tensor:
    """dy times the derivative at ``x``."""
    if approximate == "tanh" and x.dtype != torch.float16:
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
