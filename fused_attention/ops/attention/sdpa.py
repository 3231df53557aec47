"""Drop-in for `torch.nn.functional.scaled_dot_product_attention`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ...plain import check_plain
from ...variants.bias import bias
from ...variants.causal import causal
from ...variants.mask import mask
from .. import autocast
from ..checks import check_dropout, check_floating, check_scale
from . import checks
from .attention import apply

_NAMES = ("query", "key", "value")


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Drop-in for ``torch.nn.functional.scaled_dot_product_attention``.

    Args:
        query: (..., heads, seqlen_q, head_dim); leading dimensions broadcast, and may be absent.
            With a head_dim of 0 all scores are 0, plus a floating attn_mask.
        key: (..., kv_heads, seqlen_k, head_dim).
        value: (..., kv_heads, seqlen_k, head_dim_v).
        attn_mask: broadcastable to (..., heads, seqlen_q, seqlen_k); boolean, True to attend, or
            floating, added to the scores (differentiable).  Or a ``CausalBias`` of the two
            lengths, from ``torch.nn.attention.bias``, which is applied without a mask in memory.
        dropout_p: probability of dropping a weight; applied always, as in torch.
        is_causal: causal mask aligned top left: query i sees keys ``j <= i``.  (`causal()`, for
            `fused_attention.attention`, is aligned bottom right.)  With an attn_mask too, a query
            sees the keys that both allow.
        scale: of the scores; 1 / sqrt(head_dim) by default.
        enable_gqa: allow fewer key heads than query heads; kv_heads must divide heads.

    Returns (..., heads, seqlen_q, head_dim_v).  The output of a query that sees no key is zero.

    Raises ValueError or TypeError, naming the argument, where torch raises RuntimeError;
    NotImplementedError for nested tensors, tensor subclasses that redefine operations, forward-mode
    derivatives and double backward.
    """
    check_scale(scale)
    check_dropout(dropout_p)
    query, key, value = autocast.cast(query, key, value)
    for name, x in zip(_NAMES, (query, key, value), strict=True):
        check_floating(name, x, hint=checks.PAD)
        if x.ndim < 2:
            raise ValueError(f"{name}: expected (..., seqlen, head_dim), got {tuple(x.shape)}")
    lead, heads = _leading(query, key, value, enable_gqa)
    q, k, v = (_to_4d(x, lead, h) for x, h in zip((query, key, value), heads, strict=True))
    checks.check_tensors(q, k, v, names=_NAMES)
    variants = [causal("top_left")] if is_causal else []
    if _is_causal_bias(attn_mask):
        variants.append(_causal_variant(attn_mask, q, k))
    elif attn_mask is not None:
        variants.append(_mask_variant(attn_mask, lead))
    checks.check_variants(q, k, variants)
    out = _any_width(q, k, v, variants, scale, dropout_p)
    ndim = max(2, query.ndim, key.ndim, value.ndim)
    return out.reshape((*lead, *out.shape[1:])[-ndim:])


def _any_width(q, k, v, variants, scale: float | None, dropout_p: float):
    """The output, for head dimensions of 0 too: a column of zeros takes the place of none."""
    head_dim, head_dim_v = q.shape[3], v.shape[3]
    if head_dim == 0:
        q, k = F.pad(q, (0, 1)), F.pad(k, (0, 1))
    if head_dim_v == 0:
        v = F.pad(v, (0, 1))
    out, _ = apply(q, k, v, variants, scale, dropout_p)
    return out[..., :head_dim_v]


def _leading(query, key, value, enable_gqa: bool):
    """The broadcast dimensions before the heads, and the number of heads of each tensor."""
    heads = [x.shape[-3] if x.ndim > 2 else 1 for x in (query, key, value)]
    try:
        lead = torch.broadcast_shapes(*(x.shape[:-3] for x in (query, key, value)))
        if not enable_gqa:
            heads = [torch.broadcast_shapes(*((h,) for h in heads))[0]] * 3
    except RuntimeError:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        hint = "" if enable_gqa else " (or enable_gqa=True, for fewer key heads)"
        raise ValueError(
            f"query, key, value: expected leading dimensions that broadcast{hint}, got {shapes}"
        ) from None
    return lead, heads


def _to_4d(x, lead, heads: int):
    """Expand the leading dimensions and fold them into one; make the last dimension contiguous."""
    x = x.expand(*lead, heads, *x.shape[-2:]).reshape(math.prod(lead), heads, *x.shape[-2:])
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _is_causal_bias(attn_mask) -> bool:
    if attn_mask is None or type(attn_mask) in (torch.Tensor, torch.nn.Parameter):
        return False
    # Imported only here: it imports torch._dynamo, which takes seconds.
    from torch.nn.attention.bias import CausalBias

    return isinstance(attn_mask, CausalBias)


def _causal_variant(attn_mask, q, k):
    """The variant that a ``CausalBias`` describes by its attributes; its memory holds nothing."""
    from torch.nn.attention.bias import CausalVariant

    lengths = attn_mask.seq_len_q, attn_mask.seq_len_kv
    if lengths != (q.shape[2], k.shape[2]):
        raise ValueError(
            f"attn_mask: expected a CausalBias of {q.shape[2]} queries and {k.shape[2]} keys, "
            f"got one of {lengths[0]} and {lengths[1]}"
        )
    upper_left = attn_mask.variant == CausalVariant.UPPER_LEFT
    return causal("top_left" if upper_left else "bottom_right")


def _mask_variant(attn_mask, lead):
    """The mask as a variant; its leading dimensions are folded like those of the tensors."""
    check_plain("attn_mask", attn_mask)
    if attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
        raise TypeError(f"attn_mask: expected dtype bool or floating, got {attn_mask.dtype}")
    if attn_mask.ndim > len(lead) + 3:
        raise ValueError(
            f"attn_mask: expected at most {len(lead) + 3} dimensions, got {tuple(attn_mask.shape)}"
        )
    if len(lead) > 1 and attn_mask.ndim > 3:
        tail = attn_mask.shape[-3:]
        attn_mask = attn_mask.expand(*lead, *tail).reshape(math.prod(lead), *tail)
    return mask(attn_mask) if attn_mask.dtype == torch.bool else bias(attn_mask)
