"""Tiles of a matrix of R rows and C columns whose columns are contiguous; rows are strided."""

import triton
import triton.language as tl

from .numerics import round_to


@triton.jit
def tile_at(pid, C, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """Rows (R, 1) and columns (1, C) of tile ``pid``; consecutive tiles are in the same rows."""
    num_tiles = tl.cdiv(C, BLOCK_C)
    offs_r = (pid // num_tiles).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    offs_c = (pid % num_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    return offs_r[:, None], offs_c[None, :]


@triton.jit
def load_tile(ptr, offs_r, offs_c, stride, keep):
    """A tile in fp32; 0 where not ``keep``."""
    return tl.load(ptr + offs_r * stride + offs_c, mask=keep, other=0.0).to(tl.float32)


@triton.jit
def store_tile(ptr, offs_r, offs_c, stride, keep, x):
    """Store ``x``, fp32, rounded to the dtype of the matrix."""
    tl.store(ptr + offs_r * stride + offs_c, round_to(x, ptr.dtype.element_ty), mask=keep)
