"""Paged attention without Triton, a sequence at a time.

One query reads its pages where they are, if that is worth it (`paged_decode_torch`).  Otherwise
those that are visible are gathered, and the sequence is treated as one of a batch that shares its
tensors (a stride of 0), so that variants see its index and all else is that of dense attention.
"""

from __future__ import annotations

import math

import torch

from ...variants.base import Variant
from ..attention import tile_aten as aten
from ..attention import tile_online as online
from ..attention.tiles import Problem, Tile, key_bounds, rows_per_tile
from ..attention.torch_backend import keep_freed_memory
from ..layout import accumulator
from . import torch_decode as decode
from .checks import Lengths
from .quantization import LARGEST

_CHUNK_SCORES = 1 << 19
_ONLINE_ROWS = 256
_ATEN_ROWS = 512


def forward(
    q, kv, scales, block_table, lengths: Lengths, variants: tuple[Variant, ...], scale: float
):
    """Output (tokens, H, D) in the dtype of q, and LSE (tokens, H)."""
    out = q.new_empty(q.shape)
    lse = q.new_empty(q.shape[:2], dtype=accumulator(q.dtype))
    num_seqs, ends = len(lengths.seq_lens), lengths.cu_seqlens_q
    plain = q.device.type == "cpu" and all(v.type.score is None for v in variants)
    buffer = _buffer(kv, max(lengths.seq_lens, default=0), q.dtype)
    for b, seqlen_k in enumerate(lengths.seq_lens):
        rows = slice(ends[b], ends[b + 1])
        seqlen_q = rows.stop - rows.start
        problem = Problem(num_seqs, q.shape[1], seqlen_q, seqlen_k, q.device)
        out_b, lse_b = (x[rows].transpose(0, 1)[None] for x in (out, lse))  # (1, H, M, ...)
        seen = key_bounds(problem, variants, b, 0, seqlen_q - 1) if seqlen_q else (0, 0)
        if 0 in (*out_b.shape, seqlen_k) or seen[0] >= seen[1]:
            out_b.fill_(0)
            lse_b.fill_(-math.inf)
            continue
        lo, hi, full_lo, full_hi = seen
        if plain and seqlen_q == 1 and full_lo <= lo and hi <= full_hi:
            result = _one_query(q[rows.start], kv, scales, block_table[b], lo, hi, buffer, scale)
            out[rows.start], lse[rows.start] = result
            continue
        k, v = _gather(kv, scales, block_table[b], lo, seqlen_k, buffer)
        q_b = q[rows].to(k.dtype).transpose(0, 1)[None]
        _sequence(q_b, k, v, problem, b, variants, scale, out_b, lse_b)
    return out, lse


def _one_query(q, kv, scales, blocks, lo: int, hi: int, buffer, scale: float):
    """Output (H, D) and LSE (H,) of the query q, (H, D), that sees the keys [lo, hi), and all."""
    if decode.in_place(q, kv):
        return decode.attend_in_place(q, kv, blocks.tolist(), lo, hi, scale)
    k, v = (x[:, :, lo:] for x in _gather(kv, scales, blocks, lo, hi, buffer))
    return decode.attend_gathered(q.to(k.dtype), k, v, scale)


def _buffer(kv, most_keys: int, dtype):
    """Room for the pages of one sequence after the other, (2, pages, page_size, K, D).

    In the dtype of q; of 8 bits in that of its sums.
    """
    keep_freed_memory()
    held = accumulator(dtype) if kv.dtype in LARGEST else dtype
    return kv.new_empty((2, -(-most_keys // kv.shape[2]), *kv.shape[2:]), dtype=held)


def _gather(kv, scales, blocks, first: int, seqlen_k: int, buffer):
    """Keys and values of a sequence, (1, K, N, D), in ``buffer``, from the page of key ``first``.

    The pages before it are left as they are; memory that nobody touches costs nothing.
    """
    page_size = kv.shape[2]
    pages = slice(first // page_size, -(-seqlen_k // page_size))
    blocks = blocks[pages].long()
    sides = []
    for side in range(2):
        stored, into = kv[:, side], buffer[side, pages]
        if kv.dtype in LARGEST:
            each = scales[side] if scales.ndim == 2 else scales[:, side].index_select(0, blocks)
            into.copy_(stored.index_select(0, blocks)).mul_(each[..., None])
        elif kv.dtype == buffer.dtype:
            torch.index_select(stored, 0, blocks, out=into)
        else:
            into.copy_(stored.index_select(0, blocks))
        sides.append(buffer[side].flatten(0, 1)[:seqlen_k].transpose(0, 1)[None])
    return sides


def _sequence(q, k, v, problem: Problem, b: int, variants, scale: float, out, lse) -> None:
    """Fill ``out`` and ``lse``, (1, H, M, ...), with the attention of sequence ``b``."""
    use_aten = aten.can_express(q, v, variants, None)
    if use_aten and aten.in_one_call(q, k, variants, scale):
        results = aten.forward_whole(q, k, v, bool(variants), scale)
        out.copy_(results[0])
        lse.copy_(results[1])
        return
    seqlen_q, heads = problem.seqlen_q, problem.num_heads
    q, k, v = (x.expand(problem.batch, -1, -1, -1) for x in (q, k, v))
    step = rows_per_tile(problem, variants, _ATEN_ROWS if use_aten else _ONLINE_ROWS)
    keys = max(128, _CHUNK_SCORES // (heads * min(step, seqlen_q)) // 4 * 4)
    for start in range(0, seqlen_q, step):
        rows = slice(start, min(start + step, seqlen_q))
        bounds = key_bounds(problem, variants, b, rows.start, rows.stop - 1)
        tile = Tile(slice(b, b + 1), rows, *bounds)
        if tile.lo >= tile.hi:
            out[:, :, rows], lse[:, :, rows] = 0, -math.inf
        elif use_aten:
            results = aten.forward(q, k, v, variants, scale, tile)
            out[:, :, rows], lse[:, :, rows] = results
        else:
            results = online.forward(q, k, v, variants, scale, None, tile, keys)
            out[:, :, rows], lse[:, :, rows] = results
