"""Attention forward: one program computes BLOCK_M rows of one head, looping over its keys.

FlashAttention-2 (Dao 2023, arXiv 2307.08691), with the variant stack of `hooks`.

    B, H      batch, query heads; GROUP_SIZE query heads share one key head
    M, N      rows of q, keys; the loop runs over tiles of BLOCK_N keys
    D, DV     head_dim of q and k, and of v, padded to the powers of two BLOCK_D and BLOCK_DV
    m_i, l_i  running maximum and running sum of each row's exponentials

A tile of keys is full if every row of the program sees all of it, and needs no mask; the other
visible tiles are partial.  There is one loop for each kind, unrolled from the same source.
"""

import triton
import triton.language as tl

from .dropout import keep_tile
from .grid import head_ptr, query_tile
from .hooks import block_count, block_start, fold_bounds, fold_masks
from .launch import LaunchOptions, strides
from .memory import load_rows, store_rows
from .numerics import dot, dot_add, round_to
from .softmax import (
    LN2,
    final_scores,
    finite,
    log2_sum,
    online_softmax,
    oriented,
    store_stats,
)


@triton.jit
def _attention_forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    o_ptr,
    lse_ptr,
    stats_ptr,
    seed_ptr,
    stride_qb,
    stride_qh,
    stride_qm,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_ob,
    stride_oh,
    stride_om,
    num_heads,
    seqlen_q,
    seqlen_k,
    sm_scale,
    dropout_threshold,
    dropout_scale,
    mask_args,
    score_args,
    MASKS: tl.constexpr,
    KEY_BOUNDS: tl.constexpr,
    SCORES: tl.constexpr,
    DROPOUT: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_V: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    PRECISION: tl.constexpr,
):
    start_m, off_b, off_h, off_hk, off_bh = query_tile(num_heads, seqlen_q, GROUP_SIZE, BLOCK_M)
    q_ptr = head_ptr(q_ptr, off_b, off_h, stride_qb, stride_qh)
    k_ptr = head_ptr(k_ptr, off_b, off_hk, stride_kb, stride_kh)
    v_ptr = head_ptr(v_ptr, off_b, off_hk, stride_vb, stride_vh)
    o_ptr = head_ptr(o_ptr, off_b, off_h, stride_ob, stride_oh)
    lse_ptr += off_bh.to(tl.int64) * seqlen_q
    stats_ptr += 2 * off_bh.to(tl.int64) * seqlen_q

    offset = seqlen_k - seqlen_q
    offs_m = start_m + tl.arange(0, BLOCK_M)
    row = tl.minimum(offs_m, seqlen_q - 1)[:, None]
    q = load_rows(q_ptr, offs_m, stride_qm, 0, seqlen_q, HEAD_DIM, BLOCK_D, True)  # (M, D)
    q, unit = oriented(q, sm_scale, SCORES)
    m_i = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l_i = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)

    first = start_m + offset
    last = tl.minimum(start_m + BLOCK_M, seqlen_q) - 1 + offset
    bounds = fold_bounds(
        off_b, off_h, first, last, 0, seqlen_k, seqlen_q, seqlen_k, KEY_BOUNDS, mask_args, BLOCK_N
    )
    lo, hi, _, _ = bounds
    for PARTIAL in tl.static_range(2):
        for step in tl.range(block_count(bounds, PARTIAL, BLOCK_N)):
            start_n = block_start(step, bounds, PARTIAL, BLOCK_N)
            offs_n = start_n + tl.arange(0, BLOCK_N)
            k = load_rows(k_ptr, offs_n, stride_kn, lo, hi, HEAD_DIM, BLOCK_D, PARTIAL)  # (N, D)
            s = dot(q, tl.trans(k), PRECISION)  # (M, N)

            kv_idx = tl.minimum(offs_n, seqlen_k - 1)[None, :] if PARTIAL else offs_n[None, :]
            at = (off_b, off_h, row + offset, kv_idx, seqlen_q, seqlen_k)
            s = final_scores(s, sm_scale, at, SCORES, score_args)
            if PARTIAL:
                keep = ((offs_n >= lo) & (offs_n < hi))[None, :]
                s = tl.where(fold_masks(keep, at, MASKS, mask_args), s, float("-inf"))
            m_i, l_i, p, alpha = online_softmax(s, unit, m_i, l_i)
            if DROPOUT:
                kept = keep_tile(seed_ptr, off_b, off_h, row, start_n, dropout_threshold, BLOCK_N)
                p = tl.where(kept, p, 0.0)
            v = load_rows(v_ptr, offs_n, stride_vn, lo, hi, HEAD_DIM_V, BLOCK_DV, PARTIAL)
            acc = dot_add(round_to(p, v.dtype), v, acc * alpha[:, None], PRECISION)  # (M, DV)

    l_safe = tl.where(l_i == 0, 1.0, l_i)
    if DROPOUT:
        acc = acc * dropout_scale
    o = round_to(acc / l_safe[:, None], o_ptr.dtype.element_ty)
    store_rows(o_ptr, offs_m, stride_om, seqlen_q, o, HEAD_DIM_V, BLOCK_DV)
    lse = finite(m_i) * unit + log2_sum(l_i) * LN2
    tl.store(lse_ptr + offs_m, lse, mask=offs_m < seqlen_q)
    store_stats(stats_ptr, offs_m, m_i, l_i, offs_m < seqlen_q)


def attention_forward(q, k, v, o, lse, stats, options: LaunchOptions) -> None:
    """Fill ``o`` (B, H, M, DV), ``lse`` (B, H, M) and ``stats`` (B, H, M, 2), fp32, contiguous."""
    batch, num_heads, seqlen_q, _ = q.shape
    grid = (triton.cdiv(seqlen_q, options.config.block_m) * num_heads * batch,)
    _attention_forward_kernel[grid](
        *(q, k, v, o, lse, stats, options.seed),
        *strides(q, k, v, o),
        *(num_heads, seqlen_q, k.shape[2]),
        *options.arguments,
        KEY_BOUNDS=options.stack.key_bounds,
        **options.constants(q, k, v),
    )
