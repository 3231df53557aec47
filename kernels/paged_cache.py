"""Writes to the paged KV cache: storing new tokens in their slots, copying blocks.

kv            (num_blocks, 2, page_size, heads, head_dim): keys and values of one layer
slot          block * page_size + offset, int64; -1 for a token that is not stored
scales        for 8-bit storage: (2, heads), read, or (num_blocks, 2, page_size, heads), written
BLOCK_H, BLOCK_D   heads of a program and their head_dim, padded to powers of two
"""

import triton
import triton.language as tl

from .launch import padded
from .quantization import to_storage


@triton.jit
def _append_kernel(
    k_ptr,
    v_ptr,
    kv_ptr,
    slot_mapping_ptr,
    scales_ptr,
    stride_kt,
    stride_kh,
    stride_vt,
    stride_vh,
    stride_block,
    stride_side,
    stride_slot,
    stride_head,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    LARGEST: tl.constexpr,
    PER_TOKEN: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_mapping_ptr + token)
    if slot < 0:
        return
    block = slot // PAGE_SIZE
    offset = slot % PAGE_SIZE
    offs_h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    offs_d = tl.arange(0, BLOCK_D)
    some_h = offs_h < NUM_HEADS
    some = some_h[:, None] & (offs_d < HEAD_DIM)[None, :]
    for SIDE in tl.static_range(2):
        if SIDE == 0:
            heads = k_ptr + token * stride_kt + offs_h.to(tl.int64) * stride_kh
        else:
            heads = v_ptr + token * stride_vt + offs_h.to(tl.int64) * stride_vh
        x = tl.load(heads[:, None] + offs_d[None, :], mask=some, other=0.0)  # (H, D)
        x = x.to(tl.float32)
        if LARGEST > 0:
            # There is no infinity in 8 bits: it becomes NaN, not a number.
            x = tl.where(tl.abs(x) < float("inf"), x, float("nan"))
            if PER_TOKEN:
                size = tl.max(tl.where(x == x, tl.abs(x), float("inf")), 1)
                scale = tl.div_rn(size, LARGEST + tl.zeros_like(size))
                scale = tl.where(scale == 0, 1.0, scale)
                scale = tl.where(size < float("inf"), scale, float("nan"))
                at = scales_ptr + ((block * 2 + SIDE) * PAGE_SIZE + offset) * NUM_HEADS + offs_h
                tl.store(at, scale, mask=some_h)
            else:
                scale = tl.load(scales_ptr + SIDE * NUM_HEADS + offs_h, mask=some_h, other=1.0)
                scale = tl.where(scale == 0, 1.0, scale)
            x = tl.div_rn(x, tl.broadcast_to(scale[:, None], x.shape))
            x = tl.where(x == x, tl.minimum(tl.maximum(x, -LARGEST), LARGEST), x)
        row = kv_ptr + block * stride_block + SIDE * stride_side + offset * stride_slot
        row += offs_h.to(tl.int64) * stride_head
        x = to_storage(x, kv_ptr.dtype.element_ty)
        tl.store(row[:, None] + offs_d[None, :], x, mask=some)


@triton.jit
def _copy_kernel(kv_ptr, pairs_ptr, stride_pair, stride_end, block_size, BLOCK: tl.constexpr):
    pair = pairs_ptr + tl.program_id(0).to(tl.int64) * stride_pair
    source = tl.load(pair)
    destination = tl.load(pair + stride_end)
    offs = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    some = offs < block_size
    x = tl.load(kv_ptr + source * block_size + offs, mask=some)
    tl.store(kv_ptr + destination * block_size + offs, x, mask=some)


def append(k, v, kv, slot_mapping, scales, largest: float, elements: int) -> None:
    """Store ``k`` and ``v``, (T, H, D), in their slots.

    ``largest`` is the largest number of an 8-bit dtype, 0 for others; e4m3 is passed as uint8.  A
    program stores at most ``elements`` numbers of a token.
    """
    num_tokens, num_heads, head_dim = k.shape
    block_d = padded(head_dim)
    block_h = min(triton.next_power_of_2(num_heads), max(1, elements // block_d))
    _append_kernel[num_tokens, triton.cdiv(num_heads, block_h)](
        *(k, v, kv, slot_mapping, scales),
        *(*k.stride()[:2], *v.stride()[:2], *kv.stride()[:4]),
        NUM_HEADS=num_heads,
        HEAD_DIM=head_dim,
        PAGE_SIZE=kv.shape[2],
        LARGEST=largest,
        PER_TOKEN=scales is not None and scales.ndim == 4,
        BLOCK_H=block_h,
        BLOCK_D=block_d,
    )


def copy_blocks(kv, pairs, elements: int) -> None:
    """Copy contiguous blocks of ``kv``; a program copies ``elements`` numbers."""
    block_size = kv[0].numel()
    _copy_kernel[pairs.shape[0], triton.cdiv(block_size, elements)](
        kv, pairs, *pairs.stride(), block_size, BLOCK=elements
    )
