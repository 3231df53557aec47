"""Attention backward: the weights are computed again from the LSE, and nothing is added atomically.

FlashAttention-2 (Dao 2023, arXiv 2307.08691), in kernels that each own what they write, so that
the result is the same bit for bit every time:

    delta          rowsum(dO * O) - dLSE
    key gradient   dK and dV of BLOCK_N keys, looping over the group's heads and their rows
    query gradient dQ of BLOCK_M rows, looping over the keys
    argument gradient  of a variant's tensor: one tile of scores, looping over what was broadcast

Notation as in `attention_forward`; p are the softmax weights, dp and ds the gradients of the
weights and of the raw scores.  The key-gradient kernel holds its tiles transposed, (N, M), so that
p and ds are left operands of its products as they stand.
"""

import triton
import triton.language as tl

from .attention_forward import LOG2E
from .dropout import keep_tile
from .hooks import (
    fold_bounds,
    fold_masks,
    fold_score_grads,
    fold_scores,
    ragged_count,
    ragged_start,
)
from .launch import Options, padded, strides
from .memory import load_rows, store_rows
from .numerics import dot, dot_add, round_to


@triton.jit
def _weights(s, sm_scale, lse, at, SCORES: tl.constexpr, score_args):
    """exp(scores - lse) from the unscaled scores and the LSE in base 2."""
    if len(SCORES) == 0:
        return tl.exp2(s * (sm_scale * LOG2E) - lse)
    else:
        s = fold_scores(s * sm_scale, at, SCORES, score_args, len(SCORES))
        return tl.exp2(s * LOG2E - lse)


