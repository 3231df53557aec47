"""Variants as one mask of the size of the scores, for PyTorch's own attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...variants.base import Shape, Variant
from .tiles import Tile, additive_mask, keep


def sdpa_mask(shape: Shape, variants: Sequence[Variant], dtype: torch.dtype) -> torch.Tensor | None:
    """``attn_mask`` for ``F.scaled_dot_product_attention``; None if there are no variants.

    Boolean if all variants are masks, of ``dtype`` if one adds to the scores.  Raises
    NotImplementedError for a variant that is neither a mask nor additive.
    """
    more = [v.name for v in variants if v.type.mask is None and not v.type.additive]
    if more:
        raise NotImplementedError(
            f"F.scaled_dot_product_attention can only add to scores, not apply {', '.join(more)}"
        )
    seqlen_q, seqlen_k = shape.seqlen_q, shape.seqlen_k
    whole = Tile(
        slice(0, shape.batch), slice(0, seqlen_q), 0, seqlen_k, 0, 0 if variants else seqlen_k
    )
    if any(variant.type.score is not None for variant in variants):
        return additive_mask(shape, variants, whole, dtype)
    return keep(variants, whole, whole.indices(shape))
