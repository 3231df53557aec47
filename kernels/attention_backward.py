"""Attention backward: the weights are recomputed from each row's statistics; no atomics.

FlashAttention-2 (Dao 2023, arXiv 2307.08691).  Every kernel owns what it writes, so the gradients
are the same bit for bit every time:

    delta   rowsum(dO * O) - dLSE
    dkdv    dK and dV of BLOCK_N keys; loops over the heads of the group and their rows
    dq      dQ of BLOCK_M rows; loops over the keys
    dbias   gradient of a variant's tensor argument, such as a bias: one tile of scores; loops over
            the batch and heads that the argument was broadcast to.  For a table, the contributions
            of the scores of a strip of rows, which PyTorch then adds up

Notation as in `attention_forward`; p are the softmax weights, dp and ds the gradients of the
weights and of the raw scores.  The dkdv kernel holds its tiles transposed, (N, M), so that p and
ds are the left operands of its products.
"""

import triton
import triton.language as tl

from .dropout import keep_tile
from .grid import head_ptr, query_tile
from .hooks import (
    block_count,
    block_start,
    fold_bounds,
    fold_masks,
    fold_score_grads,
    fold_scores,
)
from .launch import LaunchOptions, padded, strides
from .memory import load_rows, store_rows
from .numerics import dot, dot_add, round_to
from .softmax import final_scores, load_stats, unit_of, weights


