"""Attention sinks: extra logits in the softmax of a head, applied after the backends.

A sink with logit x takes the share sigmoid(x - lse) of the softmax, so the output computed without
the sink is scaled by sigmoid(lse - x).  The gradient of the sink flows through the LSE, and the
kernels do not handle sinks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ...variants.base import Variant


def split_off(variants: Sequence[Variant]) -> tuple[tuple[Variant, ...], tuple[Variant, ...]]:
    """(variants that the backends apply, sinks)."""
    sinks = tuple(variant for variant in variants if variant.type.sink_logit is not None)
    return tuple(variant for variant in variants if variant not in sinks), sinks


def apply(out, lse, sinks: Sequence[Variant], heads_at: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and LSE with the sinks; the heads are dimension ``heads_at`` of both."""
    for sink in sinks:
        logits = sink.type.sink_logit(sink.args).to(lse.dtype)
        logits = logits.reshape(-1, *[1] * (lse.ndim - 1 - heads_at))
        # sigmoid(lse - x) by its logarithm: near one, the derivative of sigmoid itself cancels.
        share = F.logsigmoid(lse - logits).exp()
        out = (out * share[..., None]).to(out.dtype)
        lse = torch.logaddexp(lse, logits)
    return out, lse
