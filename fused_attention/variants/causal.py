"""Causal mask: a query sees no key after itself."""

from .._triton import jit
from .base import Variant, define_variant


@jit
def _mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return kv_idx <= q_idx


@jit
def _key_bounds(b, h, q_first, q_last, seqlen_q, seqlen_k, args):
    return 0, q_last + 1, 0, q_first + 1


@jit
def _query_bounds(b, h, kv_first, kv_last, seqlen_q, seqlen_k, args):
    return kv_first, seqlen_k, kv_last, seqlen_k


_BOTTOM_RIGHT = define_variant(
    "causal",
    mask=_mask,
    torch_mask=lambda b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: kv_idx <= q_idx,
    key_bounds=_key_bounds,
    query_bounds=_query_bounds,
    torch_key_bounds=lambda b, first, last, seqlen_q, seqlen_k, args: (0, last + 1, 0, first + 1),
)


@jit
def _top_left_mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return kv_idx <= q_idx - (seqlen_k - seqlen_q)


@jit
def _top_left_key_bounds(b, h, q_first, q_last, seqlen_q, seqlen_k, args):
    offset = seqlen_k - seqlen_q
    return 0, q_last - offset + 1, 0, q_first - offset + 1


@jit
def _top_left_query_bounds(b, h, kv_first, kv_last, seqlen_q, seqlen_k, args):
    offset = seqlen_k - seqlen_q
    return kv_first + offset, seqlen_k, kv_last + offset, seqlen_k


def _torch_top_left_mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return kv_idx <= q_idx - (seqlen_k - seqlen_q)


def _torch_top_left_bounds(b, q_first, q_last, seqlen_q, seqlen_k, args):
    offset = seqlen_k - seqlen_q
    return 0, q_last - offset + 1, 0, q_first - offset + 1


_TOP_LEFT = define_variant(
    "causal_top_left",
    mask=_top_left_mask,
    torch_mask=_torch_top_left_mask,
    key_bounds=_top_left_key_bounds,
    query_bounds=_top_left_query_bounds,
    torch_key_bounds=_torch_top_left_bounds,
)


def causal(align: str = "bottom_right") -> Variant:
    """Causal attention: a query sees the keys up to its own position.

    With ``align="bottom_right"`` (the rule of flash-attn, required for decoding) the last query is
    aligned with the last key: query row i sees keys ``j <= i + seqlen_k - seqlen_q``.  With
    ``align="top_left"`` (the rule of ``F.scaled_dot_product_attention(is_causal=True)``) the first
    query is aligned with the first key: ``j <= i``.  Both are the same if seqlen_q == seqlen_k.

    Raises ValueError for any other ``align``.
    """
    if align == "bottom_right":
        return _BOTTOM_RIGHT()
    if align == "top_left":
        return _TOP_LEFT()
    raise ValueError(f"align: expected 'bottom_right' or 'top_left', got {align!r}")
