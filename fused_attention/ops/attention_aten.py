"""A tile of attention by ATen's flash kernel for CPUs: softmax of scaled scores plus a mask."""

from __future__ import annotations

import math

import torch

from .layout import accumulator
from .tiles import Problem, Tile, additive_mask

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def can_express(q, v, variants, dropout) -> bool:
    """Whether the kernel computes this stack: additive scores, equal head dims, no dropout."""
    return (
        q.device.type == "cpu"
        and q.shape[-1] == v.shape[-1]
        and dropout is None
        and all(v.type.score is None or v.type.additive for v in variants)
    )


def is_causal(q, k, variants) -> bool:
    """Whether the whole stack is the kernel's own causal flag, which is aligned top left."""
    names = [variant.name for variant in variants]
    return names == ["causal_top_left"] or (names == ["causal"] and q.shape[2] == k.shape[2])


def forward(q, k, v, variants, scale: float, tile: Tile, causal: bool):
    """Output and LSE of the tile's rows."""
    mask = None if causal else _mask(q, k, variants, tile)
    out, lse = _forward(
        q[tile.queries], k[tile.keys], v[tile.keys], 0.0, causal, attn_mask=mask, scale=scale
    )
    if mask is not None:
        # The kernel gives an empty row the LSE of a row whose only score is zero.
        empty = (mask.amax(-1) == -math.inf).expand_as(lse)
        lse = lse.masked_fill(empty, -math.inf)
    return out, lse


def backward(do, q, k, v, out, lse, variants, scale: float, tile: Tile, causal: bool):
    """dq of the tile's rows, dk and dv of its keys."""
    lse = lse[tile.queries]
    return _backward(
        do[tile.queries],
        q[tile.queries],
        k[tile.keys],
        v[tile.keys],
        out[tile.queries],
        lse.masked_fill(lse == -math.inf, 0),
        0.0,
        causal,
        attn_mask=None if causal else _mask(q, k, variants, tile),
        scale=scale,
    )


def _mask(q, k, variants, tile):
    mask = additive_mask(Problem.of(q, k), variants, tile, accumulator(q.dtype))
    if mask is None:
        return None
    return mask.expand(mask.shape[0], mask.shape[1], tile.rows.stop - tile.rows.start, -1)