@triton.jit
def _delta_kernel(
    o_ptr,
    do_ptr,
    dlse_ptr,
    delta_ptr,
    stride_ob,
    stride_oh,
    stride_om,
    stride_dob,
    stride_doh,
    stride_dom,
    num_heads,
    seqlen_q,
    HEAD_DIM_V: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    num_tiles = tl.cdiv(seqlen_q, BLOCK_M)
    pid = tl.program_id(0)
    off_bh = (pid // num_tiles).to(tl.int64)
    off_b = off_bh // num_heads
    off_h = off_bh % num_heads
    offs_m = pid % num_tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    o_ptr += off_b * stride_ob + off_h * stride_oh
    do_ptr += off_b * stride_dob + off_h * stride_doh
    o = load_rows(o_ptr, offs_m, stride_om, 0, seqlen_q, HEAD_DIM_V, BLOCK_DV, True)
    do = load_rows(do_ptr, offs_m, stride_dom, 0, seqlen_q, HEAD_DIM_V, BLOCK_DV, True)
    delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    offs = off_bh * seqlen_q + offs_m
    if dlse_ptr is not None:
        delta -= tl.load(dlse_ptr + offs, mask=offs_m < seqlen_q, other=0.0)
    tl.store(delta_ptr + offs, delta, mask=offs_m < seqlen_q)


@triton.jit
def _dkdv_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    do_ptr,
    stats_ptr,
    delta_ptr,
    dk_ptr,
    dv_ptr,
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
    stride_dob,
    stride_doh,
    stride_dom,
    stride_dkb,
    stride_dkh,
    stride_dkn,
    stride_dvb,
    stride_dvh,
    stride_dvn,
    num_kv_heads,
    seqlen_q,
    seqlen_k,
    sm_scale,
    dropout_threshold,
    dropout_scale,
    mask_args,
    score_args,
    MASKS: tl.constexpr,
    QUERY_BOUNDS: tl.constexpr,
    SCORES: tl.constexpr,
    SCORE_GRADS: tl.constexpr,
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
    num_tiles = tl.cdiv(seqlen_k, BLOCK_N)
    pid = tl.program_id(0)
    start_n = pid % num_tiles * BLOCK_N
    off_b = pid // num_tiles // num_kv_heads
    off_hk = pid // num_tiles % num_kv_heads
    k_ptr = head_ptr(k_ptr, off_b, off_hk, stride_kb, stride_kh)
    v_ptr = head_ptr(v_ptr, off_b, off_hk, stride_vb, stride_vh)
    dk_ptr = head_ptr(dk_ptr, off_b, off_hk, stride_dkb, stride_dkh)
    dv_ptr = head_ptr(dv_ptr, off_b, off_hk, stride_dvb, stride_dvh)

    offset = seqlen_k - seqlen_q
    offs_n = start_n + tl.arange(0, BLOCK_N)
    kv_idx = tl.minimum(offs_n, seqlen_k - 1)[:, None]
    k = load_rows(k_ptr, offs_n, stride_kn, 0, seqlen_k, HEAD_DIM, BLOCK_D, True)  # (N, D)
    v = load_rows(v_ptr, offs_n, stride_vn, 0, seqlen_k, HEAD_DIM_V, BLOCK_DV, True)  # (N, DV)
    unit = unit_of(sm_scale, SCORES)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    last = tl.minimum(start_n + BLOCK_N, seqlen_k) - 1

    for group in tl.range(GROUP_SIZE):
        off_h = off_hk * GROUP_SIZE + group
        off_bh = (off_b * num_kv_heads * GROUP_SIZE + off_h).to(tl.int64)
        q_head = head_ptr(q_ptr, off_b, off_h, stride_qb, stride_qh)
        do_head = head_ptr(do_ptr, off_b, off_h, stride_dob, stride_doh)
        stats_head = stats_ptr + 2 * off_bh * seqlen_q
        delta_head = delta_ptr + off_bh * seqlen_q
        bounds = fold_bounds(
            off_b,
            off_h,
            start_n,
            last,
            offset,
            seqlen_k,
            seqlen_q,
            seqlen_k,
            QUERY_BOUNDS,
            mask_args,
            BLOCK_M,
        )
        for PARTIAL in tl.static_range(2):
            for step in tl.range(block_count(bounds, PARTIAL, BLOCK_M)):
                start_m = block_start(step, bounds, PARTIAL, BLOCK_M)
                offs_m = start_m + tl.arange(0, BLOCK_M)
                row = tl.minimum(offs_m, seqlen_q - 1)
                q = load_rows(q_head, offs_m, stride_qm, 0, seqlen_q, HEAD_DIM, BLOCK_D, PARTIAL)
                s = dot(k, tl.trans(q), PRECISION)  # (N, M)
                at = (off_b, off_h, (row + offset)[None, :], kv_idx, seqlen_q, seqlen_k)
                scores = final_scores(s, sm_scale, at, SCORES, score_args)
                m, log_sum = load_stats(stats_head, offs_m, seqlen_q, unit)
                p = weights(scores, unit, m[None, :], log_sum[None, :])
                if PARTIAL:
                    keep = fold_masks((offs_m < seqlen_q)[None, :], at, MASKS, mask_args)
                    p = tl.where(keep, p, 0.0)
                do = load_rows(
                    do_head, offs_m, stride_dom, 0, seqlen_q, HEAD_DIM_V, BLOCK_DV, PARTIAL
                )
                dp = dot(v, tl.trans(do), PRECISION)  # (N, M)
                p_kept = p
                if DROPOUT:
                    kept = keep_tile(
                        seed_ptr, off_b, off_h, row[:, None], start_n, dropout_threshold, BLOCK_N
                    )
                    scale = tl.trans(tl.where(kept, dropout_scale, 0.0))
                    p_kept = p * scale
                    dp = dp * scale
                dv = dot_add(round_to(p_kept, do.dtype), do, dv, PRECISION)
                delta = tl.load(delta_head + offs_m, mask=offs_m < seqlen_q, other=0.0)
                ds = p * (dp - delta[None, :])
                ds = fold_score_grads(ds, s * sm_scale, at, SCORES, SCORE_GRADS, score_args, 0)
                if PARTIAL:
                    ds = tl.where(keep, ds, 0.0)
                dk = dot_add(round_to(ds, q.dtype), q, dk, PRECISION)

    dk = round_to(dk * sm_scale, dk_ptr.dtype.element_ty)
    dv = round_to(dv, dv_ptr.dtype.element_ty)
    store_rows(dk_ptr, offs_n, stride_dkn, seqlen_k, dk, HEAD_DIM, BLOCK_D)
    store_rows(dv_ptr, offs_n, stride_dvn, seqlen_k, dv, HEAD_DIM_V, BLOCK_DV)


@triton.jit
def _dq_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    do_ptr,
    stats_ptr,
    delta_ptr,
    dq_ptr,
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
    stride_dob,
    stride_doh,
    stride_dom,
    stride_dqb,
    stride_dqh,
    stride_dqm,
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
    SCORE_GRADS: tl.constexpr,
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
    do_ptr = head_ptr(do_ptr, off_b, off_h, stride_dob, stride_doh)
    dq_ptr = head_ptr(dq_ptr, off_b, off_h, stride_dqb, stride_dqh)
    stats_ptr += 2 * off_bh.to(tl.int64) * seqlen_q
    delta_ptr += off_bh.to(tl.int64) * seqlen_q

    offset = seqlen_k - seqlen_q
    offs_m = start_m + tl.arange(0, BLOCK_M)
    row = tl.minimum(offs_m, seqlen_q - 1)[:, None]
    q = load_rows(q_ptr, offs_m, stride_qm, 0, seqlen_q, HEAD_DIM, BLOCK_D, True)  # (M, D)
    do = load_rows(do_ptr, offs_m, stride_dom, 0, seqlen_q, HEAD_DIM_V, BLOCK_DV, True)  # (M, DV)
    unit = unit_of(sm_scale, SCORES)
    m, log_sum = load_stats(stats_ptr, offs_m, seqlen_q, unit)
    delta = tl.load(delta_ptr + offs_m, mask=offs_m < seqlen_q, other=0.0)[:, None]
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)

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
            scores = final_scores(s, sm_scale, at, SCORES, score_args)
            p = weights(scores, unit, m[:, None], log_sum[:, None])
            v = load_rows(v_ptr, offs_n, stride_vn, lo, hi, HEAD_DIM_V, BLOCK_DV, PARTIAL)
            dp = dot(do, tl.trans(v), PRECISION)  # (M, N)
            if DROPOUT:
                kept = keep_tile(seed_ptr, off_b, off_h, row, start_n, dropout_threshold, BLOCK_N)
                dp = tl.where(kept, dp * dropout_scale, 0.0)
            ds = fold_score_grads(
                p * (dp - delta), s * sm_scale, at, SCORES, SCORE_GRADS, score_args, 0
            )
            if PARTIAL:
                keep = ((offs_n >= lo) & (offs_n < hi))[None, :]
                ds = tl.where(fold_masks(keep, at, MASKS, mask_args), ds, 0.0)
            dq = dot_add(round_to(ds, k.dtype), k, dq, PRECISION)

    dq = round_to(dq * sm_scale, dq_ptr.dtype.element_ty)
    store_rows(dq_ptr, offs_m, stride_dqm, seqlen_q, dq, HEAD_DIM, BLOCK_D)


@triton.jit
def _dbias_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    do_ptr,
    stats_ptr,
    delta_ptr,
    dbias_ptr,
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
    stride_dob,
    stride_doh,
    stride_dom,
    stride_db,
    stride_dh,
    stride_dm,
    stride_dn,
    batch,
    num_heads,
    seqlen_q,
    seqlen_k,
    first_m,
    num_tiles_m,
    sm_scale,
    dropout_threshold,
    dropout_scale,
    mask_args,
    score_args,
    MASKS: tl.constexpr,
    KEY_BOUNDS: tl.constexpr,
    SCORES: tl.constexpr,
    SCORE_GRADS: tl.constexpr,
    ARG_GRAD: tl.constexpr,
    INDEX: tl.constexpr,
    SUM_B: tl.constexpr,
    SUM_H: tl.constexpr,
    SUM_M: tl.constexpr,
    SUM_N: tl.constexpr,
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
    """One (M, N) tile of the gradient of the argument of score hook INDEX, from row first_m on.

    A program sums over the batch and heads that the argument was broadcast to.  Where it was
    broadcast over rows or keys, the program stores the sum of its tile, and the launcher adds up
    the tiles.
    """
    pid = tl.program_id(0)
    tile_n = pid % tl.cdiv(seqlen_k, BLOCK_N)
    pid = pid // tl.cdiv(seqlen_k, BLOCK_N)
    tile_m = pid % num_tiles_m
    pid = pid // num_tiles_m
    first_h = 0 if SUM_H else pid % num_heads
    count_h = num_heads if SUM_H else 1
    first_b = 0 if SUM_B else (pid if SUM_H else pid // num_heads)
    count_b = batch if SUM_B else 1

    offset = seqlen_k - seqlen_q
    start_m = first_m + tile_m * BLOCK_M
    start_n = tile_n * BLOCK_N
    offs_m = start_m + tl.arange(0, BLOCK_M)
    offs_n = start_n + tl.arange(0, BLOCK_N)
    row = tl.minimum(offs_m, seqlen_q - 1)[:, None]
    kv_idx = tl.minimum(offs_n, seqlen_k - 1)[None, :]
    first = start_m + offset
    last = tl.minimum(start_m + BLOCK_M, seqlen_q) - 1 + offset
    dbias = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for i in tl.range(count_b * count_h):
        off_b = first_b + i // count_h
        off_h = first_h + i % count_h
        lo, hi, _, _ = fold_bounds(
            off_b,
            off_h,
            first,
            last,
            0,
            seqlen_k,
            seqlen_q,
            seqlen_k,
            KEY_BOUNDS,
            mask_args,
            BLOCK_N,
        )
        if (start_n < hi) & (start_n + BLOCK_N > lo):
            b = off_b.to(tl.int64)
            h = off_h.to(tl.int64)
            head = (b * num_heads + h) * seqlen_q
            q_head = q_ptr + b * stride_qb + h * stride_qh
            k_head = k_ptr + b * stride_kb + h // GROUP_SIZE * stride_kh
            v_head = v_ptr + b * stride_vb + h // GROUP_SIZE * stride_vh
            do_head = do_ptr + b * stride_dob + h * stride_doh
            q = load_rows(q_head, offs_m, stride_qm, 0, seqlen_q, HEAD_DIM, BLOCK_D, True)
            k = load_rows(k_head, offs_n, stride_kn, lo, hi, HEAD_DIM, BLOCK_D, True)
            v = load_rows(v_head, offs_n, stride_vn, lo, hi, HEAD_DIM_V, BLOCK_DV, True)
            do = load_rows(do_head, offs_m, stride_dom, 0, seqlen_q, HEAD_DIM_V, BLOCK_DV, True)
            m, log_sum = load_stats(stats_ptr + 2 * head, offs_m, seqlen_q, 1.0)
            delta = tl.load(delta_ptr + head + offs_m, mask=offs_m < seqlen_q, other=0.0)[:, None]
            s = dot(q, tl.trans(k), PRECISION)  # (M, N)
            at = (off_b, off_h, row + offset, kv_idx, seqlen_q, seqlen_k)
            scores = final_scores(s, sm_scale, at, SCORES, score_args)
            p = weights(scores, 1.0, m[:, None], log_sum[:, None])
            s = s * sm_scale
            dp = dot(do, tl.trans(v), PRECISION)  # (M, N)
            if DROPOUT:
                kept = keep_tile(seed_ptr, off_b, off_h, row, start_n, dropout_threshold, BLOCK_N)
                dp = tl.where(kept, dp * dropout_scale, 0.0)
            ds = fold_score_grads(
                p * (dp - delta), s, at, SCORES, SCORE_GRADS, score_args, INDEX + 1
            )
            s_in = fold_scores(s, at, SCORES, score_args, INDEX)
            contribution = ARG_GRAD(ds, s_in, *at, score_args[INDEX])
            keep = (offs_m < seqlen_q)[:, None] & ((offs_n >= lo) & (offs_n < hi))[None, :]
            dbias += tl.where(fold_masks(keep, at, MASKS, mask_args), contribution, 0.0)

    dbias_ptr += (0 if SUM_B else first_b.to(tl.int64) * stride_db) + (
        0 if SUM_H else first_h.to(tl.int64) * stride_dh
    )
    at_m = (offs_m - first_m).to(tl.int64) * stride_dm
    at_n = offs_n.to(tl.int64) * stride_dn
    tile = tile_m.to(tl.int64) * stride_dm
    if SUM_M and SUM_N:
        tl.store(dbias_ptr + tile + tile_n * stride_dn, tl.sum(tl.sum(dbias, 1), 0))
    elif SUM_M:
        tl.store(dbias_ptr + tile + at_n, tl.sum(dbias, 0), mask=offs_n < seqlen_k)
    elif SUM_N:
        tl.store(dbias_ptr + at_m + tile_n * stride_dn, tl.sum(dbias, 1), mask=offs_m < seqlen_q)
    else:
        inside = (offs_m < seqlen_q)[:, None] & (offs_n < seqlen_k)[None, :]
        tl.store(dbias_ptr + at_m[:, None] + at_n[None, :], dbias, mask=inside)


def attention_delta(o, do, dlse, delta, config) -> None:
    """Fill ``delta`` (B, H, M), fp32, contiguous, with rowsum(dO * O) - dLSE."""
    batch, num_heads, seqlen_q, head_dim_v = o.shape
    grid = (triton.cdiv(seqlen_q, config.block_m) * num_heads * batch,)
    _delta_kernel[grid](
        *(o, do, dlse, delta),
        *strides(o, do),
        *(num_heads, seqlen_q),
        HEAD_DIM_V=head_dim_v,
        BLOCK_M=config.block_m,
        BLOCK_DV=padded(head_dim_v),
        num_warps=config.num_warps,
    )


def attention_dkdv(q, k, v, do, stats, delta, dk, dv, options: LaunchOptions) -> None:
    """Fill ``dk`` (B, K, N, D) and ``dv`` (B, K, N, DV); K key heads."""
    batch, num_kv_heads, seqlen_k, _ = k.shape
    grid = (triton.cdiv(seqlen_k, options.config.block_n) * num_kv_heads * batch,)
    _dkdv_kernel[grid](
        *(q, k, v, do, stats, delta, dk, dv, options.seed),
        *strides(q, k, v, do, dk, dv),
        *(num_kv_heads, q.shape[2], seqlen_k),
        *options.arguments,
        QUERY_BOUNDS=options.stack.query_bounds,
        SCORE_GRADS=options.stack.score_grads,
        **options.constants(q, k, v),
    )


def attention_dq(q, k, v, do, stats, delta, dq, options: LaunchOptions) -> None:
    """Fill ``dq`` (B, H, M, D)."""
    batch, num_heads, seqlen_q, _ = q.shape
    grid = (triton.cdiv(seqlen_q, options.config.block_m) * num_heads * batch,)
    _dq_kernel[grid](
        *(q, k, v, do, stats, delta, dq, options.seed),
        *strides(q, k, v, do, dq),
        *(num_heads, seqlen_q, k.shape[2]),
        *options.arguments,
        KEY_BOUNDS=options.stack.key_bounds,
        SCORE_GRADS=options.stack.score_grads,
        **options.constants(q, k, v),
    )


def attention_dbias(
    q, k, v, do, stats, delta, shape, rows: slice, index: int, options: LaunchOptions
):
    """The gradient, fp32, of the argument of score hook ``index``, 4-D, of shape ``shape``.

    Of ``rows`` only, which begin and, unless they are the last, end at a multiple of block_m.
    """
    full = (*q.shape[:2], rows.stop - rows.start, k.shape[2])
    tiles = (
        triton.cdiv(full[2], options.config.block_m),
        triton.cdiv(full[3], options.config.block_n),
    )
    sums = [have == 1 and want > 1 for have, want in zip(shape, full, strict=True)]
    partial = (
        *shape[:2],
        tiles[0] if sums[2] else shape[2],
        tiles[1] if sums[3] else shape[3],
    )
    dbias = q.new_empty(partial, dtype=delta.dtype)
    _dbias_kernel[(tiles[0] * tiles[1] * shape[0] * shape[1],)](
        *(q, k, v, do, stats, delta, dbias, options.seed),
        *strides(q, k, v, do),
        *dbias.stride(),
        *(*q.shape[:3], k.shape[2], rows.start, tiles[0]),
        *options.arguments,
        KEY_BOUNDS=options.stack.key_bounds,
        SCORE_GRADS=options.stack.score_grads,
        ARG_GRAD=options.stack.arg_grads[index],
        INDEX=index,
        SUM_B=sums[0],
        SUM_H=sums[1],
        SUM_M=sums[2],
        SUM_N=sums[3],
        **options.constants(q, k, v),
    )
    return dbias.sum_to_size(shape)
