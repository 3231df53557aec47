"""How far a result is from fp64, as a multiple of what the naive path costs in the same dtype."""

import math
from collections.abc import Callable

import torch

import fused_attention as fa

from .inputs import AttentionInputs, evaluate

WHOLE_UP_TO = 512
ROWS = 64
CONVENTION = (
    "max |x - fp64| over max |naive - fp64|: the worst of output and gradients up to "
    f"n = {WHOLE_UP_TO}, of the last {ROWS} rows of output and dq beyond"
)
RESULTS = ("out", "dq", "dk", "dv")


def ratios(
    results: tuple[torch.Tensor, ...], inputs: AttentionInputs, variants: tuple
) -> dict[str, float]:
    """The error ratio of each of `results`, which evaluate() returned for `inputs`."""
    gradients = len(results) > 1
    if inputs.q.shape[2] > WHOLE_UP_TO:
        inputs = inputs.last_rows(ROWS)
        results = tuple(t[:, :, -ROWS:] for t in results[:2])
    exact = evaluate(_naive(variants), inputs.to(torch.float64), gradients)
    plain = evaluate(_naive(variants), inputs, gradients)
    scale = max(t.abs().max().item() for t in exact)
    return {
        name: ratio(*tensors, scale)
        for name, *tensors in zip(RESULTS, results, plain, exact, strict=False)
    }


def _naive(variants: tuple) -> Callable:
    return lambda q, k, v: fa.reference.attention(q, k, v, variants).out


def ratio(x: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor, scale: float) -> float:
    """max |x - exact| over max |plain - exact|.

    Never divides by less than half a unit in the last place of the largest value.

    Where that is zero too (a gradient that vanishes), by that of the largest of all results.
    """
    half_ulp = torch.finfo(x.dtype).eps / 2
    naive = (plain.double() - exact).abs().max().item()
    budget = max(naive, half_ulp * exact.abs().max().item()) or half_ulp * scale
    error = (x.double() - exact).abs().max().item()
    if error == 0:
        return 0.0
    return error / budget if error < math.inf and budget else math.inf
