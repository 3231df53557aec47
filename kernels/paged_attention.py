"""Attention over a paged KV cache: one kernel for decoding, chunked prefill and speculation.

PagedAttention (Kwon et al. 2023, arXiv 2309.06180) with keys split among programs, as in
Flash-Decoding (Dao et al. 2023), and the variant stack of `hooks`.

    T, H      tokens of all sequences, packed; query heads, GROUP_SIZE of which share a key head
    M         rows of a tile: BLOCK_M // GROUP_SIZE tokens of a sequence, each with all the heads of
              a group, so that a key is read once for the whole group
    N         keys of a tile; BLOCK_N divides PAGE_SIZE, so that a tile lies in one block
    D         head_dim, padded to BLOCK_D
    S         splits: programs that share the keys of a tile of rows, each writing a partial result

A program computes one tile of rows, one key head and one split.  The combine kernel weights the
partial results of a token and head by their statistics (see `softmax`).
"""

import triton
import triton.language as tl

from .hooks import block_count, block_start, fold_bounds, fold_masks
from .launch import LaunchOptions, padded
from .memory import load_rows
from .numerics import dot, dot_add, round_to
from .quantization import from_storage
from .softmax import LN2, LOG2E, final_scores, finite, log2_sum, online_softmax, oriented


@triton.jit
def _sequence_of(tile, cu_seqlens_q_ptr, num_seqs, TOKENS: tl.constexpr):
    """The sequence that a tile of TOKENS belongs to, by bisection.

    The tiles of sequence b are numbered from ``cu_seqlens_q[b] // TOKENS + b``.  This reserves a
    number for every tile, and for some sequences one number more, whose tile has no rows.
    """
    lo = tile * 0
    hi = lo + num_seqs
    while hi - lo > 1:
        middle = (lo + hi) // 2
        below = tl.load(cu_seqlens_q_ptr + middle) // TOKENS + middle <= tile
        lo = tl.where(below, middle, lo)
        hi = tl.where(below, hi, middle)
    return lo


