"""The mean of cross-entropy losses, on every backend."""

from __future__ import annotations

import torch

from ..layout import accumulator


def mean(total, target, weight, ignore_index: int) -> torch.Tensor:
    """``total``, the sum of the losses, over the summed weights of the targets that count.

    NaN where no target counts, with gradient zero, as in torch.
    """
    weights = _total_weight(target, weight, ignore_index)
    some = weights != 0
    return torch.where(some, total / weights.where(some, 1), total.detach() / weights)


def _total_weight(target, weight, ignore_index: int) -> torch.Tensor:
    counts = target != ignore_index
    if weight is None:
        return counts.sum()
    # A target outside the classes makes its loss NaN, so its weight does not matter; the clamp
    # keeps the lookup in bounds.
    safe = target.where(counts, 0).clamp(0, len(weight) - 1)
    return weight[safe].where(counts, 0).sum(dtype=accumulator(weight.dtype))
