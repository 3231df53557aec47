"""The error of a result against fp64, in multiples of a plain computation's in the same dtype."""

import math

import torch


def ratio(x: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor, scale: float) -> float:
    """max |x - exact| over max |plain - exact|.

    The divisor is at least half a unit in the last place of the largest number in `exact`, or of
    `scale` where `exact` is all zeros (a gradient that vanishes).
    """
    half_ulp = torch.finfo(x.dtype).eps / 2
    naive = (plain.double() - exact).abs().max().item()
    budget = max(naive, half_ulp * exact.abs().max().item()) or half_ulp * scale
    error = (x.double() - exact).abs().max().item()
    if error == 0:
        return 0.0
    return error / budget if error < math.inf and budget else math.inf


def columns(ratio: float) -> dict:
    """The columns of a row that hold an error ratio; JSON has no infinity."""
    if math.isfinite(ratio):
        return {"max_error_ratio": ratio, "reason": None}
    return {"max_error_ratio": None, "reason": "the result is not finite"}
