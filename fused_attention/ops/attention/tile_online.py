"""A tile of attention in PyTorch operations, with everything the variants allow, on any device.

FlashAttention-2 (Dao 2023, arXiv 2307.08691): keys come in chunks that stay in cache, the forward
pass rescales running sums, the backward pass recomputes the weights from the LSE.  Shapes in the
comments: B sequences, H query heads, K key heads, M rows, N keys of a chunk, D head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from ... import philox
from ...variants.base import Variant
from ..layout import accumulator
from .tiles import Problem, Tile, keep


class Dropout(NamedTuple):
    p: float
    seed: torch.Tensor


def forward(q, k, v, variants, scale: float, dropout: Dropout | None, tile: Tile, keys: int):
    """Output and LSE of the tile's rows, in fp32 or better; ``keys`` a chunk."""
    problem = Problem.of(q, k)
    dtype = accumulator(q.dtype)
    q = q[tile.queries].to(dtype) * scale
    m_i = q.new_full((*q.shape[:3], 1), -math.inf)
    l_i = torch.zeros_like(m_i)
    acc = q.new_zeros(*q.shape[:3], v.shape[-1])
    for chunk in _chunks(tile, keys):
        _, s = _scores(q, k, variants, problem, chunk)  # (B, H, M, N)
        m_new = torch.maximum(m_i, s.amax(-1, keepdim=True))
        m_safe = m_new.masked_fill(m_new == -math.inf, 0)
        p = (s - m_safe).exp_()
        alpha = (m_i - m_safe).exp_()
        l_i = l_i.mul_(alpha).add_(p.sum(-1, keepdim=True))
        if dropout is not None:
            p *= _drop(dropout, problem, chunk, dtype)
        acc = acc.mul_(alpha).add_(_matmul(p, v[chunk.keys].to(dtype)))
        m_i = m_new
    out = acc.div_(l_i.masked_fill(l_i == 0, 1))
    return out, (m_i + l_i.log()).squeeze(-1)


def backward(
    do, dlse, q, k, v, out, lse, variants, scale, dropout, tile: Tile, keys: int, dk, dv, dargs
):
    """dq of the tile's rows; adds to ``dk`` and ``dv`` (B, K, N, D) and to ``dargs``.

    ``dargs`` maps a variant to where the gradient of its first argument is to be added.
    """
    problem = Problem.of(q, k)
    dtype = accumulator(q.dtype)
    q, do = q[tile.queries].to(dtype) * scale, do[tile.queries].to(dtype)
    lse = lse[tile.queries].unsqueeze(-1)
    lse = lse.masked_fill(lse == -math.inf, math.inf)

    def weights(chunk: Tile):
        """(B, H, M, N) each: scores, weights p, what dropout multiplies them by, and dp."""
        scores, s = _scores(q, k, variants, problem, chunk)
        p = (s - lse).exp_()
        dp = _matmul(do, v[chunk.keys].to(dtype).mT)
        if dropout is None:
            return scores, p, None, dp
        kept = _drop(dropout, problem, chunk, dtype)
        return scores, p, kept, dp.mul_(kept)

    chunks = list(_chunks(tile, keys))
    parts = [weights(chunks[0])] if len(chunks) == 1 else map(weights, chunks)
    if out.dtype == dtype:
        delta = (do * out[tile.queries]).sum(-1, keepdim=True)
    else:
        # Not from the output, which was rounded to half precision: its error would shift a whole
        # row of ds, and what sums ds over keys, as the gradient of a bias does, loses its digits.
        again = parts if len(chunks) == 1 else map(weights, chunks)
        delta = sum((p * dp).sum(-1, keepdim=True) for _, p, _, dp in again)
    if dlse is not None:
        delta -= dlse[tile.queries].unsqueeze(-1)
    dq = torch.zeros_like(q)
    num_kv_heads = k.shape[1]
    for chunk, (scores, p, kept, dp) in zip(chunks, parts, strict=True):
        dv[chunk.keys] += _matmul_over_rows(p if kept is None else p * kept, do, num_kv_heads)
        ds = dp.sub_(delta).mul_(p)
        ds = _score_grads(ds, scores, variants, problem, chunk, dargs)
        dq += _matmul(ds, k[chunk.keys].to(dtype))
        dk[chunk.keys] += _matmul_over_rows(ds, q, num_kv_heads)
    return dq.mul_(scale)


def _chunks(tile: Tile, keys: int) -> Iterator[Tile]:
    """The tile, ``keys`` keys at a time, from a multiple of four as `philox.keep` wants it."""
    for lo in range(tile.lo // 4 * 4, tile.hi, keys):
        yield tile._replace(lo=lo, hi=min(lo + keys, tile.hi))


def _scores(q, k, variants, problem: Problem, chunk: Tile):
    """The scores before and after every score variant, and the last of them masked."""
    scores = [_matmul(q, k[chunk.keys].to(q.dtype).mT)]
    where = problem.where(chunk)
    for variant in _scoring(variants):
        cut = variant.tile(chunk.batch, chunk.rows, slice(chunk.lo, chunk.hi))
        scores.append(cut.torch_score(scores[-1], *where))
    kept = keep(variants, chunk, where)
    masked = scores[-1] if kept is None else torch.where(kept, scores[-1], -math.inf)
    return scores, masked


def _score_grads(ds, scores, variants, problem: Problem, chunk: Tile, dargs):
    """The gradient of the raw scores from that of the last, the chain rule walked backwards."""
    where = problem.where(chunk)
    scoring = _scoring(variants)
    for i in reversed(range(len(scoring))):
        kind, s_in, s_out = scoring[i].type, scores[i], scores[i + 1]
        cut = scoring[i].tile(chunk.batch, chunk.rows, slice(chunk.lo, chunk.hi))
        darg = dargs.get(scoring[i])
        if darg is not None:
            contribution = kind.torch_arg_grad(ds, s_in, *where, cut.args)
            target = Variant(kind, (darg,)).tile(chunk.batch, chunk.rows, slice(chunk.lo, chunk.hi))
            target.args[0].add_(contribution.sum_to_size(target.args[0].shape))
        if not kind.additive:
            ds = kind.torch_score_grad(ds, s_in, s_out, *where, cut.args)
    return ds


def _scoring(variants):
    return [variant for variant in variants if variant.type.score is not None]


def _drop(dropout: Dropout, problem: Problem, chunk: Tile, dtype: torch.dtype):
    """Zero where a weight is dropped, 1 / (1 - p) where it is kept."""
    b, h, q_idx, kv_idx, seqlen_q, seqlen_k = problem.where(chunk)
    row = q_idx - (seqlen_k - seqlen_q)
    kept = philox.keep(dropout.seed, b, h, row, kv_idx, dropout.p)
    return kept.to(dtype).mul_(philox.inverse_keep(dropout.p))


def _matmul(x, y):
    """(B, H, M, D) @ (B, K, D, N) -> (B, H, M, N), the heads of a group as rows of one product."""
    folded = x.reshape(x.shape[0], y.shape[1], -1, x.shape[3])
    return (folded @ y).view(*x.shape[:3], y.shape[3])


def _matmul_over_rows(x, y, num_kv_heads: int):
    """(B, H, M, N) and (B, H, M, D) -> (B, K, N, D), summed over rows and the heads of a group."""
    x, y = (t.reshape(t.shape[0], num_kv_heads, -1, t.shape[3]) for t in (x, y))
    return x.mT @ y
