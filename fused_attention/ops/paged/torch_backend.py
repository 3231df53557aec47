"""The paged ops on PyTorch operations.

Attention computes one sequence at a time.  A single query on a CPU reads the pages in place if
they are large enough (`torch_decode`).  Otherwise the visible pages are gathered for dense
attention, where the sequence is expanded to a batch (stride 0), so that variants see its index.
"""

from __future__ import annotations

import math

import torch

from ...variants.base import Shape, Variant
from ..attention import statistics, tile_aten, tile_online
from ..attention.tiles import key_bounds, rows_per_tile, tiles
from ..layout import accumulator
from . import torch_decode
from .quantization import LARGEST, quantize, restore_nan_, token_scales


def attention(
    q,
    kv,
    scales,
    block_table,
    seq_lens,
    cu_seqlens_q,
    variants: tuple[Variant, ...],
    scale: float,
    max_seqlen_q: int | None = None,
    num_splits: int | None = None,
):
    """Output (tokens, H, D) in the dtype of q, and LSE (tokens, H).

    ``max_seqlen_q`` and ``num_splits`` are for the Triton backend and have no effect here.
    """
    out = q.new_empty(q.shape)
    lse = q.new_empty(q.shape[:2], dtype=accumulator(q.dtype))
    if lse.numel() == 0:
        return out, lse
    ends, lengths = cu_seqlens_q.tolist(), seq_lens.tolist()
    plain = q.device.type == "cpu" and all(v.type.score is None for v in variants)
    buffer = _buffer(kv, max(lengths, default=0), q.dtype)
    for b, seqlen_k in enumerate(lengths):
        rows = slice(ends[b], ends[b + 1])
        seqlen_q = rows.stop - rows.start
        shape = Shape(len(lengths), q.shape[1], seqlen_q, seqlen_k, q.device)
        out_b, lse_b = (x[rows].transpose(0, 1)[None] for x in (out, lse))  # (1, H, M, ...)
        seen = key_bounds(shape, variants, b, 0, seqlen_q - 1) if seqlen_q else (0, 0)
        if 0 in (*out_b.shape, seqlen_k) or seen[0] >= seen[1]:
            out_b.fill_(0)
            lse_b.fill_(-math.inf)
            continue
        lo, hi, full_lo, full_hi = seen
        if plain and seqlen_q == 1 and full_lo <= lo and hi <= full_hi:
            result = _one_query(q[rows.start], kv, scales, block_table[b], lo, hi, buffer, scale)
            if result is not None:
                out[rows.start], lse[rows.start] = result
                continue
        k, v = _gather(kv, scales, block_table[b], lo, seqlen_k, buffer)
        q_b = q[rows].to(k.dtype).transpose(0, 1)[None]
        _sequence(q_b, k, v, shape, range(b, b + 1), variants, scale, out_b, lse_b)
    return out, lse


def _one_query(q, kv, scales, blocks, lo: int, hi: int, buffer, scale: float):
    """Output (H, D) and LSE (H,) of one query q, (H, D), that sees all of the keys [lo, hi).

    None if a score is so large, or not finite, that this takes PyTorch operations.
    """
    if torch_decode.in_place(q, kv):
        return torch_decode.attend_in_place(q, kv, blocks.tolist(), lo, hi, scale)
    k, v = (x[:, :, lo:] for x in _gather(kv, scales, blocks, lo, hi, buffer))
    return torch_decode.attend_gathered(q.to(k.dtype), k, v, scale)


