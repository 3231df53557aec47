"""The gradient of a table: an argument of a variant of which every score reads one entry.

The variant's ``torch_arg_index`` says which.  The contributions of scores that read the same entry
are added in a fixed order, so that the gradient is the same bit for bit every time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ...variants.base import Shape, Variant

# Contributions held at once, unless one tile of rows has more.
CONTRIBUTIONS = 1 << 22


def index_of(variant: Variant, indices) -> torch.Tensor:
    """The entries that scores read, 4-D and broadcastable to them, from a twin's index arguments.

    Scores that differ only along a dimension of size 1 read the same entry.
    """
    index = variant.type.torch_arg_index(*indices, variant.args)
    return index[(None,) * (4 - index.ndim)]


def add_at(dtable: torch.Tensor, index: torch.Tensor, contributions: torch.Tensor) -> None:
    """Add contributions (B, H, M, N) to the contiguous ``dtable`` where ``index`` says."""
    flat, summed = dtable.view(-1), contributions.sum_to_size(index.shape)
    if dtable.device.type == "cpu":
        # One after another; index_put_ would let threads race.
        flat.index_add_(0, index.reshape(-1), summed.reshape(-1))
    else:
        # Sorted by entry on a GPU; index_add_ would use atomics.
        flat.index_put_((index,), summed, accumulate=True)


def strips(shape: Shape, multiple: int) -> Iterator[slice]:
    """All rows in strips, a ``multiple`` of rows each, of no more contributions than may be held.

    The memory of a strip grows with seqlen_k, not with its square.
    """
    row = max(1, shape.batch * shape.num_heads * shape.seqlen_k)
    rows = multiple * max(1, CONTRIBUTIONS // (row * multiple))
    for start in range(0, shape.seqlen_q, rows):
        yield slice(start, min(start + rows, shape.seqlen_q))
