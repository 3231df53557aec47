"""Cross-entropy of rows of logits in PyTorch operations: what the kernels compute, without them.

Shapes: logits and log_p (N, C), target (N,), class weights (C,) or None.
"""

from __future__ import annotations

import torch

from ..layout import accumulator


def mean(total, target, weight, ignore_index: int) -> torch.Tensor:
    """The sum of the losses over the weights of the targets that count.

    Where none counts that is NaN, and has, as in torch, gradient zero.
    """
    weights = _total_weight(target, weight, ignore_index)
    some = weights != 0
    return torch.where(some, total / weights.where(some, 1), total.detach() / weights)


def _total_weight(target, weight, ignore_index: int) -> torch.Tensor:
    counts = target != ignore_index
    if weight is None:
        return counts.sum()
    # A target that is no class makes its loss NaN, so its weight does not matter; the clamp keeps
    # it from being read out of bounds.
    safe = target.where(counts, 0).clamp(0, len(weight) - 1)
    return weight[safe].where(counts, 0).sum(dtype=accumulator(weight.dtype))


def check_range(target, num_classes: int, ignore_index: int) -> None:
    """On the CPU a target that is no class is an error."""
    wrong = (target != ignore_index) & ((target < 0) | (target >= num_classes))
    if wrong.any():
        raise IndexError(
            f"target: expected class indices from 0 to {num_classes - 1}, or ignore_index "
            f"{ignore_index}, got {target[wrong][0].item()}"
        )


def losses(log_p, target, weight, ignore_index: int, label_smoothing: float) -> torch.Tensor:
    """(N,): the loss of each row of log-probabilities; every target that counts is a class."""
    counts, safe, hit, share = _terms(target, weight, log_p, ignore_index, label_smoothing)
    loss = -hit * log_p.gather(1, safe[:, None])[:, 0]
    if label_smoothing > 0:
        loss -= log_p.sum(1) * share if weight is None else log_p @ share
    return loss.where(counts, 0)


def gradient_(log_p, target, weight, ignore_index: int, label_smoothing: float) -> torch.Tensor:
    """Overwrites ``log_p`` with the gradient of the sum of `losses` to the logits."""
    counts, safe, hit, share = _terms(target, weight, log_p, ignore_index, label_smoothing)
    p = log_p.exp_()
    if weight is not None:
        p *= (hit + (share.sum() if label_smoothing > 0 else 0))[:, None]
    if label_smoothing > 0:
        p -= share
    p.scatter_add_(1, safe[:, None], -hit[:, None])
    return p.masked_fill_(~counts[:, None], 0)


def _terms(target, weight, log_p, ignore_index, label_smoothing):
    """Which rows count, targets safe to index with, and the weights of target and other classes."""
    counts = target != ignore_index
    safe = target.where(counts, 0)
    w = log_p.new_ones(1) if weight is None else weight.to(log_p.dtype)
    hit = (1 - label_smoothing) * (w.expand(len(target)) if weight is None else w[safe])
    return counts, safe, hit, w * (label_smoothing / max(1, log_p.shape[1]))
