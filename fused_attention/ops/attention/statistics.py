"""Statistics of rows on the torch backend, which backward recomputes the weights from.

Two numbers per row, (B, H, M, 2): a shift, and the sum of exp(score - shift) over the keys.  The
LSE is shift + log(sum), but the weights are not computed from it: where scores are large, as in a
row masked by -1e9, adding them rounds away the digits of the second.

ATen's kernel keeps the LSE alone, which is enough for ordinary rows: their statistics are (LSE, 0),
where 0 stands for a sum of 1.  Those of a row that sees no key are (-inf, 0).
"""

from __future__ import annotations

import math

import torch

# Up to here an LSE in fp32 gives weights with a relative error of at most 6e-5.
_ORDINARY = 1024.0


def extreme(lse: torch.Tensor) -> list[int]:
    """The sequences with an LSE, of (B, H, M), that is not finite or too large to stand alone.

    -inf, the LSE of a row that sees no key, does not count.
    """
    if lse.numel() == 0 or _ordinary(lse):
        return []
    lse = lse.masked_fill(lse == -math.inf, 0)
    return [b for b in range(len(lse)) if not _ordinary(lse[b])]


def _ordinary(lse: torch.Tensor) -> bool:
    least, most = lse.aminmax()
    return least.item() >= -_ORDINARY and most.item() <= _ORDINARY  # False for NaN


def of_lse(lse: torch.Tensor) -> torch.Tensor:
    """The statistics (LSE, 0), by the one operation that interleaves with zeros."""
    return torch.view_as_real(lse.to(lse.dtype.to_complex()))


def not_of_lse(stats: torch.Tensor) -> list[int]:
    """The sequences whose statistics are not all (LSE, 0)."""
    total = stats[..., 1]
    return [b for b in range(len(total)) if total[b].any()] if total.any() else []


def lse(stats: torch.Tensor) -> torch.Tensor:
    """The LSE (B, H, M); -inf for rows that see no key."""
    shift, total = stats.unbind(-1)
    return shift + total.masked_fill(total == 0, 1).log()


def weights(scores: torch.Tensor, stats: torch.Tensor) -> torch.Tensor:
    """The weights of masked scores (B, H, M, N), a new tensor, from the ``stats`` of their rows.

    Weights are 0 in a row that sees no key, and NaN in one with a score that is NaN or +inf.  They
    are at most 1, even where recomputed scores are so large that they differ from the first ones
    by their rounding.
    """
    shift, total = stats.split(1, -1)
    inverse = torch.where(total == 0, 1, total.reciprocal())
    inverse = inverse.masked_fill(total == math.inf, math.nan)
    shift = shift.masked_fill(shift == -math.inf, math.inf)
    return (scores - shift).clamp_(max=0).exp_().mul_(inverse)


def softmax(scores: torch.Tensor, stats: torch.Tensor) -> torch.Tensor:
    """`weights` for the scores of all keys at once: nothing is recomputed from rounded numbers."""
    return torch.softmax(scores, -1).masked_fill_(stats[..., :1] == -math.inf, 0)
