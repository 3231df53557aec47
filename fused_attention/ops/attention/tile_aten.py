"""A tile of attention by ATen's flash kernel for CPUs, which takes an additive mask."""

from __future__ import annotations

import math

import torch

from ...variants.base import Shape
from ..layout import accumulator
from .tiles import Tile, additive_mask

ROWS = 512  # of a tile, at most

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def can_express(q, v, variants, dropout) -> bool:
    """Whether the kernel applies: CPU, additive variants, equal head dims, no dropout."""
    return (
        q.device.type == "cpu"
        and q.shape[-1] == v.shape[-1]
        and dropout is None
        and all(v.type.score is None or v.type.additive for v in variants)
    )


def in_one_call(q, k, variants, scale: float) -> bool:
    """Whether one call is enough: no variant, or the causal mask that the kernel has a flag for.

    With the flag, the kernel writes -inf before it scales, so the scale must be positive.
    """
    if 0 in (*q.shape[:3], k.shape[2]):
        return False  # the kernel divides by the lengths
    names = [variant.name for variant in variants]
    aligned = names == ["causal"] and q.shape[2] == k.shape[2]
    return not names or (scale > 0 and (names == ["causal_top_left"] or aligned))


def forward_whole(q, k, v, causal: bool, scale: float):
    """Output and LSE of the whole attention; ``causal`` is aligned top left."""
    return _forward(q, k, v, 0.0, causal, scale=scale)


def backward_whole(do, q, k, v, out, lse, causal: bool, scale: float):
    """dq, dk and dv of the whole attention, in fp32 or fp64; ``causal`` is aligned top left."""
    return _gradients(do, q, k, v, out, lse, causal, scale)


def forward(q, k, v, variants, scale: float, tile: Tile):
    """Output and LSE of the tile's rows."""
    mask = _mask(q, k, variants, tile)
    out, lse = _forward(q[tile.queries], k[tile.keys], v[tile.keys], attn_mask=mask, scale=scale)
    if mask is not None:
        # For a row that sees no key the kernel returns a finite LSE.
        empty = (mask.amax(-1) == -math.inf).expand_as(lse)
        lse = lse.masked_fill(empty, -math.inf)
    return out, lse


def backward(do, q, k, v, out, lse, variants, scale: float, tile: Tile):
    """dq of the tile's rows, dk and dv of its keys; ``lse`` is 0 for rows that see no key."""
    return _gradients(
        do[tile.queries],
        q[tile.queries],
        k[tile.keys],
        v[tile.keys],
        out[tile.queries],
        lse[tile.queries],
        False,
        scale,
        _mask(q, k, variants, tile),
    )


def _gradients(do, q, k, v, out, lse, causal: bool, scale: float, mask=None):
    """dq, dk and dv, in fp32 or fp64: the kernel accumulates dk and dv in the dtype of k."""
    dtype = accumulator(q.dtype)
    do, q, k, v, out = (x.to(dtype) for x in (do, q, k, v, out))
    return _backward(do, q, k, v, out, lse, 0.0, causal, attn_mask=mask, scale=scale)


def _mask(q, k, variants, tile):
    mask = additive_mask(Shape.of(q, k), variants, tile, accumulator(q.dtype))
    if mask is None:
        return None
    return mask.expand(mask.shape[0], mask.shape[1], tile.rows.stop - tile.rows.start, -1)
