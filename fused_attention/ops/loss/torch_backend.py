"""Cross-entropy of rows of logits on PyTorch operations.

Shapes: logits and log_p (N, C), target (N,), class weights (C,) or None, losses (N,), stats (N, 2):
the maximum of each row and the logarithm of its sum of exponentials above it.
"""

from __future__ import annotations

import torch

from ... import tuning
from .checks import check_range


def forward(logits, target, weight, ignore_index: int, label_smoothing: float, losses, stats):
    """Fills ``losses`` and ``stats``."""
    if logits.device.type == "cpu":
        check_range(target, logits.shape[1], ignore_index)
    x = logits.to(losses.dtype)
    top = x.amax(1)
    top = top.where(top != -torch.inf, 0)
    log_sum = (x - top[:, None]).exp().sum(1).log()
    log_p = x - top[:, None] - log_sum[:, None]
    losses.copy_(_losses(log_p, target, weight, ignore_index, label_smoothing))
    torch.stack((top, log_sum), 1, out=stats)


def backward(grad, logits, target, weight, stats, ignore_index, label_smoothing, dlogits) -> None:
    """Fills ``dlogits``, which may be the logits."""
    log_p = logits.to(stats.dtype) - stats[:, :1] - stats[:, 1:]
    p = _gradient_(log_p, target, weight, ignore_index, label_smoothing)
    dlogits.copy_(p.mul_(grad.where(target != ignore_index, 0)[:, None]))


def losses_and_gradient_(logits, target, weight, ignore_index, label_smoothing, grad, losses):
    """Fills ``losses``; unless ``grad`` is None, the gradient overwrites the logits.

    In pieces that stay in a CPU's cache, since several operations pass over each.
    """
    rows = tuning.rows_in_cache(logits.shape[1])
    options = (weight, ignore_index, label_smoothing)
    grad = None if grad is None else grad.where(target != ignore_index, 0)
    for start in range(0, len(target), rows):
        at = slice(start, start + rows)
        log_p = logits[at].log_softmax(1, dtype=losses.dtype)
        losses[at] = _losses(log_p, target[at], *options)
        if grad is not None:
            dx = _gradient_(log_p, target[at], *options)
            torch.mul(dx, grad[at, None], out=logits[at])


def _losses(log_p, target, weight, ignore_index: int, label_smoothing: float) -> torch.Tensor:
    """(N,): the loss of each row of log-probabilities; every target that counts is a class."""
    counts, safe, hit, share = _terms(target, weight, log_p, ignore_index, label_smoothing)
    loss = -hit * log_p.gather(1, safe[:, None])[:, 0]
    if label_smoothing > 0:
        loss -= log_p.sum(1) * share if weight is None else log_p @ share
    return loss.where(counts, 0)


def _gradient_(log_p, target, weight, ignore_index: int, label_smoothing: float) -> torch.Tensor:
    """Overwrites ``log_p`` with the gradient of the summed losses with respect to the logits."""
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
