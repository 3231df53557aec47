"""Memory layout of results, and the dtypes they are accumulated in."""

import torch


def empty_like(
    x: torch.Tensor, last_dim: int | None = None, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Uninitialised (B, H, L, D') in the layout of ``x``: heads inside or outside the sequence."""
    batch, heads, length, head_dim = x.shape
    last_dim = head_dim if last_dim is None else last_dim
    if x.stride(1) < x.stride(2):
        return x.new_empty(batch, length, heads, last_dim, dtype=dtype).transpose(1, 2)
    return x.new_empty(batch, heads, length, last_dim, dtype=dtype)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and statistics: fp64 for fp64 inputs, otherwise fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
