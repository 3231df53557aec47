"""Attention on PyTorch operations: exact, O(n) in memory forward and backward, in fp64 too.

Queries are cut into tiles, which skip the keys outside the variants' bounds.  A tile is computed by
ATen's flash kernel if possible (`tile_aten`), else by other PyTorch operations (`tile_online`), and
so are sequences with scores that are huge or not finite (`statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...variants.base import Shape, Variant
from ..layout import accumulator, empty_gradient, empty_like, laid_out
from . import statistics, tile_aten, tile_online
from .dropout import Dropout
from .tiles import rows_per_tile, tiles


def forward(q, k, v, variants: Sequence[Variant], scale: float, dropout: Dropout | None):
    """Output (B, H, M, Dv) in the dtype of q, LSE (B, H, M), and `statistics` (B, H, M, 2)."""
    if tile_aten.can_express(q, v, variants, dropout):
        out, lse = _forward_aten(q, k, v, variants, scale)
        stats = statistics.of_lse(lse)
        rest = [range(b, b + 1) for b in statistics.extreme(lse)]
    else:
        out = empty_like(q, v.shape[3])
        lse = q.new_empty(q.shape[:3], dtype=accumulator(q.dtype))
        stats = lse.new_empty(*lse.shape, 2)
        rest = [range(q.shape[0])]
    for batch in rest:
        plan, keys = _online_tiles(q, k, variants, batch)
        for tile in plan:
            if tile.lo < tile.hi:
                results = tile_online.forward(q, k, v, variants, scale, dropout, tile, keys)
                out[tile.queries], stats[tile.queries] = results
            else:
                out[tile.queries] = 0
                stats[tile.queries] = statistics.of_lse(lse[tile.queries].fill_(-math.inf))
        at = slice(batch.start, batch.stop)
        lse[at] = statistics.lse(stats[at])
    return out, lse, stats


def _forward_aten(q, k, v, variants, scale: float):
    """Output and LSE by ATen's kernel."""
    if tile_aten.in_one_call(q, k, variants, scale):
        out, lse = tile_aten.forward_whole(q, k, v, bool(variants), scale)
        return laid_out(out, q), lse.contiguous()
    out = empty_like(q, v.shape[3])
    lse = q.new_empty(q.shape[:3], dtype=accumulator(q.dtype))
    for tile in _aten_tiles(q, k, variants):
        if tile.lo >= tile.hi:
            out[tile.queries], lse[tile.queries] = 0, -math.inf
        else:
            results = tile_aten.forward(q, k, v, variants, scale, tile)
            out[tile.queries], lse[tile.queries] = results
    return out, lse


def backward(do, dlse, q, k, v, out, stats, variants, scale, dropout, wanted: Sequence[bool]):
    """dq, dk, dv, and the gradient of the first argument of each variant that is ``wanted``."""
    dtype = accumulator(q.dtype)
    dargs = {
        variant: variant.args[0].new_zeros(variant.args[0].shape, dtype=dtype)
        for variant, want in zip(variants, wanted, strict=True)
        if want
    }
    if tile_aten.can_express(q, v, variants, dropout) and dlse is None and not any(wanted):
        lse = stats[..., 0].contiguous()
        dq, dk, dv = _backward_aten(do, q, k, v, out, lse, variants, scale)
        rest = [range(b, b + 1) for b in statistics.not_of_lse(stats)]
        for b, *_ in rest:
            dk[b], dv[b] = 0, 0
    else:
        dq = empty_gradient(q)
        dk, dv = (empty_gradient(x, dtype).zero_() for x in (k, v))
        rest = [range(q.shape[0])]
    for batch in rest:
        plan, keys = _online_tiles(q, k, variants, batch)
        for tile in plan:
            if tile.lo >= tile.hi:
                dq[tile.queries] = 0
            else:
                dq[tile.queries] = tile_online.backward(
                    *(do, dlse, q, k, v, out, stats, variants, scale, dropout, tile, keys),
                    *(dk, dv, dargs),
                )
    dq, dk, dv = (laid_out(x, q, gradient=True) for x in (dq, dk, dv))
    return dq, dk, dv, list(dargs.values())


def _backward_aten(do, q, k, v, out, lse, variants, scale: float):
    """dq, dk and dv by ATen's kernel; dk and dv are in fp32 or fp64."""
    if tile_aten.in_one_call(q, k, variants, scale):
        return tile_aten.backward_whole(do, q, k, v, out, lse, bool(variants), scale)
    lse = lse.masked_fill(lse == -math.inf, 0)
    dq = empty_gradient(q)
    dk, dv = (empty_gradient(x, accumulator(q.dtype)).zero_() for x in (k, v))
    for tile in _aten_tiles(q, k, variants):
        if tile.lo >= tile.hi:
            dq[tile.queries] = 0
            continue
        dq[tile.queries], dk_tile, dv_tile = tile_aten.backward(
            do, q, k, v, out, lse, variants, scale, tile
        )
        dk[tile.keys] += dk_tile
        dv[tile.keys] += dv_tile
    return dq, dk, dv


def _aten_tiles(q, k, variants):
    shape = Shape.of(q, k)
    rows = rows_per_tile(shape, variants, tile_aten.ROWS)
    return tiles(shape, variants, range(shape.batch), rows, max(1, shape.batch))


def _online_tiles(q, k, variants, batch: range):
    """The tiles of the sequences of ``batch``, and the keys per chunk."""
    shape = Shape.of(q, k)
    tile_online.keep_freed_memory()
    rows = rows_per_tile(shape, variants, tile_online.ROWS)
    held = max(1, shape.num_heads) * min(rows, max(1, shape.seqlen_q))
    scores = held * min(max(1, shape.seqlen_k), 512)
    sequences = max(1, tile_online.CHUNK_SCORES // scores)
    keys = tile_online.keys_per_chunk(held * min(sequences, max(1, len(batch))))
    return tiles(shape, variants, batch, rows, sequences), keys
