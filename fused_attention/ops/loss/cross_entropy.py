"""Cross-entropy: `torch.nn.functional.cross_entropy` in one pass over the logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn import _reduction

from .. import autocast, backend
from ..checks import DtypeError
from ..layout import accumulator
from ..registration import define
from ..transforms import refuse_forward_mode
from .checks import check_cross_entropy
from .reduction import mean

_INSTEAD = "torch.nn.functional.cross_entropy"


def cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Drop-in for ``torch.nn.functional.cross_entropy``.

    The kernels read the logits once, save two fp32 numbers per row for the backward pass, and
    compute in fp32 whatever the dtype.  They compute losses of class indices for logits (C,),
    (N, C) or (N, C, ...) in fp16, bf16 or fp32, with any number of classes, if the classes are
    contiguous in memory, as in a language model.  PyTorch computes all else: on the CPU, in fp64,
    for class probabilities, for images with the classes first.

    Args:
        input: logits; (C,), (N, C) or (N, C, d1, ...).
        target: class indices, int64 or uint8, (), (N,) or (N, d1, ...); or class probabilities,
            floating, in the shape of ``input``.
        weight: (C,), a weight for each class.
        size_average, reduce: deprecated; they override ``reduction`` as they do in torch.
        ignore_index: rows with this target have loss and gradient 0 and do not count in the mean.
            The kernels do not read their logits, so NaN in them has no effect.
        reduction: "mean" (over the weights of the targets; NaN if none counts), "sum" or "none".
        label_smoothing: from 0 to 1, the part of the target spread over all classes.

    Returns the loss, a scalar or in the shape of a target of indices, in the dtype of ``input``
    (under autocast fp32, without a copy of the logits).

    A target that is neither a class nor ``ignore_index`` raises IndexError on the CPU.  In the
    kernels, which cannot raise, it makes the loss and gradient of its row NaN; nothing is read out
    of bounds.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or range; they are
            RuntimeError too where torch raises that.
        NotImplementedError: double backward and forward-mode derivatives of the kernels.
    """
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    check_cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing)
    rows = _rows(input, target, weight)
    if rows is None:
        return F.cross_entropy(
            *(input, target, weight),
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    dtype = _result_dtype(input)
    if weight is not None and dtype == input.dtype != weight.dtype:
        raise DtypeError(f"weight: expected the dtype of input, {input.dtype}, got {weight.dtype}")
    refuse_forward_mode("cross_entropy", _INSTEAD, input)
    flat = target.reshape(-1).long()
    losses, _ = _cross_entropy(rows, flat, weight, ignore_index, float(label_smoothing))
    if reduction == "none":
        return losses.reshape(target.shape).to(dtype)
    loss = losses.sum()
    if reduction == "mean":
        loss = mean(loss, flat, weight, ignore_index)
    return loss.to(dtype)


def _rows(input, target, weight) -> torch.Tensor | None:
    """The logits as a view (N, C) with contiguous classes; None if PyTorch computes the loss."""
    if not backend.uses_triton(input) or target.shape == input.shape:
        return None
    if weight is not None and weight.requires_grad:
        return None  # torch raises: it has no gradient for the weight
    rows = input[None] if input.ndim == 1 else input
    if rows.shape[1] == 0:
        return None
    if rows.ndim == 2:
        return rows if rows.stride(1) == 1 else None
    last = input.movedim(1, -1)
    return last.flatten(0, -2) if last.is_contiguous() else None


def _result_dtype(input) -> torch.dtype:
    """fp32 under autocast, on every device, as in PyTorch."""
    on = autocast.active_dtype(input.device.type) is not None
    return torch.float32 if on else input.dtype


def _forward(logits, target, weight, ignore_index, label_smoothing):
    losses, stats = _forward_fake(logits, target, weight, ignore_index, label_smoothing)
    backend.of("loss", logits).forward(
        logits, target, weight, ignore_index, label_smoothing, losses, stats
    )
    return losses, stats


def _forward_fake(logits, target, weight, ignore_index, label_smoothing):
    dtype = accumulator(logits.dtype)
    rows = len(logits)
    return logits.new_empty(rows, dtype=dtype), logits.new_empty((rows, 2), dtype=dtype)


def _backward(grad, logits, target, weight, stats, ignore_index, label_smoothing):
    dlogits = logits.new_empty(logits.shape)
    backend.of("loss", logits).backward(
        grad, logits, target, weight, stats, ignore_index, label_smoothing, dlogits
    )
    return dlogits


def _backward_fake(grad, logits, target, weight, stats, ignore_index, label_smoothing):
    return logits.new_empty(logits.shape)


def _setup_context(ctx, inputs, output):
    logits, target, weight, *ctx.options = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(logits, target, weight, output[1])


def _autograd(ctx, grad, _):
    dlogits = _cross_entropy_backward(grad, *ctx.saved_tensors, *ctx.options)
    return dlogits, None, None, None, None


_OPTIONS = "int ignore_index, float label_smoothing"
_cross_entropy = define(
    f"cross_entropy(Tensor logits, Tensor target, Tensor? weight, {_OPTIONS}) "
    "-> (Tensor losses, Tensor stats)",
    _forward,
    _forward_fake,
    autograd=_autograd,
    setup_context=_setup_context,
)
_cross_entropy_backward = define(
    "cross_entropy_backward(Tensor grad, Tensor logits, Tensor target, Tensor? weight, "
    f"Tensor stats, {_OPTIONS}) -> Tensor",
    _backward,
    _backward_fake,
    instead=_INSTEAD,
)
