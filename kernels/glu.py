"""Gated linear units, y = activation(gate) * up (Shazeer 2020, arXiv 2002.05202).

    R, C    rows and columns; gate and up have row strides of their own, so that they may be the
            two halves of one projection

Forward and backward are one pass each, a tile per program; the backward pass recomputes the
activation.
"""

import triton
import triton.language as tl

from .activations import activate, activate_with_slope
from .tiles import load_tile, store_tile, tile_at


@triton.jit(do_not_specialize=["R"])
def _glu_forward_kernel(
    gate_ptr,
    up_ptr,
    y_ptr,
    stride_gate,
    stride_up,
    stride_y,
    R,
    C,
    KIND: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    offs_r, offs_c = tile_at(tl.program_id(0), C, BLOCK_R, BLOCK_C)
    keep = (offs_r < R) & (offs_c < C)
    gate = load_tile(gate_ptr, offs_r, offs_c, stride_gate, keep)
    up = load_tile(up_ptr, offs_r, offs_c, stride_up, keep)
    store_tile(y_ptr, offs_r, offs_c, stride_y, keep, activate(gate, KIND) * up)


@triton.jit(do_not_specialize=["R"])
def _glu_backward_kernel(
    dy_ptr,
    gate_ptr,
    up_ptr,
    dgate_ptr,
    dup_ptr,
    stride_dy,
    stride_gate,
    stride_up,
    stride_dgate,
    stride_dup,
    R,
    C,
    KIND: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    offs_r, offs_c = tile_at(tl.program_id(0), C, BLOCK_R, BLOCK_C)
    keep = (offs_r < R) & (offs_c < C)
    dy = load_tile(dy_ptr, offs_r, offs_c, stride_dy, keep)
    gate = load_tile(gate_ptr, offs_r, offs_c, stride_gate, keep)
    up = load_tile(up_ptr, offs_r, offs_c, stride_up, keep)
    value, slope = activate_with_slope(gate, KIND)
    store_tile(dgate_ptr, offs_r, offs_c, stride_dgate, keep, dy * up * slope)
    store_tile(dup_ptr, offs_r, offs_c, stride_dup, keep, dy * value)


def glu_forward(gate, up, y, kind: str, config) -> None:
    """Fill ``y`` (R, C)."""
    _launch(_glu_forward_kernel, (gate, up, y), kind, config)


def glu_backward(dy, gate, up, dgate, dup, kind: str, config) -> None:
    """Fill ``dgate`` and ``dup`` (R, C)."""
    _launch(_glu_backward_kernel, (dy, gate, up, dgate, dup), kind, config)


def _launch(kernel, matrices, kind, config):
    rows, columns = matrices[0].shape
    tiles = triton.cdiv(rows, config.block_rows) * triton.cdiv(columns, config.block_columns)
    kernel[(tiles,)](
        *matrices,
        *(x.stride(0) for x in matrices),
        *(rows, columns),
        KIND=kind,
        BLOCK_R=config.block_rows,
        BLOCK_C=config.block_columns,
        num_warps=config.num_warps,
    )
