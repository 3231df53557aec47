"""Attention on PyTorch operations: exact, O(n) in memory forward and backward, in fp64 too.

Queries are cut into tiles, which skip the keys outside the variants' bounds.  A tile is computed by
ATen's flash kernel if possible (`tile_aten`), else by other PyTorch operations (`tile_online`);
`tile` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...variants.base import Shape, Variant
from ..layout import accumulator, empty_gradient, empty_like, laid_out
from . import statistics, tile, tile_aten, tile_online
from .dropout import Dropout
from .tiles import rows_per_tile, tiles


def forward(q, k, v, variants: Sequence[Variant], scale: float, dropout: Dropout | None):
    """Output (B, H, M, Dv) in the dtype of q, LSE (B, H, M), and `statistics` (B, H, M, 2)."""
    use_aten = tile_aten.can_express(q, v, variants, dropout)
    if not use_aten or not tile_aten.in_one_call(q, k, variants, scale):
        out, stats = _forward_tiles(q, k, v, variants, scale, dropout, use_aten)
        return out, statistics.lse(stats), stats
    out, lse = tile_aten.forward_whole(q, k, v, bool(variants), scale)
    out, lse, stats = laid_out(out, q), lse.contiguous(), statistics.of_lse(lse)
    for b in statistics.extreme(lse):
        at = slice(b, b + 1)
        out[at], stats[at] = _forward_tiles(q[at], k[at], v[at], variants, scale, None, False)
        lse[at] = statistics.lse(stats[at])
    return out, lse, stats


def _forward_tiles(q, k, v, variants, scale, dropout, use_aten: bool):
    """Output and statistics."""
    out = empty_like(q, v.shape[3])
    stats = q.new_empty(*q.shape[:3], 2, dtype=accumulator(q.dtype))
    plan, keys = _plan(q, k, variants, use_aten)
    for part in plan:
        if part.lo >= part.hi:
            out[part.queries], stats[part.queries] = 0, 0
        else:
            out[part.queries], stats[part.queries] = tile.forward(
                q, k, v, variants, scale, dropout, part, keys
            )
    return out, stats


def backward(do, dlse, q, k, v, out, stats, variants, scale, dropout, wanted: Sequence[bool]):
    """dq, dk, dv, and the gradient of the first argument of each variant that is ``wanted``."""
    use_aten = tile_aten.can_express(q, v, variants, dropout) and dlse is None and not any(wanted)
    if not use_aten or not tile_aten.in_one_call(q, k, variants, scale):
        options = variants, scale, dropout, wanted
        return _backward_tiles(do, dlse, q, k, v, out, stats, *options, use_aten)
    lse = statistics.lse(stats)
    gradients = tile_aten.backward_whole(do, q, k, v, out, lse, bool(variants), scale)
    gradients = [laid_out(x, q, gradient=True) for x in gradients]
    for b in statistics.extreme(lse):
        at = slice(b, b + 1)
        parts = (do[at], None, q[at], k[at], v[at], out[at], stats[at])
        *found, _ = _backward_tiles(*parts, variants, scale, None, wanted, False)
        for gradient, one in zip(gradients, found, strict=True):
            gradient[at] = one
    return *gradients, []


def _backward_tiles(
    do, dlse, q, k, v, out, stats, variants, scale, dropout, wanted: Sequence[bool], use_aten: bool
):
    dtype = accumulator(q.dtype)
    dq = empty_gradient(q)
    dk, dv = (empty_gradient(x, dtype).zero_() for x in (k, v))
    dargs = {
        variant: variant.args[0].new_zeros(variant.args[0].shape, dtype=dtype)
        for variant, want in zip(variants, wanted, strict=True)
        if want
    }
    plan, keys = _plan(q, k, variants, use_aten)
    for part in plan:
        if part.lo >= part.hi:
            dq[part.queries] = 0
        else:
            dq[part.queries] = tile.backward(
                *(do, dlse, q, k, v, out, stats, variants, scale, dropout, part, keys),
                *(dk, dv, dargs),
            )
    return dq, dk.to(k.dtype), dv.to(v.dtype), list(dargs.values())


def _plan(q, k, variants, use_aten: bool):
    """The tiles, and the keys per chunk for `tile_online`, None for `tile_aten`."""
    shape = Shape.of(q, k)
    batch, num_heads = max(1, shape.batch), max(1, shape.num_heads)
    if use_aten:
        rows = rows_per_tile(shape, variants, tile_aten.ROWS)
        return tiles(shape, variants, rows, batch), None
    tile_online.keep_freed_memory()
    rows = rows_per_tile(shape, variants, tile_online.ROWS)
    held = num_heads * min(rows, max(1, shape.seqlen_q))
    scores = held * min(max(1, shape.seqlen_k), 512)
    sequences = max(1, tile_online.CHUNK_SCORES // scores)
    keys = tile_online.keys_per_chunk(held * min(sequences, batch))
    return tiles(shape, variants, rows, sequences), keys
