"""The error of attention against fp64, in multiples of naive attention's in the same dtype."""

from collections.abc import Callable

import torch

import fused_attention as fa

from ...harness.errors import ratio
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
    """The error ratio of each tensor in `results`, which `evaluate` returned for `inputs`."""
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
