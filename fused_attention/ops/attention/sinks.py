"""Logits beside those of the keys: they join the softmax after it has been computed without them.

With the LSE of the keys at hand, a further logit x scales the output by sigmoid(lse - x): no kernel
needs to know, and the gradient of x flows through the LSE.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ...variants.base import Variant


def split(variants: Sequence[Variant]) -> tuple[tuple[Variant, ...], tuple[Variant, ...]]:
    """Those that kernels apply, and those that add a logit."""
    extra = tuple(variant for variant in variants if variant.type.extra_logit is not None)
    return tuple(variant for variant in variants if variant not in extra), extra


def join(out, lse, extra: Sequence[Variant], heads_at: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and LSE with the logits of ``extra``; the heads are dimension ``heads_at``."""
    for variant in extra:
        logits = variant.type.extra_logit(variant.args).to(lse.dtype)
        logits = logits.reshape(-1, *[1] * (lse.ndim - 1 - heads_at))
        # sigmoid(lse - x), by way of its logarithm: the derivative of sigmoid cancels near one.
        share = F.logsigmoid(lse - logits).exp()
        out = (out * share[..., None]).to(out.dtype)
        lse = torch.logaddexp(lse, logits)
    return out, lse