def _buffer(kv, most_keys: int, dtype):
    """A buffer for the pages of one sequence at a time, (2, pages, page_size, K, D).

    Its dtype is that of q, or of q's accumulator if the cache is quantized.
    """
    tile_online.keep_freed_memory()
    held = accumulator(dtype) if kv.dtype in LARGEST else dtype
    return kv.new_empty((2, -(-most_keys // kv.shape[2]), *kv.shape[2:]), dtype=held)


def _gather(kv, scales, blocks, first: int, seqlen_k: int, buffer):
    """Gather keys and values of a sequence, (1, K, N, D), from the page of key ``first`` on.

    They are views of ``buffer``, whose earlier pages are not written: untouched memory is free.
    """
    page_size = kv.shape[2]
    pages = slice(first // page_size, -(-seqlen_k // page_size))
    blocks = blocks[pages].long()
    sides = []
    for side in range(2):
        stored, into = kv[:, side], buffer[side, pages]
        if kv.dtype in LARGEST:
            each = scales[side] if scales.ndim == 2 else scales[:, side].index_select(0, blocks)
            chosen = stored.index_select(0, blocks)
            restore_nan_(into.copy_(chosen), chosen).mul_(each[..., None])
        elif kv.dtype == buffer.dtype:
            torch.index_select(stored, 0, blocks, out=into)
        else:
            into.copy_(stored.index_select(0, blocks))
        sides.append(buffer[side].flatten(0, 1)[:seqlen_k].transpose(0, 1)[None])
    return sides


def _sequence(q, k, v, shape: Shape, batch: range, variants, scale: float, out, lse) -> None:
    """Fill ``out`` and ``lse``, (1, H, M, ...), with the attention of the sequence of ``batch``."""
    if tile_aten.can_express(q, v, variants, None):
        _sequence_aten(q, k, v, shape, batch, variants, scale, out, lse)
        if not statistics.extreme(lse):
            return
    q, k, v = (x.expand(shape.batch, -1, -1, -1) for x in (q, k, v))
    most = rows_per_tile(shape, variants, tile_online.ROWS)
    keys = tile_online.keys_per_chunk(shape.num_heads * min(most, shape.seqlen_q))
    for tile in tiles(shape, variants, batch, most, 1):
        rows = tile.rows
        if tile.lo >= tile.hi:
            out[:, :, rows], lse[:, :, rows] = 0, -math.inf
        else:
            results = tile_online.forward(q, k, v, variants, scale, None, tile, keys)
            out[:, :, rows], lse[:, :, rows] = results[0], statistics.lse(results[1])


def _sequence_aten(q, k, v, shape: Shape, batch: range, variants, scale: float, out, lse) -> None:
    """Like `_sequence`, by ATen's kernel."""
    if tile_aten.in_one_call(q, k, variants, scale):
        results = tile_aten.forward_whole(q, k, v, bool(variants), scale)
        out.copy_(results[0])
        lse.copy_(results[1])
        return
    q, k, v = (x.expand(shape.batch, -1, -1, -1) for x in (q, k, v))
    most = rows_per_tile(shape, variants, tile_aten.ROWS)
    for tile in tiles(shape, variants, batch, most, 1):
        rows = tile.rows
        if tile.lo >= tile.hi:
            out[:, :, rows], lse[:, :, rows] = 0, -math.inf
        else:
            results = tile_aten.forward(q, k, v, variants, scale, tile)
            out[:, :, rows], lse[:, :, rows] = results


def append(k, v, kv, slot_mapping, scales) -> None:
    """Write keys and values (tokens, K, D) into their slots of ``kv``."""
    written = slot_mapping >= 0
    if not written.all():
        k, v, slot_mapping = k[written], v[written], slot_mapping[written]
    block, offset = slot_mapping // kv.shape[2], slot_mapping % kv.shape[2]
    for side, x in enumerate((k, v)):
        if kv.dtype in LARGEST:
            if scales.ndim == 4:
                each = token_scales(x, kv.dtype)
                scales[block, side, offset] = each
            else:
                each = scales[side]
            # Write bytes: PyTorch cannot index 8-bit floats.
            x = quantize(x, each, kv.dtype).view(torch.uint8)
        stored = kv.view(torch.uint8) if kv.dtype in LARGEST else kv
        stored[block, side, offset] = x.to(stored.dtype)


def copy_blocks(kv, pairs) -> None:
    """Copy blocks of ``kv`` to others."""
    kv[pairs[:, 1]] = kv[pairs[:, 0]]
