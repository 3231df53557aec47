"""Dropout mask of attention weights: Philox4x32-10 keyed by (seed, batch, head, row, key).

`fused_attention/philox.py` computes the same function, so the mask depends neither on the tile size
nor on the backend.  Four consecutive keys share one Philox call.
"""

import triton
import triton.language as tl


@triton.jit
def keep_tile(seed_ptr, b, h, row, start_n, threshold, BLOCK_N: tl.constexpr):
    """The mask of a tile, (M, BLOCK_N), True to keep; ``row``: (M, 1), ``start_n`` % 4 == 0."""
    seed = tl.load(seed_ptr).to(tl.uint64, bitcast=True)
    quad = start_n // 4 + tl.arange(0, BLOCK_N // 4)
    c0 = (quad[None, :] + row * 0).to(tl.uint32)
    c1 = (row + quad[None, :] * 0).to(tl.uint32)
    zero = c0 * 0
    r0, r1, r2, r3 = tl.philox(seed, c0, c1, zero + h.to(tl.uint32), zero + b.to(tl.uint32))
    bits = tl.interleave(tl.interleave(r0, r2), tl.interleave(r1, r3))
    return (bits >> 8).to(tl.int32) >= threshold
