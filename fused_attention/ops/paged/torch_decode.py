"""Paged attention of one query on a CPU, which reads keys and values in place.

Attention is computed for each page separately, with the query heads of a group as rows, and the
outputs are merged by their log-sum-exps.  Pages in consecutive blocks of the pool are the batch of
one call of ATen's flash kernel; the batching does not change a bit of the result.  For small pages
it is faster to gather them and call the kernel once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..attention.statistics import extreme
from ..attention.tile_aten import forward_whole
from ..layout import accumulator

_BYTES_A_CALL = 1 << 18  # copying this many bytes takes as long as a call


def in_place(q, kv) -> bool:
    """Whether the cache has the dtype of ``q``, and pages large enough for a call each."""
    return q.dtype == kv.dtype and kv.shape[1:].numel() * kv.itemsize >= _BYTES_A_CALL


def attend_in_place(q, kv, blocks: list[int], lo: int, hi: int, scale: float):
    """Output (H, D) and LSE (H,) of one query q, (H, D), that sees all of the keys [lo, hi).

    ``kv`` is (num_blocks, 2, page_size, K, D), ``blocks`` the sequence's row of the block table.
    None if a score is so large, or not finite, that the pages cannot be merged by their LSE.
    """
    outs, lses = [], []
    for first, count, slots in _runs(blocks, lo, hi, kv.shape[2]):
        k, v = (kv[first : first + count, side, slots].transpose(1, 2) for side in (0, 1))
        result = _attend(q, k, v, scale)
        if result is None:
            return None
        outs.append(result[0])
        lses.append(result[1])
    out, lse = torch.cat(outs).to(accumulator(q.dtype)), torch.cat(lses)  # (P, K, G, D), (P, K, G)
    most = lse.amax(0)
    weights = (lse - most).exp()
    total = weights.sum(0)
    out = (out * weights[..., None]).sum(0) / total[..., None]
    return out.reshape(q.shape), (most + total.log()).flatten()


def attend_gathered(q, k, v, scale: float):
    """Like `attend_in_place`, with gathered keys and values, (1, K, N, D)."""
    result = _attend(q, k, v, scale)
    return result if result is None else (result[0].reshape(q.shape), result[1].flatten())


def _attend(q, k, v, scale: float):
    """Output (P, K, G, D) and LSE (P, K, G) over k and v, (P, K, N, D), or None."""
    rows = q.reshape(1, k.shape[1], -1, q.shape[1]).expand(len(k), -1, -1, -1)
    out, lse = forward_whole(rows, k, v, False, scale)
    return None if extreme(lse) else (out, lse)


def _runs(blocks: list[int], lo: int, hi: int, page_size: int) -> Iterator[tuple[int, int, slice]]:
    """Runs of consecutive blocks with the keys [lo, hi): (first block, blocks, slots of each)."""
    page, key = lo // page_size, lo
    while key < hi:
        first, start = page, key % page_size
        stop = min(page_size, start + hi - key)
        page, key = page + 1, key + stop - start
        if stop - start == page_size:
            while hi - key >= page_size and blocks[page] == blocks[page - 1] + 1:
                page, key = page + 1, key + page_size
        yield blocks[first], page - first, slice(start, stop)
