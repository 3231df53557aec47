"""Loading and storing rows of matrices whose columns are contiguous."""

import triton
import triton.language as tl


@triton.jit
def load_rows(
    ptr, offs, stride, lo, hi, DIM: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr
):
    """Rows ``offs``, (rows, BLOCK): 0 in columns from DIM on and, if MASKED, outside [lo, hi)."""
    offs_d = tl.arange(0, BLOCK)
    pointers = ptr + offs[:, None].to(tl.int64) * stride + offs_d[None, :]
    if MASKED:
        keep = (offs >= lo) & (offs < hi)
        return tl.load(pointers, mask=keep[:, None] & (offs_d[None, :] < DIM), other=0.0)
    elif DIM == BLOCK:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask=offs_d[None, :] < DIM, other=0.0)


@triton.jit
def store_rows(ptr, offs, stride, hi, x, DIM: tl.constexpr, BLOCK: tl.constexpr):
    """Store ``x``, (rows, BLOCK), to rows ``offs`` below ``hi`` and columns below DIM."""
    offs_d = tl.arange(0, BLOCK)
    pointers = ptr + offs[:, None].to(tl.int64) * stride + offs_d[None, :]
    tl.store(pointers, x, mask=(offs < hi)[:, None] & (offs_d[None, :] < DIM))
