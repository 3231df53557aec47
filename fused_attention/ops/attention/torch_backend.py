"""Attention on PyTorch operations: exact, O(n) in memory forward and backward, in fp64 too.

Queries are cut into tiles, which skip the keys outside the variants' bounds.  A tile is computed by
ATen's flash kernel if possible (`tile_aten`), else by other PyTorch operations (`tile_online`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...variants.base import Shape, Variant
from ..layout import accumulator, empty_gradient, empty_like, laid_out
from . import tile_aten, tile_online
from .dropout import Dropout
from .tiles import rows_per_tile, tiles


def forward(q, k, v, variants: Sequence[Variant], scale: float, dropout: Dropout | None):
    """Output (B, H, M, Dv) in the dtype of q, and LSE (B, H, M)."""
    use_aten = tile_aten.can_express(q, v, variants, dropout)
    if use_aten and tile_aten.in_one_call(q, k, variants, scale):
        out, lse = tile_aten.forward_whole(q, k, v, bool(variants), scale)
        return laid_out(out, q), lse.contiguous()
    out = empty_like(q, v.shape[3])
    lse = q.new_empty(q.shape[:3], dtype=accumulator(q.dtype))
    plan, keys = _plan(q, k, variants, use_aten)
    for tile in plan:
        if tile.lo >= tile.hi:
            out[tile.queries], lse[tile.queries] = 0, -math.inf
            continue
        if use_aten:
            result = tile_aten.forward(q, k, v, variants, scale, tile)
        else:
            result = tile_online.forward(q, k, v, variants, scale, dropout, tile, keys)
        out[tile.queries], lse[tile.queries] = result
    return out, lse


def backward(do, dlse, q, k, v, out, lse, variants, scale, dropout, wanted: Sequence[bool]):
    """dq, dk, dv, and the gradient of the first argument of each variant that is ``wanted``."""
    use_aten = tile_aten.can_express(q, v, variants, dropout) and dlse is None and not any(wanted)
    if use_aten and tile_aten.in_one_call(q, k, variants, scale):
        gradients = tile_aten.backward_whole(do, q, k, v, out, lse, bool(variants), scale)
        return *(laid_out(x, q, gradient=True) for x in gradients), []
    dtype = accumulator(q.dtype)
    dq = empty_gradient(q)
    dk, dv = (empty_gradient(x, dtype).zero_() for x in (k, v))
    dargs = {
        variant: variant.args[0].new_zeros(variant.args[0].shape, dtype=dtype)
        for variant, want in zip(variants, wanted, strict=True)
        if want
    }
    plan, keys = _plan(q, k, variants, use_aten)
    for tile in plan:
        if tile.lo >= tile.hi:
            dq[tile.queries] = 0
        elif use_aten:
            dq[tile.queries], dk_tile, dv_tile = tile_aten.backward(
                do, q, k, v, out, lse, variants, scale, tile
            )
            dk[tile.keys] += dk_tile
            dv[tile.keys] += dv_tile
        else:
            dq[tile.queries] = tile_online.backward(
                do,
                dlse,
                q,
                k,
                v,
                out,
                lse,
                variants,
                scale,
                dropout,
                tile,
                keys,
                dk,
                dv,
                dargs,
            )
    return dq, dk.to(k.dtype), dv.to(v.dtype), list(dargs.values())


def _plan(q, k, variants, use_aten: bool):
    """The tiles, and the keys per chunk for `tile_online`."""
    shape = Shape.of(q, k)
    batch, num_heads = max(1, shape.batch), max(1, shape.num_heads)
    if use_aten:
        rows = rows_per_tile(shape, variants, tile_aten.ROWS)
        return tiles(shape, variants, rows, batch), 0
    tile_online.keep_freed_memory()
    rows = rows_per_tile(shape, variants, tile_online.ROWS)
    held = num_heads * min(rows, max(1, shape.seqlen_q))
    scores = held * min(max(1, shape.seqlen_k), 512)
    sequences = max(1, tile_online.CHUNK_SCORES // scores)
    keys = tile_online.keys_per_chunk(held * min(sequences, batch))
    return tiles(shape, variants, rows, sequences), keys
