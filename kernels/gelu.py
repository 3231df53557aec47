"""GELU of a tensor, and of the rows of a matrix plus a bias; forward and backward.

    numel    elements of a dense tensor, taken in the order they lie in memory
    R, C     rows and columns of the matrix x; the bias is (C,)
    P        programs along the rows in the backward pass with a bias: each loops over its share of
             the row tiles and stores a row of partial sums, (P, C), fp32, which PyTorch adds up

The backward pass recomputes the activation from x, which costs less than loading it.  P depends on
the sizes alone, so the bias gradient is the same on every GPU.
"""

import triton
import triton.language as tl

from .activations import activate, activate_with_slope
from .numerics import round_to
from .tiles import load_tile, store_tile, tile_at


@triton.jit
def _forward_block(x_ptr, y_ptr, offs, keep, KIND: tl.constexpr):
    y = activate(tl.load(x_ptr + offs, mask=keep).to(tl.float32), KIND)
    tl.store(y_ptr + offs, round_to(y, y_ptr.dtype.element_ty), mask=keep)


@triton.jit
def _backward_block(dy_ptr, x_ptr, dx_ptr, offs, keep, KIND: tl.constexpr):
    _, slope = activate_with_slope(tl.load(x_ptr + offs, mask=keep).to(tl.float32), KIND)
    dx = tl.load(dy_ptr + offs, mask=keep).to(tl.float32) * slope
    tl.store(dx_ptr + offs, round_to(dx, dx_ptr.dtype.element_ty), mask=keep)


# Full blocks have no mask: a mask that may end anywhere would prevent vector loads.
@triton.jit(do_not_specialize=["numel"])
def _gelu_forward_kernel(x_ptr, y_ptr, numel, KIND: tl.constexpr, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offs = start + tl.arange(0, BLOCK)
    if start + BLOCK <= numel:
        _forward_block(x_ptr, y_ptr, offs, None, KIND)
    else:
        _forward_block(x_ptr, y_ptr, offs, offs < numel, KIND)


@triton.jit(do_not_specialize=["numel"])
def _gelu_backward_kernel(dy_ptr, x_ptr, dx_ptr, numel, KIND: tl.constexpr, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offs = start + tl.arange(0, BLOCK)
    if start + BLOCK <= numel:
        _backward_block(dy_ptr, x_ptr, dx_ptr, offs, None, KIND)
    else:
        _backward_block(dy_ptr, x_ptr, dx_ptr, offs, offs < numel, KIND)


@triton.jit(do_not_specialize=["R"])
def _bias_gelu_forward_kernel(
    x_ptr,
    bias_ptr,
    y_ptr,
    stride_x,
    stride_y,
    R,
    C,
    KIND: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    offs_r, offs_c = tile_at(tl.program_id(0), C, BLOCK_R, BLOCK_C)
    keep = (offs_r < R) & (offs_c < C)
    bias = tl.load(bias_ptr + offs_c, mask=offs_c < C, other=0.0).to(tl.float32)  # (1, C)
    x = load_tile(x_ptr, offs_r, offs_c, stride_x, keep)  # (R, C)
    store_tile(y_ptr, offs_r, offs_c, stride_y, keep, activate(x + bias, KIND))


@triton.jit(do_not_specialize=["R", "P"])
def _bias_gelu_backward_kernel(
    dy_ptr,
    x_ptr,
    bias_ptr,
    dx_ptr,
    partial_ptr,
    stride_dy,
    stride_x,
    stride_dx,
    R,
    C,
    P,
    KIND: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    first_r, offs_c = tile_at(tl.program_id(0), C, BLOCK_R, BLOCK_C)
    pid_p = tl.program_id(0) // tl.cdiv(C, BLOCK_C)
    bias = tl.load(bias_ptr + offs_c, mask=offs_c < C, other=0.0).to(tl.float32)  # (1, C)
    dbias = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    for tile in tl.range(pid_p, tl.cdiv(R, BLOCK_R), P):
        offs_r = first_r + (tile - pid_p).to(tl.int64) * BLOCK_R
        keep = (offs_r < R) & (offs_c < C)
        x = load_tile(x_ptr, offs_r, offs_c, stride_x, keep)  # (R, C)
        dy = load_tile(dy_ptr, offs_r, offs_c, stride_dy, keep)
        _, slope = activate_with_slope(x + bias, KIND)
        dx = dy * slope
        store_tile(dx_ptr, offs_r, offs_c, stride_dx, keep, dx)
        dbias += dx
    partial = tl.sum(dbias, 0, keep_dims=True)  # (1, C)
    tl.store(partial_ptr + pid_p.to(tl.int64) * C + offs_c, partial, mask=offs_c < C)


def gelu_forward(x, y, kind: str, config) -> None:
    """Fill ``y``; x and y are dense and have the same layout."""
    _gelu_forward_kernel[(triton.cdiv(x.numel(), config.block),)](
        x, y, x.numel(), KIND=kind, BLOCK=config.block, num_warps=config.num_warps
    )


def gelu_backward(dy, x, dx, kind: str, config) -> None:
    """Fill ``dx``; all three are dense and have the same layout."""
    _gelu_backward_kernel[(triton.cdiv(x.numel(), config.block),)](
        dy, x, dx, x.numel(), KIND=kind, BLOCK=config.block, num_warps=config.num_warps
    )


def bias_gelu_forward(x, bias, y, kind: str, config) -> None:
    """Fill ``y`` (R, C) from ``x`` (R, C) and ``bias`` (C,)."""
    rows, columns = x.shape
    tiles = triton.cdiv(rows, config.block_rows) * triton.cdiv(columns, config.block_columns)
    _bias_gelu_forward_kernel[(tiles,)](
        *(x, bias, y, x.stride(0), y.stride(0), rows, columns),
        **_constants(kind, config),
    )


def bias_gelu_backward(dy, x, bias, dx, partial, kind: str, config) -> None:
    """Fill ``dx`` (R, C) and ``partial`` (P, C), fp32, whose rows sum to the bias gradient."""
    rows, columns = x.shape
    programs = partial.shape[0]
    _bias_gelu_backward_kernel[(programs * triton.cdiv(columns, config.block_columns),)](
        *(dy, x, bias, dx, partial),
        *(dy.stride(0), x.stride(0), dx.stride(0)),
        *(rows, columns, programs),
        **_constants(kind, config),
    )


def _constants(kind, config):
    return dict(
        KIND=kind,
        BLOCK_R=config.block_rows,
        BLOCK_C=config.block_columns,
        num_warps=config.num_warps,
    )
