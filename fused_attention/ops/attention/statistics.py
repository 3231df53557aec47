"""Statistics of rows on the torch backend, which backward recomputes the weights from.

Two numbers per row, (B, H, M, 2): a shift, and the sum of exp(score - shift) over the keys.  The
LSE is shift + log(sum), but the weights are not computed from it: where scores are large, as in a
row masked by -1e9, adding them rounds away the digits of the second.  ATen's kernel keeps the LSE
alone, which is enough for ordinary rows; their statistics are (LSE, 1).  Those of a row that sees
no key are (0, 0), or (-inf, 1).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# Up to here an LSE in fp32 gives weights with a relative error of at most 6e-5.
_ORDINARY = 1024.0


def extreme(lse: torch.Tensor) -> list[int]:
    """The sequences with an LSE, of (B, H, M), that is not finite or too large to stand alone.

    -inf, the LSE of a row that sees no key, does not count.
    """
    if lse.numel() == 0 or torch.linalg.vector_norm(lse, math.inf) <= _ORDINARY:
        return []
    lse = lse.masked_fill(lse == -math.inf, 0)
    largest = torch.linalg.vector_norm(lse, math.inf, (1, 2))
    return (largest <= _ORDINARY).logical_not().nonzero().flatten().tolist()


def of_lse(lse: torch.Tensor) -> torch.Tensor:
    """The statistics (LSE, 1)."""
    return F.pad(lse.unsqueeze(-1), (0, 1), value=1.0)


def lse(stats: torch.Tensor) -> torch.Tensor:
    """The LSE (B, H, M); -inf for rows that see no key."""
    shift, total = stats.unbind(-1)
    return shift + total.log()


def weights(scores: torch.Tensor, stats: torch.Tensor) -> torch.Tensor:
    """The weights of masked scores (B, H, M, N), a new tensor, from the ``stats`` of their rows.

    Weights are 0 in a row that sees no key, and NaN in one with a score that is NaN or +inf.  They
    are at most 1, even where recomputed scores are so large that they differ from the first ones
    by their rounding.
    """
    shift, total = stats.split(1, -1)
    inverse = total.reciprocal().masked_fill(_empty(stats), 0)
    inverse = inverse.masked_fill(total == math.inf, math.nan)
    shift = shift.masked_fill(shift == -math.inf, 0)
    return (scores - shift).clamp_(max=0).exp_().mul_(inverse)


def softmax(scores: torch.Tensor, stats: torch.Tensor) -> torch.Tensor:
    """`weights` for the scores of all keys at once: nothing is recomputed from rounded numbers."""
    return torch.softmax(scores, -1).masked_fill_(_empty(stats), 0)


def _empty(stats: torch.Tensor) -> torch.Tensor:
    """Rows that see no key, (B, H, M, 1)."""
    shift, total = stats.split(1, -1)
    return (total == 0) | (shift == -math.inf)