@triton.jit
def _load_lse(lse_ptr, offs_m, seqlen_q):
    """LSE in base 2; +inf, which makes the weights 0, for rows that saw nothing or are none."""
    lse = tl.load(lse_ptr + offs_m, mask=offs_m < seqlen_q, other=float("-inf")) * LOG2E
    return tl.where(lse == float("-inf"), float("inf"), lse)


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
def _key_gradient_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    do_ptr,
    lse_ptr,
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
    k_ptr += off_b.to(tl.int64) * stride_kb + off_hk.to(tl.int64) * stride_kh
    v_ptr += off_b.to(tl.int64) * stride_vb + off_hk.to(tl.int64) * stride_vh
    dk_ptr += off_b.to(tl.int64) * stride_dkb + off_hk.to(tl.int64) * stride_dkh
    dv_ptr += off_b.to(tl.int64) * stride_dvb + off_hk.to(tl.int64) * stride_dvh

    offset = seqlen_k - seqlen_q
    offs_n = start_n + tl.arange(0, BLOCK_N)
    kv_idx = tl.minimum(offs_n, seqlen_k - 1)[:, None]
    k = load_rows(k_ptr, offs_n, stride_kn, 0, seqlen_k, HEAD_DIM, BLOCK_D, True)  # (N, D)
    v = load_rows(v_ptr, offs_n, stride_vn, 0, seqlen_k, HEAD_DIM_V, BLOCK_DV, True)  # (N, DV)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    last = tl.minimum(start_n + BLOCK_N, seqlen_k) - 1

    for group in tl.range(GROUP_SIZE):
        off_h = off_hk * GROUP_SIZE + group
        off_bh = (off_b * num_kv_heads * GROUP_SIZE + off_h).to(tl.int64)
        q_head = q_ptr + off_b.to(tl.int64) * stride_qb + off_h.to(tl.int64) * stride_qh
        do_head = do_ptr + off_b.to(tl.int64) * stride_dob + off_h.to(tl.int64) * stride_doh
        lse_head = lse_ptr + off_bh * seqlen_q
        delta_head = delta_ptr + off_bh * seqlen_q
        lo, hi, full_lo, full_hi = fold_bounds(
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
        for RAGGED in tl.static_range(2):
            if RAGGED:
                num_steps = ragged_count(lo, hi, full_lo, full_hi, BLOCK_M)
            else:
                num_steps = (full_hi - full_lo) // BLOCK_M
            for step in tl.range(num_steps):
                if RAGGED:
                    start_m = ragged_start(step, lo, full_lo, full_hi, BLOCK_M)
                else:
                    start_m = full_lo + step * BLOCK_M
                offs_m = start_m + tl.arange(0, BLOCK_M)
                row = tl.minimum(offs_m, seqlen_q - 1)
                q = load_rows(q_head, offs_m, stride_qm, 0, seqlen_q, HEAD_DIM, BLOCK_D, RAGGED)
                lse = _load_lse(lse_head, offs_m, seqlen_q)
                s = dot(k, tl.trans(q), PRECISION)  # (N, M)
                at = (off_b, off_h, (row + offset)[None, :], kv_idx, seqlen_q, seqlen_k)
                p = _weights(s, sm_scale, lse[None, :], at, SCORES, score_args)
                if RAGGED:
                    keep = fold_masks((offs_m < seqlen_q)[None, :], at, MASKS, mask_args)
                    p = tl.where(keep, p, 0.0)
                do = load_rows(
                    do_head, offs_m, stride_dom, 0, seqlen_q, HEAD_DIM_V, BLOCK_DV, RAGGED
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
                if RAGGED:
                    ds = tl.where(keep, ds, 0.0)
                dk = dot_add(round_to(ds, q.dtype), q, dk, PRECISION)

    dk = round_to(dk * sm_scale, dk_ptr.dtype.element_ty)
    dv = round_to(dv, dv_ptr.dtype.element_ty)
    store_rows(dk_ptr, offs_n, stride_dkn, seqlen_k, dk, HEAD_DIM, BLOCK_D)
    store_rows(dv_ptr, offs_n, stride_dvn, seqlen_k, dv, HEAD_DIM_V, BLOCK_DV)


@triton.jit
def _query_gradient_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    do_ptr,
    lse_ptr,
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
    num_tiles = tl.cdiv(seqlen_q, BLOCK_M)
    pid = tl.program_id(0)
    start_m = (num_tiles - 1 - pid % num_tiles) * BLOCK_M  # the longest causal rows go first
    off_bh = pid // num_tiles
    off_b = off_bh // num_heads
    off_h = off_bh % num_heads
    off_hk = off_h // GROUP_SIZE
    q_ptr += off_b.to(tl.int64) * stride_qb + off_h.to(tl.int64) * stride_qh
    k_ptr += off_b.to(tl.int64) * stride_kb + off_hk.to(tl.int64) * stride_kh
    v_ptr += off_b.to(tl.int64) * stride_vb + off_hk.to(tl.int64) * stride_vh
    do_ptr += off_b.to(tl.int64) * stride_dob + off_h.to(tl.int64) * stride_doh
    dq_ptr += off_b.to(tl.int64) * stride_dqb + off_h.to(tl.int64) * stride_dqh
    lse_ptr += off_bh.to(tl.int64) * seqlen_q
    delta_ptr += off_bh.to(tl.int64) * seqlen_q

    offset = seqlen_k - seqlen_q
    offs_m = start_m + tl.arange(0, BLOCK_M)
    row = tl.minimum(offs_m, seqlen_q - 1)[:, None]
    q = load_rows(q_ptr, offs_m, stride_qm, 0, seqlen_q, HEAD_DIM, BLOCK_D, True)  # (M, D)
    do = load_rows(do_ptr, offs_m, stride_dom, 0, seqlen_q, HEAD_DIM_V, BLOCK_DV, True)  # (M, DV)
    lse = _load_lse(lse_ptr, offs_m, seqlen_q)[:, None]
    delta = tl.load(delta_ptr + offs_m, mask=offs_m < seqlen_q, other=0.0)[:, None]
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)

    first = start_m + offset
    last = tl.minimum(start_m + BLOCK_M, seqlen_q) - 1 + offset
    lo, hi, full_lo, full_hi = fold_bounds(
        off_b, off_h, first, last, 0, seqlen_k, seqlen_q, seqlen_k, KEY_BOUNDS, mask_args, BLOCK_N
    )
    for RAGGED in tl.static_range(2):
        if RAGGED:
            num_steps = ragged_count(lo, hi, full_lo, full_hi, BLOCK_N)
        else:
            num_steps = (full_hi - full_lo) // BLOCK_N
        for step in tl.range(num_steps):
            if RAGGED:
                start_n = ragged_start(step, lo, full_lo, full_hi, BLOCK_N)
            else:
                start_n = full_lo + step * BLOCK_N
            offs_n = start_n + tl.arange(0, BLOCK_N)
            k = load_rows(k_ptr, offs_n, stride_kn, lo, hi, HEAD_DIM, BLOCK_D, RAGGED)  # (N, D)
            s = dot(q, tl.trans(k), PRECISION)  # (M, N)
            kv_idx = tl.minimum(offs_n, seqlen_k - 1)[None, :] if RAGGED else offs_n[None, :]
            at = (off_b, off_h, row + offset, kv_idx, seqlen_q, seqlen_k)
            p = _weights(s, sm_scale, lse, at, SCORES, score_args)
            v = load_rows(v_ptr, offs_n, stride_vn, lo, hi, HEAD_DIM_V, BLOCK_DV, RAGGED)  # (N, DV)
            dp = dot(do, tl.trans(v), PRECISION)  # (M, N)
            if DROPOUT:
                kept = keep_tile(seed_ptr, off_b, off_h, row, start_n, dropout_threshold, BLOCK_N)
                dp = tl.where(kept, dp * dropout_scale, 0.0)
            ds = fold_score_grads(
                p * (dp - delta), s * sm_scale, at, SCORES, SCORE_GRADS, score_args, 0
            )
            if RAGGED:
                keep = ((offs_n >= lo) & (offs_n < hi))[None, :]
                ds = tl.where(fold_masks(keep, at, MASKS, mask_args), ds, 0.0)
            dq = dot_add(round_to(ds, k.dtype), k, dq, PRECISION)

    dq = round_to(dq * sm_scale, dq_ptr.dtype.element_ty)
    store_rows(dq_ptr, offs_m, stride_dqm, seqlen_q, dq, HEAD_DIM, BLOCK_D)


@triton.jit
def _argument_gradient_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    do_ptr,
    lse_ptr,
    delta_ptr,
    darg_ptr,
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
    """One (M, N) tile of the gradient of score hook INDEX's argument.

    Where the argument was broadcast over sequences or heads, this program sums over them; where
    over rows or keys, it stores the sum of its tile, for the launcher to add up.
    """
    pid = tl.program_id(0)
    tile_n = pid % tl.cdiv(seqlen_k, BLOCK_N)
    pid = pid // tl.cdiv(seqlen_k, BLOCK_N)
    tile_m = pid % tl.cdiv(seqlen_q, BLOCK_M)
    pid = pid // tl.cdiv(seqlen_q, BLOCK_M)
    first_h = 0 if SUM_H else pid % num_heads
    count_h = num_heads if SUM_H else 1
    first_b = 0 if SUM_B else (pid if SUM_H else pid // num_heads)
    count_b = batch if SUM_B else 1

    offset = seqlen_k - seqlen_q
    start_m = tile_m * BLOCK_M
    start_n = tile_n * BLOCK_N
    offs_m = start_m + tl.arange(0, BLOCK_M)
    offs_n = start_n + tl.arange(0, BLOCK_N)
    row = tl.minimum(offs_m, seqlen_q - 1)[:, None]
    kv_idx = tl.minimum(offs_n, seqlen_k - 1)[None, :]
    first = start_m + offset
    last = tl.minimum(start_m + BLOCK_M, seqlen_q) - 1 + offset
    darg = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for i in tl.range(count_b * count_h):
        off_b = first_b + i // count_h
        off_h = first_h + i % count_h
        lo, hi, full_lo, full_hi = fold_bounds(
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
            lse = _load_lse(lse_ptr + head, offs_m, seqlen_q)[:, None]
            delta = tl.load(delta_ptr + head + offs_m, mask=offs_m < seqlen_q, other=0.0)[:, None]
            s = dot(q, tl.trans(k), PRECISION)  # (M, N)
            at = (off_b, off_h, row + offset, kv_idx, seqlen_q, seqlen_k)
            p = _weights(s, sm_scale, lse, at, SCORES, score_args)
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
            darg += tl.where(fold_masks(keep, at, MASKS, mask_args), contribution, 0.0)

    darg_ptr += (0 if SUM_B else first_b.to(tl.int64) * stride_db) + (
        0 if SUM_H else first_h.to(tl.int64) * stride_dh
    )
    at_m = offs_m.to(tl.int64) * stride_dm
    at_n = offs_n.to(tl.int64) * stride_dn
    tile = tile_m.to(tl.int64) * stride_dm
    if SUM_M and SUM_N:
        tl.store(darg_ptr + tile + tile_n * stride_dn, tl.sum(tl.sum(darg, 1), 0))
    elif SUM_M:
        tl.store(darg_ptr + tile + at_n, tl.sum(darg, 0), mask=offs_n < seqlen_k)
    elif SUM_N:
        tl.store(darg_ptr + at_m + tile_n * stride_dn, tl.sum(darg, 1), mask=offs_m < seqlen_q)
    else:
        inside = (offs_m < seqlen_q)[:, None] & (offs_n < seqlen_k)[None, :]
        tl.store(darg_ptr + at_m[:, None] + at_n[None, :], darg, mask=inside)


def attention_delta(o, do, dlse, delta, config) -> None:
    """Launch: fills ``delta`` (B, H, M), fp32, contiguous, with rowsum(dO * O) - dLSE."""
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


def attention_key_gradient(q, k, v, do, lse, delta, dk, dv, options: Options) -> None:
    """Launch over all key heads: fills ``dk`` (B, K, N, D) and ``dv`` (B, K, N, DV)."""
    batch, num_kv_heads, seqlen_k, _ = k.shape
    grid = (triton.cdiv(seqlen_k, options.config.block_n) * num_kv_heads * batch,)
    _key_gradient_kernel[grid](
        *(q, k, v, do, lse, delta, dk, dv, options.seed),
        *strides(q, k, v, do, dk, dv),
        *(num_kv_heads, q.shape[2], seqlen_k),
        *options.arguments,
        QUERY_BOUNDS=options.stack.query_bounds,
        SCORE_GRADS=options.stack.score_grads,
        **options.constants(q, k, v),
    )


def attention_query_gradient(q, k, v, do, lse, delta, dq, options: Options) -> None:
    """Launch over all heads: fills ``dq`` (B, H, M, D)."""
    batch, num_heads, seqlen_q, _ = q.shape
    grid = (triton.cdiv(seqlen_q, options.config.block_m) * num_heads * batch,)
    _query_gradient_kernel[grid](
        *(q, k, v, do, lse, delta, dq, options.seed),
        *strides(q, k, v, do, dq),
        *(num_heads, seqlen_q, k.shape[2]),
        *options.arguments,
        KEY_BOUNDS=options.stack.key_bounds,
        SCORE_GRADS=options.stack.score_grads,
        **options.constants(q, k, v),
    )


def attention_argument_gradient(q, k, v, do, lse, delta, shape, index: int, options: Options):
    """The gradient, fp32, of the argument of score hook ``index``, whose 4-D shape is ``shape``."""
    full = (*q.shape[:3], k.shape[2])
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
    darg = q.new_empty(partial, dtype=lse.dtype)
    _argument_gradient_kernel[(tiles[0] * tiles[1] * shape[0] * shape[1],)](
        *(q, k, v, do, lse, delta, darg, options.seed),
        *strides(q, k, v, do),
        *darg.stride(),
        *full,
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
    return darg.sum_to_size(shape)
