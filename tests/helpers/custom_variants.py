"""Variants as a user would write them, outside the package: a kernel hook and its torch twin."""

import triton
import triton.language as tl

from fused_attention import define_variant


@triton.jit
def _stripes(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return (q_idx + kv_idx + h) % args[0] != 0


# A mask of every third diagonal, without bounds: every tile is computed and masked.
STRIPES = define_variant(
    "test_stripes",
    mask=_stripes,
    torch_mask=lambda b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: (
        (q_idx + kv_idx + h) % args[0] != 0
    ),
)


@triton.jit
def _prefix(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return (kv_idx < args[0]) | (kv_idx <= q_idx)


@triton.jit
def _prefix_keys(b, h, q_first, q_last, seqlen_q, seqlen_k, args):
    return 0, tl.maximum(args[0], q_last + 1), 0, tl.maximum(args[0], q_first + 1)


@triton.jit
def _prefix_queries(b, h, kv_first, kv_last, seqlen_q, seqlen_k, args):
    first = seqlen_k - seqlen_q
    return (
        tl.where(kv_first < args[0], first, kv_first),
        seqlen_k,
        tl.where(kv_last < args[0], first, kv_last),
        seqlen_k,
    )


# A prefix-LM mask with bounds: every row sees the prefix, and the rest is causal.
PREFIX = define_variant(
    "test_prefix",
    mask=_prefix,
    torch_mask=lambda b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: (
        (kv_idx < args[0]) | (kv_idx <= q_idx)
    ),
    key_bounds=_prefix_keys,
    query_bounds=_prefix_queries,
    torch_key_bounds=lambda b, first, last, seqlen_q, seqlen_k, args: (
        *(0, max(args[0], last + 1)),
        *(0, max(args[0], first + 1)),
    ),
)


@triton.jit
def _bend(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s - args[0] * s * s


@triton.jit
def _bend_grad(ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds * (1 - 2 * args[0] * s_in)


# A score modification that is not additive: s - a·s², whose derivative changes sign.
BEND = define_variant(
    "test_bend",
    score=_bend,
    torch_score=lambda s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: s - args[0] * s * s,
    score_grad=_bend_grad,
    torch_score_grad=lambda ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: (
        ds * (1 - 2 * args[0] * s_in)
    ),
)


@triton.jit
def _sink(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    pointer, _, stride_h, _, stride_k = args[0]
    here = tl.load(pointer + h * stride_h + kv_idx * stride_k).to(tl.float32)
    return s + args[1] * here * here


@triton.jit
def _sink_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    pointer, _, stride_h, _, stride_k = args[0]
    here = tl.load(pointer + h * stride_h + kv_idx * stride_k).to(tl.float32)
    return 2 * args[1] * here * ds


# An additive score modification by a tensor (1, heads, 1, keys), which receives a gradient.
SINK = define_variant(
    "test_sink",
    score=_sink,
    torch_score=lambda s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: (
        s + args[1] * args[0].to(s.dtype) ** 2
    ),
    additive=True,
    arg_grad=_sink_grad,
    torch_arg_grad=lambda ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: (
        2 * args[1] * args[0].to(ds.dtype) * ds
    ),
)


@triton.jit
def _head_window(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return (kv_idx <= q_idx) & (kv_idx >= q_idx - args[0] * h)


@triton.jit
def _head_window_keys(b, h, q_first, q_last, seqlen_q, seqlen_k, args):
    left = args[0] * h
    return q_first - left, q_last + 1, q_last - left, q_first + 1


@triton.jit
def _head_window_queries(b, h, kv_first, kv_last, seqlen_q, seqlen_k, args):
    left = args[0] * h
    return kv_first, kv_last + left + 1, kv_last, kv_first + left + 1


# A causal window whose width grows with the head index, with bounds per head.
HEAD_WINDOW = define_variant(
    "test_head_window",
    mask=_head_window,
    torch_mask=lambda b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: (
        (kv_idx <= q_idx) & (kv_idx >= q_idx - args[0] * h)
    ),
    key_bounds=_head_window_keys,
    query_bounds=_head_window_queries,
    torch_key_bounds=lambda b, first, last, seqlen_q, seqlen_k, args: (
        *(0, last + 1),
        *(last, first + 1),
    ),
)


@triton.jit
def _relative_at(h, q_idx, kv_idx, args):
    """Where the entry of a score is: positions farther apart than the table share its ends."""
    pointer, stride_d, stride_h = args[0]
    apart = tl.minimum(tl.maximum(q_idx - kv_idx, -args[1]), args[1]) + args[1]
    return pointer + apart * stride_d + h * stride_h


@triton.jit
def _relative(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s + tl.load(_relative_at(h, q_idx, kv_idx, args)).to(tl.float32)


@triton.jit
def _relative_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds


def _relative_index(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    table, most = args
    return ((q_idx - kv_idx).clamp(-most, most) + most) * table.shape[1] + h


# Relative positions as in T5 and Swin: a table (2 * most + 1, heads), which receives a gradient.
RELATIVE = define_variant(
    "test_relative",
    score=_relative,
    torch_score=lambda s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: (
        s + args[0].to(s.dtype)[(q_idx - kv_idx).clamp(-args[1], args[1]) + args[1], h]
    ),
    additive=True,
    arg_grad=_relative_grad,
    torch_arg_grad=lambda ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: ds,
    torch_arg_index=_relative_index,
)


@triton.jit
def _gate_at(b, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    pointer, stride_b, _, stride_m, stride_n = args[0]
    row = q_idx - (seqlen_k - seqlen_q)
    at = b * stride_b + row // args[1] * stride_m + kv_idx // args[1] * stride_n
    return tl.load(pointer + at).to(tl.float32)


@triton.jit
def _gate(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s * _gate_at(b, q_idx, kv_idx, seqlen_q, seqlen_k, args)


@triton.jit
def _gate_score_grad(ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds * _gate_at(b, q_idx, kv_idx, seqlen_q, seqlen_k, args)


@triton.jit
def _gate_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds * s_in


def _gates(s, b, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    gates, size = args
    return gates.to(s.dtype)[b, 0, (q_idx - seqlen_k + seqlen_q) // size, kv_idx // size]


def _gate_index(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    (_, _, rows, keys), size = args[0].shape, args[1]
    return (b * rows + (q_idx - seqlen_k + seqlen_q) // size) * keys + kv_idx // size


# A factor per block of scores: a 4-D table, not additive, whose gradient depends on the scores.
GATE = define_variant(
    "test_gate",
    score=_gate,
    torch_score=lambda s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: (
        s * _gates(s, b, q_idx, kv_idx, seqlen_q, seqlen_k, args)
    ),
    score_grad=_gate_score_grad,
    torch_score_grad=lambda ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: (
        ds * _gates(ds, b, q_idx, kv_idx, seqlen_q, seqlen_k, args)
    ),
    arg_grad=_gate_grad,
    torch_arg_grad=lambda ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: ds * s_in,
    torch_arg_index=_gate_index,
)
