"""How the torch path cuts attention into tiles, and what a tile of a variant stack looks like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from ...variants.base import Variant


class Tile(NamedTuple):
    """Rows of some sequences, the keys [lo, hi) they see, and [full_lo, full_hi) that all see."""

    batch: slice
    rows: slice
    lo: int
    hi: int
    full_lo: int
    full_hi: int

    @property
    def queries(self):
        return self.batch, slice(None), self.rows

    @property
    def keys(self):
        return self.batch, slice(None), slice(self.lo, self.hi)

    @property
    def partial(self) -> bool:
        """Whether some query of the tile may not see some key of it."""
        return self.lo < self.full_lo or self.full_hi < self.hi


class Problem(NamedTuple):
    """The shapes a variant stack is applied to."""

    batch: int
    num_heads: int
    seqlen_q: int
    seqlen_k: int
    device: torch.device

    @classmethod
    def of(cls, q: torch.Tensor, k: torch.Tensor) -> Problem:
        return cls(*q.shape[:3], k.shape[2], q.device)

    def where(self, tile: Tile):
        """The index arguments of a torch twin for a tile: b, h, q_idx, kv_idx and the lengths."""
        offset = self.seqlen_k - self.seqlen_q
        ranges = (
            (tile.batch.start, tile.batch.stop),
            (0, self.num_heads),
            (tile.rows.start + offset, tile.rows.stop + offset),
            (tile.lo, tile.hi),
        )
        indices = (
            torch.arange(*ends, device=self.device).view([-1 if d == i else 1 for d in range(4)])
            for i, ends in enumerate(ranges)
        )
        return *indices, self.seqlen_q, self.seqlen_k


def tiles(
    problem: Problem, variants: Sequence[Variant], rows: int, sequences: int
) -> Iterator[Tile]:
    """Cut the problem into tiles of at most ``rows`` queries of ``sequences`` sequences."""
    if problem.num_heads == 0:
        return
    batched = any(variant.type.batched_bounds for variant in variants)
    step = 1 if batched else sequences
    for b in range(0, problem.batch, step):
        batch = slice(b, min(b + step, problem.batch))
        for start in range(0, problem.seqlen_q, rows):
            stop = min(start + rows, problem.seqlen_q)
            bounds = key_bounds(problem, variants, b if batched else None, start, stop - 1)
            yield Tile(batch, slice(start, stop), *bounds)


def key_bounds(problem: Problem, variants, b: int | None, first_row: int, last_row: int):
    """lo, hi, full_lo, full_hi of the keys seen by some rows: the variants' bounds intersected."""
    *_, seqlen_q, seqlen_k, _ = problem
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


def rows_per_tile(problem: Problem, variants: Sequence[Variant], most: int) -> int:
    """A power of two: short tiles where the bounds are narrow, to compute little in vain."""
    if not problem.batch or not problem.seqlen_q:
        return most
    batched = any(variant.type.batched_bounds for variant in variants)
    middle = problem.seqlen_q // 2
    lo, hi, *_ = key_bounds(problem, variants, 0 if batched else None, middle, middle)
    return max(64, min(most, 1 << max(0, (hi - lo) // 4).bit_length()))


def keep(variants: Sequence[Variant], tile: Tile, where) -> torch.Tensor | None:
    """True where a query of the tile sees a key; None if all of them see all."""
    if not tile.partial:
        return None
    kept = None
    for variant in variants:
        if variant.type.mask is not None:
            cut = variant.tile(tile.batch, tile.rows, slice(tile.lo, tile.hi))
            seen = cut.torch_mask(*where)
            kept = seen if kept is None else kept & seen
    return kept


def additive_mask(problem: Problem, variants, tile: Tile, dtype: torch.dtype):
    """What the variants add to the scores of a tile, -inf where masked; None if nothing."""
    scores = [variant for variant in variants if variant.type.score is not None]
    if not scores and not tile.partial:
        return None
    where = problem.where(tile)
    kept = keep(variants, tile, where)
    # Four dimensions, lest a bias in half precision make the sum one too.
    total = torch.zeros(1, 1, 1, 1, dtype=dtype, device=problem.device)
    for variant in scores:
        cut = variant.tile(tile.batch, tile.rows, slice(tile.lo, tile.hi))
        total = cut.torch_score(total, *where)
    if kept is not None:
        total = torch.where(kept, total, -math.inf)
    return total.to(dtype)
