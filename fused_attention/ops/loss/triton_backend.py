"""Cross-entropy of rows of logits on Triton kernels; shapes as in `torch_backend`."""

from __future__ import annotations

import torch

from ... import tuning
from ...kernels import cross_entropy


def forward(logits, target, weight, ignore_index: int, label_smoothing: float, losses, stats):
    """Fills ``losses`` and ``stats``."""
    cross_entropy.cross_entropy_forward(
        _adjacent(logits),
        target.contiguous(),
        _contiguous(weight),
        losses,
        stats,
        ignore_index,
        label_smoothing,
        _config(logits),
    )


def backward(grad, logits, target, weight, stats, ignore_index, label_smoothing, dlogits) -> None:
    """Fills ``dlogits``, which may be the logits."""
    smoothed = weight is not None and label_smoothing > 0
    cross_entropy.cross_entropy_backward(
        grad,
        _adjacent(logits),
        target.contiguous(),
        _contiguous(weight),
        weight.sum(dtype=torch.float32) if smoothed else None,
        stats,
        dlogits,
        ignore_index,
        label_smoothing,
        _config(logits),
    )


def losses_and_gradient_(logits, target, weight, ignore_index, label_smoothing, grad, losses):
    """Fills ``losses``; unless ``grad`` is None, the gradient overwrites the logits."""
    stats = losses.new_empty(len(target), 2)
    forward(logits, target, weight, ignore_index, label_smoothing, losses, stats)
    if grad is not None:
        backward(grad, logits, target, weight, stats, ignore_index, label_smoothing, logits)


def _adjacent(logits):
    return logits if logits.stride(1) == 1 else logits.contiguous()


def _contiguous(weight):
    return None if weight is None else weight.contiguous()


def _config(logits):
    return tuning.cross_entropy(logits.shape[1], tuning.architecture(logits.device))
