"""Attention sinks: a learned logit per head that joins the softmax and has no value (gpt-oss)."""

import torch

from ..plain import check_plain
from .base import Shape, Variant, define_variant


def _check(args, shape: Shape):
    (logits,) = args
    if logits.shape != (shape.num_heads,):
        raise ValueError(
            f"logits: expected shape ({shape.num_heads},), one per query head, "
            f"got {tuple(logits.shape)}"
        )
    if logits.device != shape.device:
        raise ValueError(f"logits: expected device {shape.device}, got {logits.device}")


def _logit(args):
    return args[0]


_SINK = define_variant("sink", sink_logit=_logit, check=_check)


def sink(logits: torch.Tensor) -> Variant:
    """Attention sink: an extra logit, with a zero value, in every softmax of a head.

    The weights of a query over the keys then sum to less than one, so that a head can attend to
    little (Xiao et al. 2023, arXiv 2309.17453; gpt-oss).  The logit is not scaled, not changed by
    score variants and not masked: a query that sees no key has LSE ``logits[h]`` and output 0.

    ``logits``: floating tensor, shape (heads,), a finite logit per query head, on the device of
    the inputs; it can receive a gradient.

    Raises TypeError if ``logits`` is not a floating tensor, ValueError if its shape or device
    does not fit.
    """
    check_plain("logits", logits)
    if not logits.is_floating_point():
        raise TypeError(f"logits: expected a floating dtype, got {logits.dtype}")
    if logits.ndim != 1:
        raise ValueError(f"logits: expected shape (heads,), got {tuple(logits.shape)}")
    return _SINK(logits)
