"""A tile of attention in PyTorch operations: every variant, dropout, any device.

FlashAttention-2 (Dao 2023, arXiv 2307.08691): keys come in chunks that stay in cache, the forward
pass rescales running sums, the backward pass recomputes the weights from the `statistics` of the
rows.  Shapes in the comments: B sequences, H query heads, K key heads, M rows, N keys of a chunk,
D head_dim.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch

from ...variants.base import Shape, Variant
from ..layout import accumulator
from . import statistics, tables
from .dropout import Dropout, multipliers
from .tiles import Tile, keep

ROWS = 256  # of a tile, at most
# Scores computed at once: enough to amortize dispatch, few enough to stay in cache.
CHUNK_SCORES = 1 << 19


def forward(q, k, v, variants, scale: float, dropout: Dropout | None, tile: Tile, keys: int):
    """Output and statistics of the tile's rows, in fp32 or fp64.

    A chunk has at most ``keys`` keys.
    """
    shape = Shape.of(q, k)
    dtype = accumulator(q.dtype)
    q = q[tile.queries].to(dtype) * scale
    m_i = q.new_full((*q.shape[:3], 1), -math.inf)
    l_i = torch.zeros_like(m_i)
    acc = q.new_zeros(*q.shape[:3], v.shape[-1])
    for chunk in _chunks(tile, keys):
        _, s = _scores(q, k, variants, shape, chunk)  # (B, H, M, N)
        m_new = torch.maximum(m_i, s.amax(-1, keepdim=True))
        m_safe = m_new.masked_fill(m_new.isinf(), 0)
        p = (s - m_safe).exp_()
        alpha = (m_i - m_safe).exp_()
        l_i = l_i.mul_(alpha).add_(p.sum(-1, keepdim=True))
        if dropout is not None:
            p *= multipliers(dropout, shape, chunk, dtype)
        acc = acc.mul_(alpha).add_(_matmul(p, v[chunk.keys].to(dtype)))
        m_i = m_new
    out = acc.div_(l_i.masked_fill(l_i == 0, 1))
    return out, torch.cat((m_i, l_i), -1)


def backward(
    do, dlse, q, k, v, out, stats, variants, scale, dropout, tile: Tile, keys: int, dk, dv, dargs
):
    """dq of the tile's rows; adds to ``dk`` and ``dv`` (B, K, N, D) and to ``dargs``.

    ``dargs`` maps a variant to the tensor that accumulates the gradient of its first argument.
    """
    shape = Shape.of(q, k)
    dtype = accumulator(q.dtype)
    q, do = q[tile.queries].to(dtype) * scale, do[tile.queries].to(dtype)
    stats = stats[tile.queries]
    chunks = list(_chunks(tile, keys))
    once = len(chunks) == 1

    def weights(chunk: Tile):
        """Scores, weights p, their dropout factors (or None) and dp, (B, H, M, N) each."""
        scores, s = _scores(q, k, variants, shape, chunk)
        p = statistics.softmax(s, stats) if once else statistics.weights(s, stats)
        dp = _matmul(do, v[chunk.keys].to(dtype).mT)
        if dropout is None:
            return scores, p, None, dp
        kept = multipliers(dropout, shape, chunk, dtype)
        return scores, p, kept, dp.mul_(kept)

    parts = [weights(chunks[0])] if once else map(weights, chunks)
    if once or out.dtype != dtype:
        # The same weights and dp as in ds, so that what cancels there cancels exactly.  And an
        # output in half precision is rounded: its error would shift whole rows of ds, and sums
        # over keys, such as the gradient of a bias, would not average it out.
        delta = _mean((p, dp) for _, p, _, dp in (parts if once else map(weights, chunks)))
    else:
        delta = (do * out[tile.queries]).sum(-1, keepdim=True)
    if dlse is not None:
        delta -= dlse[tile.queries].unsqueeze(-1)
    dq = torch.zeros_like(q)
    num_kv_heads = k.shape[1]
    for chunk, (scores, p, kept, dp) in zip(chunks, parts, strict=True):
        dv[chunk.keys] += _matmul_over_rows(p if kept is None else p * kept, do, num_kv_heads)
        ds = dp.sub_(delta).mul_(p)
        ds = _score_grads(ds, scores, variants, shape, chunk, dargs)
        dq += _matmul(ds, k[chunk.keys].to(dtype))
        dk[chunk.keys] += _matmul_over_rows(ds, q, num_kv_heads)
    return dq.mul_(scale)


def _mean(chunks):
    """The mean of dp over the keys, weighted by p, (B, H, M, 1), from (p, dp) of all chunks."""
    total = mass = 0
    for p, dp in chunks:
        total = total + (p * dp).sum(-1, keepdim=True)
        mass = mass + p.sum(-1, keepdim=True)
    return total / mass.masked_fill(mass == 0, 1)


def _chunks(tile: Tile, keys: int) -> Iterator[Tile]:
    """The tile in chunks of ``keys`` keys, from a multiple of four as `philox.keep` requires."""
    for lo in range(tile.lo // 4 * 4, tile.hi, keys):
        yield tile._replace(lo=lo, hi=min(lo + keys, tile.hi))


def _scores(q, k, variants, shape: Shape, chunk: Tile):
    """The scores before and after each score variant, as a list, and the final scores, masked."""
    scores = [_matmul(q, k[chunk.keys].to(q.dtype).mT)]
    indices = chunk.indices(shape)
    for variant in _scoring(variants):
        scores.append(chunk.cut(variant).torch_score(scores[-1], *indices))
    kept = keep(variants, chunk, indices)
    masked = scores[-1] if kept is None else torch.where(kept, scores[-1], -math.inf)
    return scores, masked


def _score_grads(ds, scores, variants, shape: Shape, chunk: Tile, dargs):
    """The gradient of the raw scores from that of the final scores; adds to ``dargs``."""
    indices = chunk.indices(shape)
    scoring = _scoring(variants)
    for i in reversed(range(len(scoring))):
        kind, s_in, s_out = scoring[i].type, scores[i], scores[i + 1]
        cut = chunk.cut(scoring[i])
        darg = dargs.get(scoring[i])
        if darg is not None:
            contribution = kind.torch_arg_grad(ds, s_in, *indices, cut.args)
            if kind.torch_arg_index is not None:
                tables.add_at(darg, tables.index_of(cut, indices), contribution)
            else:
                target = chunk.cut(Variant(kind, (darg,)))
                target.args[0].add_(contribution.sum_to_size(target.args[0].shape))
        if not kind.additive:
            ds = kind.torch_score_grad(ds, s_in, s_out, *indices, cut.args)
    return ds


def _scoring(variants):
    return [variant for variant in variants if variant.type.score is not None]


def _matmul(x, y):
    """(B, H, M, D) @ (B, K, D, N) -> (B, H, M, N): the heads of a group are rows of one product."""
    folded = x.reshape(x.shape[0], y.shape[1], -1, x.shape[3])
    return (folded @ y).view(*x.shape[:3], y.shape[3])


def _matmul_over_rows(x, y, num_kv_heads: int):
    """(B, H, M, N) and (B, H, M, D) -> (B, K, N, D), summed over rows and the heads of a group."""
    x, y = (t.reshape(t.shape[0], num_kv_heads, -1, t.shape[3]) for t in (x, y))
    return x.mT @ y


def keys_per_chunk(rows_in_flight: int) -> int:
    """Keys of a chunk, a multiple of four, for ``rows_in_flight`` rows of all heads at once."""
    return max(128, CHUNK_SCORES // rows_in_flight // 4 * 4)


@functools.cache
def keep_freed_memory() -> None:
    """Ask the allocator, once, not to return every freed chunk to the system.

    Mapping and clearing memory again for the next chunk takes up to a quarter of the time.  glibc
    keeps up to twice the size of the largest block freed so far, if that is at most 32 MiB.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
