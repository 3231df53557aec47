"""Variants as PyTorch's own attention takes them: one mask, as large as the scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...variants.base import Variant
from .tiles import Problem, Tile, additive_mask, keep


def sdpa_mask(
    problem: Problem, variants: Sequence[Variant], dtype: torch.dtype
) -> torch.Tensor | None:
    """``attn_mask`` for ``F.scaled_dot_product_attention``; None if there are no variants.

    Boolean where the variants are masks, of ``dtype`` where one adds to the scores.  Raises
    NotImplementedError for those that do more than add.
    """
    more = [v.name for v in variants if v.type.mask is None and not v.type.additive]
    if more:
        raise NotImplementedError(
            f"F.scaled_dot_product_attention can only add to scores, not apply {', '.join(more)}"
        )
    seqlen_q, seqlen_k = problem.seqlen_q, problem.seqlen_k
    whole = Tile(
        slice(0, problem.batch), slice(0, seqlen_q), 0, seqlen_k, 0, 0 if variants else seqlen_k
    )
    if any(variant.type.score is not None for variant in variants):
        return additive_mask(problem, variants, whole, dtype)
    return keep(variants, whole, problem.where(whole))
