"""Dropout of attention weights on the torch backend."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ... import philox
from ...variants.base import Shape
from .tiles import Tile


class Dropout(NamedTuple):
    """The probability with which a weight is dropped, and the seed: int64, shape (1,)."""

    p: float
    seed: torch.Tensor


def multipliers(dropout: Dropout, shape: Shape, tile: Tile, dtype: torch.dtype) -> torch.Tensor:
    """Factors of the weights of a tile: 0 where dropped, 1 / (1 - p) where kept."""
    b, h, q_idx, kv_idx, seqlen_q, seqlen_k = tile.indices(shape)
    row = q_idx - (seqlen_k - seqlen_q)
    kept = philox.keep(dropout.seed, b, h, row, kv_idx, dropout.p)
    return kept.to(dtype).mul_(philox.inverse_keep(dropout.p))