@triton.jit
def _group_bounds(
    b,
    first_h,
    first,
    last,
    seqlen_q,
    seqlen_k,
    BOUNDS: tl.constexpr,
    mask_args,
    GROUP_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`fold_bounds` of a group of heads: keys that any head sees, and keys that all heads see."""
    lo, hi, full_lo, full_hi = fold_bounds(
        b, first_h, first, last, 0, seqlen_k, seqlen_q, seqlen_k, BOUNDS, mask_args, BLOCK
    )
    if len(BOUNDS) > 0:
        for group in tl.range(1, GROUP_SIZE):
            lo_h, hi_h, full_lo_h, full_hi_h = fold_bounds(
                b,
                first_h + group,
                first,
                last,
                0,
                seqlen_k,
                seqlen_q,
                seqlen_k,
                BOUNDS,
                mask_args,
                BLOCK,
            )
            lo = tl.minimum(lo, lo_h)
            hi = tl.maximum(hi, hi_h)
            full_lo = tl.maximum(full_lo, full_lo_h)
            full_hi = tl.minimum(full_hi, full_hi_h)
    # The bounds of a head that sees no key may lie beyond the keys.
    return lo, tl.minimum(hi, seqlen_k), full_lo, tl.maximum(full_hi, full_lo)


@triton.jit
def _split_bounds(bounds, BLOCK: tl.constexpr):
    """The share of this split in the bounds: consecutive whole tiles, or none if too few remain."""
    lo, hi, full_lo, full_hi = bounds
    first = lo // BLOCK
    end = tl.cdiv(hi, BLOCK)
    share = tl.cdiv(end - first, tl.num_programs(2))
    split_lo = (first + tl.program_id(2) * share) * BLOCK
    split_hi = tl.minimum(split_lo + share * BLOCK, end * BLOCK)
    lo = tl.maximum(lo, split_lo)
    hi = tl.maximum(tl.minimum(hi, split_hi), lo)
    full_lo = tl.minimum(tl.maximum(full_lo, split_lo), split_hi)
    full_hi = tl.minimum(tl.maximum(full_hi, split_lo), split_hi)
    return lo, hi, full_lo, full_hi


@triton.jit(do_not_specialize=["stride_table", "max_blocks", "num_seqs", "num_tokens"])
def _paged_attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    o_ptr,
    lse_ptr,
    stats_ptr,
    scales_ptr,
    block_table_ptr,
    seq_lens_ptr,
    cu_seqlens_q_ptr,
    stride_qt,
    stride_qh,
    stride_block,
    stride_slot,
    stride_head,
    stride_table,
    max_blocks,
    num_seqs,
    num_tokens,
    sm_scale,
    mask_args,
    score_args,
    MASKS: tl.constexpr,
    KEY_BOUNDS: tl.constexpr,
    SCORES: tl.constexpr,
    SCALES: tl.constexpr,
    ONE_TILE: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    TOKENS: tl.constexpr = BLOCK_M // GROUP_SIZE
    tile = (
        tl.num_programs(0) - 1 - tl.program_id(0)
    )  # the last tiles, with the most keys under a causal mask, start first
    off_hk = tl.program_id(1)
    num_kv_heads = tl.num_programs(1)
    if ONE_TILE:
        off_b = tile
        start_m = tile * 0
    else:
        off_b = _sequence_of(tile, cu_seqlens_q_ptr, num_seqs, TOKENS)
        start_m = (tile - tl.load(cu_seqlens_q_ptr + off_b) // TOKENS - off_b) * TOKENS
    start_q = tl.load(cu_seqlens_q_ptr + off_b)
    seqlen_q = tl.load(cu_seqlens_q_ptr + off_b + 1) - start_q
    if start_m >= seqlen_q:
        return
    # Lengths are not checked on a GPU, so never read beyond the row of the block table.
    seqlen_k = tl.minimum(tl.load(seq_lens_ptr + off_b), max_blocks * PAGE_SIZE)
    block_table_ptr += off_b.to(tl.int64) * stride_table
    k_ptr += off_hk.to(tl.int64) * stride_head
    v_ptr += off_hk.to(tl.int64) * stride_head

    offs_r = tl.arange(0, BLOCK_M)
    offs_m = start_m + offs_r // GROUP_SIZE
    exists = (offs_r < TOKENS * GROUP_SIZE) & (offs_m < seqlen_q)
    row = tl.minimum(offs_m, seqlen_q - 1)
    off_h = off_hk * GROUP_SIZE + offs_r % GROUP_SIZE
    offs_d = tl.arange(0, BLOCK_D)
    some = exists[:, None] & (offs_d < HEAD_DIM)[None, :]
    token = (start_q + row).to(tl.int64)
    q = q_ptr + token * stride_qt + off_h.to(tl.int64) * stride_qh
    q = tl.load(q[:, None] + offs_d[None, :], mask=some, other=0.0)  # (M, D)
    if SCALES == "head":
        sm_scale *= tl.load(scales_ptr + off_hk)
    q, unit = oriented(q, sm_scale, SCORES)
    m_i = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l_i = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)

    offset = seqlen_k - seqlen_q
    first = start_m + offset
    last = tl.minimum(start_m + TOKENS, seqlen_q) - 1 + offset
    bounds = _group_bounds(
        off_b,
        off_hk * GROUP_SIZE,
        first,
        last,
        seqlen_q,
        seqlen_k,
        KEY_BOUNDS,
        mask_args,
        GROUP_SIZE,
        BLOCK_N,
    )
    bounds = _split_bounds(bounds, BLOCK_N)
    lo, hi, _, _ = bounds
    for PARTIAL in tl.static_range(2):
        for step in tl.range(block_count(bounds, PARTIAL, BLOCK_N)):
            start_n = block_start(step, bounds, PARTIAL, BLOCK_N)
            offs_n = start_n + tl.arange(0, BLOCK_N)
            page = start_n // PAGE_SIZE
            block = tl.load(block_table_ptr + page).to(tl.int64)
            # The address of position 0 if the whole sequence were contiguous around this block.
            origin = block * stride_block - page.to(tl.int64) * PAGE_SIZE * stride_slot
            k = load_rows(k_ptr + origin, offs_n, stride_slot, lo, hi, HEAD_DIM, BLOCK_D, PARTIAL)
            s = dot(q, tl.trans(from_storage(k, q.dtype)), PRECISION)  # (M, N)
            if SCALES == "token":
                at = scales_ptr + (block * 2 * PAGE_SIZE + offs_n % PAGE_SIZE) * num_kv_heads
                at += off_hk
                real = (offs_n >= lo) & (offs_n < hi)
                s *= tl.load(at, mask=real, other=0.0)[None, :]
                v_scale = tl.load(at + PAGE_SIZE * num_kv_heads, mask=real, other=0.0)

            kv_idx = tl.minimum(offs_n, seqlen_k - 1)[None, :] if PARTIAL else offs_n[None, :]
            at_score = (
                off_b,
                off_h[:, None],
                (row + offset)[:, None],
                kv_idx,
                seqlen_q,
                seqlen_k,
            )
            s = final_scores(s, sm_scale, at_score, SCORES, score_args)
            if PARTIAL:
                keep = ((offs_n >= lo) & (offs_n < hi))[None, :]
                s = tl.where(fold_masks(keep, at_score, MASKS, mask_args), s, float("-inf"))
            m_i, l_i, p, alpha = online_softmax(s, unit, m_i, l_i)
            v = load_rows(v_ptr + origin, offs_n, stride_slot, lo, hi, HEAD_DIM, BLOCK_D, PARTIAL)
            v = from_storage(v, q.dtype)
            if SCALES == "token":
                # Relative to the tile's largest scale, so that weights in fp16 do not underflow.
                largest = tl.max(v_scale, 0)
                largest = tl.where(largest == 0, 1.0, largest)
                p = round_to(p * (v_scale / largest)[None, :], q.dtype)
                acc = acc * alpha[:, None] + dot(p, v, PRECISION) * largest
            else:
                acc = dot_add(round_to(p, q.dtype), v, acc * alpha[:, None], PRECISION)

    if SCALES == "head":
        acc *= tl.load(scales_ptr + num_kv_heads + off_hk)
    l_safe = tl.where(l_i == 0, 1.0, l_i)
    num_heads = num_kv_heads * GROUP_SIZE
    out_row = (tl.program_id(2).to(tl.int64) * num_tokens + token) * num_heads + off_h
    o = round_to(acc / l_safe[:, None], o_ptr.dtype.element_ty)
    tl.store(o_ptr + out_row[:, None] * HEAD_DIM + offs_d[None, :], o, mask=some)
    m = finite(m_i) * unit
    if stats_ptr is None:
        tl.store(lse_ptr + out_row, m + log2_sum(l_i) * LN2, mask=exists)
    else:
        tl.store(stats_ptr + 2 * out_row, m, mask=exists)
        tl.store(stats_ptr + 2 * out_row + 1, log2_sum(l_i), mask=exists)


@triton.jit
def _load_split_stats(stats_ptr, splits, num_splits, row, num_rows):
    """Maximum and log2 of the sum of exponentials of a row in some splits.

    A split in which the row sees no key has the maximum -inf and the sum 0.
    """
    at = stats_ptr + 2 * (splits * num_rows + row)
    m = tl.load(at, mask=splits < num_splits, other=0.0)
    log_sum = tl.load(at + 1, mask=splits < num_splits, other=float("-inf"))
    return tl.where(log_sum == float("-inf"), float("-inf"), m), log_sum


@triton.jit(do_not_specialize=["num_splits"])
def _combine_kernel(
    partial_ptr,
    stats_ptr,
    o_ptr,
    lse_ptr,
    num_splits,
    HEAD_DIM: tl.constexpr,
    MOST_SPLITS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One row (token and head): the mean of its partial results, (S, D).

    The weights are the sums of exponentials relative to the maximum of all splits.
    """
    num_rows = tl.num_programs(0).to(tl.int64)
    row = tl.program_id(0).to(tl.int64)
    splits = tl.arange(0, MOST_SPLITS)
    all_m, all_log_sums = _load_split_stats(stats_ptr, splits, num_splits, row, num_rows)
    most = finite(tl.max(all_m, 0))
    total = tl.sum(tl.exp2((all_m - most) * LOG2E + all_log_sums), 0)
    total_safe = tl.where(total == 0, 1.0, total)

    offs_d = tl.arange(0, BLOCK_D)
    acc = tl.zeros([BLOCK_D], tl.float32)
    for start in tl.range(0, num_splits, BLOCK_S):
        offs_s = start + tl.arange(0, BLOCK_S)
        m, log_sum = _load_split_stats(stats_ptr, offs_s, num_splits, row, num_rows)
        partial = tl.load(
            partial_ptr + (offs_s * num_rows + row)[:, None] * HEAD_DIM + offs_d[None, :],
            mask=(offs_s < num_splits)[:, None] & (offs_d < HEAD_DIM)[None, :],
            other=0.0,
        )  # (S, D)
        acc += tl.sum(tl.exp2((m - most) * LOG2E + log_sum)[:, None] * partial, 0)
    o = round_to(acc / total_safe, o_ptr.dtype.element_ty)
    tl.store(o_ptr + row * HEAD_DIM + offs_d, o, mask=offs_d < HEAD_DIM)
    tl.store(lse_ptr + row, most + log2_sum(total) * LN2)


def paged_attention(
    q,
    k,
    v,
    o,
    lse,
    stats,
    scales,
    block_table,
    seq_lens,
    cu_seqlens_q,
    num_tiles: int,
    one_tile: bool,
    options: LaunchOptions,
) -> None:
    """Fill ``o``, (S, T, H, D), and ``lse``, (T, H), or ``stats``, (S, T, H, 2), if it is not None.

    ``lse`` and ``stats`` are fp32, all three are contiguous; without ``stats``, S is 1.

    ``k`` and ``v``, (num_blocks, page_size, kv_heads, head_dim), have equal strides; e4m3 may be
    passed as uint8.  With ``one_tile``, no sequence has more tokens than a tile, and ``num_tiles``
    is num_seqs; otherwise ``num_tiles`` is num_seqs plus T // (tokens of a tile).
    """
    num_tokens, num_heads, head_dim = q.shape
    page_size, num_kv_heads = k.shape[1:3]
    _paged_attention_kernel[num_tiles, num_kv_heads, o.shape[0]](
        *(q, k, v, o, lse, stats, scales, block_table, seq_lens, cu_seqlens_q),
        *(*q.stride()[:2], *k.stride()[:3]),
        *(block_table.stride(0), block_table.shape[1], block_table.shape[0], num_tokens),
        *(options.sm_scale, options.stack.mask_args, options.stack.score_args),
        MASKS=options.stack.masks,
        KEY_BOUNDS=options.stack.key_bounds,
        SCORES=options.stack.scores,
        SCALES=None if scales is None else "head" if scales.ndim == 2 else "token",
        ONE_TILE=one_tile,
        GROUP_SIZE=num_heads // num_kv_heads,
        PAGE_SIZE=page_size,
        HEAD_DIM=head_dim,
        BLOCK_M=options.config.block_m,
        BLOCK_N=options.config.block_n,
        BLOCK_D=padded(head_dim),
        PRECISION=options.precision,
        num_warps=options.config.num_warps,
        num_stages=options.config.num_stages,
    )


def paged_attention_combine(partial, stats, o, lse) -> None:
    """Combine (S, T, H, D) and (S, T, H, 2), fp32, into (T, H, D) and (T, H); all contiguous."""
    num_splits, head_dim = partial.shape[0], partial.shape[3]
    _combine_kernel[lse.numel(),](
        *(partial, stats, o, lse, num_splits),
        HEAD_DIM=head_dim,
        MOST_SPLITS=triton.next_power_of_2(num_splits),
        BLOCK_S=min(16, triton.next_power_of_2(num_splits)),
        BLOCK_D=padded(head_dim),
        num_warps=2,
    )
