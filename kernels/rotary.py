"""Rotary position embedding of q and k in one launch (Su et al. 2021, arXiv 2104.09864).

    B, S     batch and positions; a program takes BLOCK_S positions of one sequence
    H, HK    heads of q and of k, taken as one list of H + HK, HEADS of them per program, so that
             cosines and sines are loaded once for several heads
    D        head_dim; the first 2 * HALF columns are rotated in pairs, the others pass through
    L        rows of the tables of cosines and sines, (L, HALF)

A pair is columns (i, i + HALF), or (2i, 2i + 1) if INTERLEAVED; INVERSE rotates back.  A position
outside the tables reads nothing and sets its pairs to NaN.
"""

import triton
import triton.language as tl

from .numerics import round_to


@triton.jit
def _turn(x1, x2, cos, sin):
    return x1 * cos - x2 * sin, x2 * cos + x1 * sin


@triton.jit(do_not_specialize=["stride_pb", "stride_ps", "S", "L"])
def _rotary_kernel(
    q_ptr,
    k_ptr,
    q_out_ptr,
    k_out_ptr,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    stride_qb,
    stride_qh,
    stride_qs,
    stride_kb,
    stride_kh,
    stride_ks,
    stride_qob,
    stride_qoh,
    stride_qos,
    stride_kob,
    stride_koh,
    stride_kos,
    stride_cos,
    stride_sin,
    stride_pb,
    stride_ps,
    num_heads,
    num_kv_heads,
    S,
    L,
    HALF: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    INVERSE: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    HEADS: tl.constexpr,
):
    num_groups = tl.cdiv(num_heads + num_kv_heads, HEADS)
    pid = tl.program_id(0).to(tl.int64)
    first = pid % num_groups * HEADS
    pid_s = pid // num_groups
    off_b = pid_s // tl.cdiv(S, BLOCK_S)
    offs_s = pid_s % tl.cdiv(S, BLOCK_S) * BLOCK_S + tl.arange(0, BLOCK_S)
    within = offs_s < S
    if positions_ptr is None:
        position = offs_s
    else:
        at = positions_ptr + off_b * stride_pb + offs_s * stride_ps
        position = tl.load(at, mask=within, other=0).to(tl.int64)
    known = within & (position >= 0) & (position < L)

    offs_i = tl.arange(0, BLOCK_HALF)
    table = known[:, None] & (offs_i < HALF)[None, :]
    nan = float("nan")
    cos_at = cos_ptr + position[:, None] * stride_cos + offs_i[None, :]
    sin_at = sin_ptr + position[:, None] * stride_sin + offs_i[None, :]
    cos = tl.load(cos_at, mask=table, other=nan).to(tl.float32)  # (S, HALF)
    sin = tl.load(sin_at, mask=table, other=nan).to(tl.float32)
    if INVERSE:
        sin = -sin

    for head in tl.range(first, tl.minimum(first + HEADS, num_heads + num_kv_heads)):
        if head < num_heads:
            x_ptr = q_ptr + off_b * stride_qb + head * stride_qh + offs_s[:, None] * stride_qs
            y_ptr = (
                q_out_ptr + off_b * stride_qob + head * stride_qoh + offs_s[:, None] * stride_qos
            )
        else:
            off_hk = head - num_heads
            x_ptr = k_ptr + off_b * stride_kb + off_hk * stride_kh + offs_s[:, None] * stride_ks
            y_ptr = k_out_ptr + off_b * stride_kob + off_hk * stride_koh
            y_ptr += offs_s[:, None] * stride_kos
        dtype = q_out_ptr.dtype.element_ty

        if INTERLEAVED:
            # Pairs are loaded contiguously and split in registers.
            offs = tl.arange(0, 2 * BLOCK_HALF)
            keep = within[:, None] & (offs < 2 * HALF)[None, :]
            x = tl.load(x_ptr + offs[None, :], mask=keep, other=0.0).to(tl.float32)
            x1, x2 = tl.split(tl.reshape(x, (BLOCK_S, BLOCK_HALF, 2)))
            y1, y2 = _turn(x1, x2, cos, sin)
            y = tl.reshape(tl.join(y1, y2), (BLOCK_S, 2 * BLOCK_HALF))
            tl.store(y_ptr + offs[None, :], round_to(y, dtype), mask=keep)
        else:
            keep = within[:, None] & (offs_i < HALF)[None, :]
            x1 = tl.load(x_ptr + offs_i[None, :], mask=keep, other=0.0).to(tl.float32)
            x2 = tl.load(x_ptr + offs_i[None, :] + HALF, mask=keep, other=0.0).to(tl.float32)
            y1, y2 = _turn(x1, x2, cos, sin)
            tl.store(y_ptr + offs_i[None, :], round_to(y1, dtype), mask=keep)
            tl.store(y_ptr + offs_i[None, :] + HALF, round_to(y2, dtype), mask=keep)
        if BLOCK_REST > 0:
            offs = 2 * HALF + tl.arange(0, BLOCK_REST)
            keep = within[:, None] & (offs < HEAD_DIM)[None, :]
            tl.store(y_ptr + offs[None, :], tl.load(x_ptr + offs[None, :], mask=keep), mask=keep)


def rotary(q, k, q_out, k_out, cos, sin, positions, interleaved, inverse, config) -> None:
    """Fill ``q_out`` (B, H, S, D) and ``k_out`` (B, HK, S, D); positions (B, S) or None."""
    batch, num_heads, seqlen, head_dim = q.shape
    num_kv_heads, half = k.shape[1], cos.shape[1]
    rest = head_dim - 2 * half
    programs = (
        batch
        * triton.cdiv(seqlen, config.block_positions)
        * triton.cdiv(num_heads + num_kv_heads, config.heads)
    )
    _rotary_kernel[(programs,)](
        *(q, k, q_out, k_out, cos, sin, positions),
        *(stride for x in (q, k, q_out, k_out) for stride in x.stride()[:3]),
        *(cos.stride(0), sin.stride(0)),
        *((0, 0) if positions is None else positions.stride()),
        *(num_heads, num_kv_heads, seqlen, cos.shape[0]),
        HALF=half,
        HEAD_DIM=head_dim,
        INTERLEAVED=interleaved,
        INVERSE=inverse,
        BLOCK_S=config.block_positions,
        BLOCK_HALF=triton.next_power_of_2(half),
        BLOCK_REST=triton.next_power_of_2(rest) if rest else 0,
        HEADS=config.heads,
        num_warps=config.num_warps,
    )
