"""Tiles of attention on the torch backend: their bounds, and the mask and bias of a tile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from ...variants.base import Shape, Variant


class Tile(NamedTuple):
    """Some rows of some sequences, and the keys [lo, hi), outside which no row sees a key.

    Every row sees all of the keys [full_lo, full_hi).
    """

    batch: slice
    rows: slice
    lo: int
    hi: int
    full_lo: int
    full_hi: int

    @property
    def columns(self) -> slice:
        return slice(self.lo, self.hi)

    @property
    def queries(self):
        """Index of the tile's rows in a tensor (batch, heads, seqlen_q, ...)."""
        return self.batch, slice(None), self.rows

    @property
    def keys(self):
        """Index of the tile's keys in a tensor (batch, heads, seqlen_k, ...)."""
        return self.batch, slice(None), self.columns

    def indices(self, shape: Shape):
        """The index arguments of a torch twin for this tile of an attention of ``shape``."""
        return shape.indices(self.batch, self.rows, self.columns)

    def cut(self, variant: Variant) -> Variant:
        """``variant`` with its 4-D tensor arguments cut to this tile."""
        return variant.tile(self.batch, self.rows, self.columns)

    @property
    def partial(self) -> bool:
        """Whether the tile needs a mask: some of its rows may not see some of its keys."""
        return self.lo < self.full_lo or self.full_hi < self.hi


def tiles(
    shape: Shape, variants: Sequence[Variant], batch: range, rows: int, sequences: int
) -> Iterator[Tile]:
    """Cut the attention of ``batch`` into tiles of at most ``rows`` queries of ``sequences``."""
    if shape.num_heads == 0:
        return
    batched = any(variant.type.batched_bounds for variant in variants)
    step = 1 if batched else sequences
    for b in batch[::step]:
        some = slice(b, min(b + step, batch.stop))
        for start in range(0, shape.seqlen_q, rows):
            stop = min(start + rows, shape.seqlen_q)
            bounds = key_bounds(shape, variants, b if batched else None, start, stop - 1)
            yield Tile(some, slice(start, stop), *bounds)


def key_bounds(shape: Shape, variants, b: int | None, first_row: int, last_row: int):
    """lo, hi, full_lo, full_hi for a range of rows: the intersection of the variants' bounds."""
    *_, seqlen_q, seqlen_k, _ = shape
    offset = seqlen_k - seqlen_q
    lo, hi, full_lo, full_hi = 0, seqlen_k, 0, seqlen_k
    for variant in variants:
        kind = variant.type
        if kind.mask is None:
            continue
        if kind.torch_key_bounds is None:
            full_hi = 0
            continue
        bounds = kind.torch_key_bounds(
            b, first_row + offset, last_row + offset, seqlen_q, seqlen_k, variant.args
        )
        lo, hi = max(lo, bounds[0]), min(hi, bounds[1])
        full_lo, full_hi = max(full_lo, bounds[2]), min(full_hi, bounds[3])
    hi = max(lo, hi)
    return (lo, hi, full_lo, full_hi) if full_lo < full_hi else (lo, hi, lo, lo)


def rows_per_tile(shape: Shape, variants: Sequence[Variant], most: int) -> int:
    """Rows of a tile, a power of two: fewer if the bounds are narrow, to skip more keys."""
    if not shape.batch or not shape.seqlen_q:
        return most
    batched = any(variant.type.batched_bounds for variant in variants)
    middle = shape.seqlen_q // 2
    lo, hi, *_ = key_bounds(shape, variants, 0 if batched else None, middle, middle)
    return max(64, min(most, 1 << max(0, (hi - lo) // 4).bit_length()))


def keep(variants: Sequence[Variant], tile: Tile, indices) -> torch.Tensor | None:
    """True where a query of the tile sees a key; None if every query sees every key."""
    if not tile.partial:
        return None
    kept = None
    for variant in variants:
        if variant.type.mask is not None:
            seen = tile.cut(variant).torch_mask(*indices)
            kept = seen if kept is None else kept & seen
    return kept


def additive_mask(shape: Shape, variants, tile: Tile, dtype: torch.dtype):
    """The sum of the additive variants of a tile, -inf where masked; None if there is neither."""
    scores = [variant for variant in variants if variant.type.score is not None]
    if not scores and not tile.partial:
        return None
    indices = tile.indices(shape)
    kept = keep(variants, tile, indices)
    # 4-D, since a 0-D total would be promoted to the dtype of a bias in half precision.
    total = torch.zeros(1, 1, 1, 1, dtype=dtype, device=shape.device)
    for variant in scores:
        total = tile.cut(variant).torch_score(total, *indices)
    if kept is not None:
        total = torch.where(kept, total, -math.inf)
    return total.to(dtype)
