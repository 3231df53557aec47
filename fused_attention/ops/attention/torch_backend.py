"""Attention without Triton: exact, O(n) in memory forward and backward, in fp64 too.

Queries are cut into tiles that meet only the keys their variants' bounds allow.  A tile goes to
ATen's flash kernel where that can express it (`attention_aten`), otherwise through PyTorch
operations (`attention_online`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch

from ...variants.base import Variant
from ..layout import accumulator, empty_gradient, empty_like, laid_out
from . import tile_aten as aten
from . import tile_online as online
from .tiles import Problem, rows_per_tile, tiles

# Scores in flight at once: enough to drown the cost of dispatch, few enough to stay in cache.
_CHUNK_SCORES = 1 << 19
_ONLINE_ROWS = 256
_ATEN_ROWS = 512


def forward(q, k, v, variants: Sequence[Variant], scale: float, dropout: online.Dropout | None):
    """Output (B, H, M, Dv) in the dtype of q, and LSE (B, H, M)."""
    use_aten = aten.can_express(q, v, variants, dropout)
    if use_aten and aten.in_one_call(q, k, variants, scale):
        out, lse = aten.forward_whole(q, k, v, bool(variants), scale)
        return laid_out(out, q), lse.contiguous()
    out = empty_like(q, v.shape[3])
    lse = q.new_empty(q.shape[:3], dtype=accumulator(q.dtype))
    plan, keys = _plan(q, k, variants, use_aten)
    for tile in plan:
        if tile.lo >= tile.hi:
            out[tile.queries], lse[tile.queries] = 0, -math.inf
            continue
        if use_aten:
            result = aten.forward(q, k, v, variants, scale, tile)
        else:
            result = online.forward(q, k, v, variants, scale, dropout, tile, keys)
        out[tile.queries], lse[tile.queries] = result
    return out, lse


def backward(do, dlse, q, k, v, out, lse, variants, scale, dropout, wanted: Sequence[bool]):
    """dq, dk, dv, and the gradient of the first argument of each variant that is ``wanted``."""
    use_aten = aten.can_express(q, v, variants, dropout) and dlse is None and not any(wanted)
    if use_aten and aten.in_one_call(q, k, variants, scale):
        gradients = aten.backward_whole(do, q, k, v, out, lse, bool(variants), scale)
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
            dq[tile.queries], dk_tile, dv_tile = aten.backward(
                do, q, k, v, out, lse, variants, scale, tile
            )
            dk[tile.keys] += dk_tile
            dv[tile.keys] += dv_tile
        else:
            dq[tile.queries] = online.backward(
                *(do, dlse, q, k, v, out, lse, variants, scale, dropout, tile, keys),
                *(dk, dv, dargs),
            )
    return dq, dk.to(k.dtype), dv.to(v.dtype), list(dargs.values())


def _plan(q, k, variants, use_aten: bool):
    """The tiles, and how many keys a chunk of them has for `attention_online`."""
    problem = Problem.of(q, k)
    if use_aten:
        rows = rows_per_tile(problem, variants, _ATEN_ROWS)
        return tiles(problem, variants, rows, max(1, problem.batch)), 0
    keep_freed_memory()
    rows = rows_per_tile(problem, variants, _ONLINE_ROWS)
    held = max(1, problem.num_heads) * min(rows, max(1, problem.seqlen_q))
    sequences = max(1, _CHUNK_SCORES // (held * min(max(1, problem.seqlen_k), 512)))
    held *= min(sequences, max(1, problem.batch))
    keys = max(128, _CHUNK_SCORES // held // 4 * 4)
    return tiles(problem, variants, rows, sequences), keys


@functools.cache
def keep_freed_memory() -> None:
    """Ask the allocator, once, not to hand every freed chunk back to the system.

    Its pages would be mapped and cleared again for the next, which takes up to a quarter of the
    time.  glibc keeps up to twice the largest block it has seen freed, of 32 MiB at most.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
