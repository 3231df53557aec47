"""Naive attention: the textbook formula in plain PyTorch, which defines the correct result.

Attention Is All You Need (Vaswani et al. 2017, arXiv 1706.03762), equation 1.  All scores are in
memory at once: the quadratic cost that the tiled kernels avoid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from . import philox
from .variants.base import Variant, as_variants


class Attention(NamedTuple):
    out: torch.Tensor
    lse: torch.Tensor
    weights: torch.Tensor | None


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    variants: Variant | Sequence[Variant] = (),
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    return_weights: bool = False,
) -> Attention:
    """Softmax attention with every score materialized; any floating dtype, differentiable.

    ``q``: (batch, heads, seqlen_q, head_dim), ``k``: (batch, kv_heads, seqlen_k, head_dim),
    ``v``: (batch, kv_heads, seqlen_k, head_dim_v); kv_heads divides heads.  Matrix products run
    in the dtype of the inputs, scores and softmax in at least fp32.

    Returns ``out`` (batch, heads, seqlen_q, head_dim_v), ``lse`` (batch, heads, seqlen_q), the
    natural logarithm of the softmax's denominator, and, if asked for, the ``weights``
    (batch, heads, seqlen_q, seqlen_k) after dropout.  A query that sees no key has
    ``out = 0`` and ``lse = -inf``.  Dropout draws its seed as `fused_attention.attention` does:
    after the same ``torch.manual_seed`` both drop the same weights.
    """
    variants = as_variants(variants)
    group = q.shape[1] // max(1, k.shape[1])
    if group > 1:
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale

    scores = (q @ k.mT).to(torch.promote_types(q.dtype, torch.float32)) * scale
    seqlen_q, seqlen_k = scores.shape[-2:]
    b, h, row, kv_idx = (
        torch.arange(n, device=q.device).view([-1 if d == i else 1 for d in range(4)])
        for i, n in enumerate(scores.shape)
    )
    where = (b, h, row + seqlen_k - seqlen_q, kv_idx, seqlen_q, seqlen_k)
    for variant in variants:
        if variant.type.score is not None:
            scores = variant.torch_score(scores, *where)
    for variant in variants:
        if variant.type.mask is not None:
            scores = scores.masked_fill(~variant.torch_mask(*where), -math.inf)

    for variant in variants:
        if variant.type.sink_logit is not None:
            logits = variant.type.sink_logit(variant.args).to(scores.dtype)
            logits = logits[:, None, None].expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, logits], -1)

    empty = (scores == -math.inf).all(-1)
    scores = scores.masked_fill(empty[..., None], 0)
    lse = torch.logsumexp(scores, -1).masked_fill(empty, -math.inf)
    weights = torch.softmax(scores, -1).masked_fill(empty[..., None], 0)
    weights = weights[..., :seqlen_k]  # without the sinks, which have no values
    if dropout_p > 0:
        kept = philox.keep(philox.new_seed(q.device), b, h, row, kv_idx, dropout_p)
        weights = weights * kept * philox.inverse_keep(dropout_p)
    weights = weights.to(q.dtype)
    return Attention(weights @ v, lse, weights if return_weights else None)
