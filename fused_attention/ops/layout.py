"""Memory layout of results, and the dtypes they are accumulated in."""

import math

import torch


def empty_like(x: torch.Tensor, last_dim: int) -> torch.Tensor:
    """Uninitialized (B, H, L, last_dim) in the layout of ``x``: positions or heads outermost.

    The layout of an output, as torch's scaled_dot_product_attention chooses it.
    """
    batch, heads, length, _ = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty(batch, length, heads, last_dim).transpose(1, 2)
    return x.new_empty(batch, heads, length, last_dim)


def empty_gradient(x: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Uninitialized (B, H, L, D), contiguous as (B, L, H, D), as projections read gradients."""
    batch, heads, length, head_dim = x.shape
    return x.new_empty(batch, length, heads, head_dim, dtype=dtype).transpose(1, 2)


def laid_out(x: torch.Tensor, like: torch.Tensor, *, gradient: bool = False) -> torch.Tensor:
    """``x`` in the layout of `empty_like` or `empty_gradient` of ``like``; copied if it differs."""
    x = x.to(like.dtype)
    if gradient or like.stride(1) < like.stride(2):
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    return x.contiguous()


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and statistics: fp64 for fp64 inputs, otherwise fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def pointwise_like(x: torch.Tensor) -> torch.Tensor:
    """Uninitialized, laid out as PyTorch lays out a pointwise function of ``x``.

    With the strides of ``x`` if it is dense (contiguous, channels last, any permutation).
    """
    return x.new_empty(x.shape) if x.is_contiguous() else torch.empty_like(x)


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """(rows, columns) with contiguous columns: a view where strides allow, otherwise a copy."""
    x = torch.atleast_2d(x)
    while x.ndim > 2 and x.shape[0] == 1:
        x = x[0]  # keep the stride of a single row: kernels are specialized on it
    if x.ndim > 2:
        x = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()
