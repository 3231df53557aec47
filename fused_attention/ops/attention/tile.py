"""A tile of attention: by ATen's kernel if it is asked for, else by PyTorch operations.

The latter also for sequences with scores that are very large or not finite; see `statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from . import statistics, tile_aten, tile_online
from .tiles import Tile


def forward(q, k, v, variants, scale: float, dropout, tile: Tile, keys: int | None):
    """Output and statistics of the tile's rows.

    ``keys``: those of a chunk of `tile_online`, or None for ATen's kernel.
    """
    if keys is not None:
        return tile_online.forward(q, k, v, variants, scale, dropout, tile, keys)
    out, lse = tile_aten.forward(q, k, v, variants, scale, tile)
    empty = lse == -math.inf
    stats = statistics.of_lse(lse).masked_fill_(empty.unsqueeze(-1), 0)
    for at, part, keys in _extreme(lse.masked_fill(empty, 0), tile):
        out[at], stats[at] = tile_online.forward(q, k, v, variants, scale, dropout, part, keys)
    return out, stats


def backward(
    do, dlse, q, k, v, out, stats, variants, scale, dropout, tile: Tile, keys, dk, dv, dargs
):
    """dq of the tile's rows; adds to ``dk``, ``dv`` and ``dargs``, as `tile_online.backward`."""

    def online(part: Tile, keys: int):
        return tile_online.backward(
            do, dlse, q, k, v, out, stats, variants, scale, dropout, part, keys, dk, dv, dargs
        )

    if keys is not None:
        return online(tile, keys)
    lse = statistics.lse(stats[tile.queries])
    lse = lse.masked_fill(lse == -math.inf, 0)
    dq, dk_tile, dv_tile = tile_aten.backward(do, q, k, v, out, lse, variants, scale, tile)
    for at, part, keys in _extreme(lse, tile):
        dq[at] = online(part, keys)
        dk_tile[at], dv_tile[at] = 0, 0
    dk[tile.keys] += dk_tile
    dv[tile.keys] += dv_tile
    return dq


def _extreme(lse: torch.Tensor, tile: Tile) -> Iterator[tuple[slice, Tile, int]]:
    """The sequences of the tile that ATen's kernel cannot compute: index, tile, keys per chunk."""
    keys = tile_online.keys_per_chunk(lse.shape[1] * lse.shape[2])
    for i in statistics.extreme(lse):
        b = tile.batch.start + i
        yield slice(i, i + 1), tile._replace(batch=slice(b, b + 1)), keys
