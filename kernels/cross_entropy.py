"""Softmax cross-entropy of class indices: the losses in one pass over the logits, the gradient.

N rows (tokens), C classes (the vocabulary); x a row of logits, t its target, w the class weights
(all 1 by default), e the label smoothing.  The loss of a row is

    (1 - e) w_t (log_z - x_t)  +  e / C * sum_c w_c (log_z - x_c),    log_z = log sum_c exp(x_c)

Forward: a program per row loops over blocks of classes with the running maximum and the rescaled
sum of Milakov and Gimelshein 2018 (arXiv 1805.02867), so C has no limit.  log_z is kept as two
numbers, the maximum and the logarithm of the sum of exponentials relative to it: with large logits
their sum would round away the digits that the loss and the probabilities are made of.

Backward: a program per row and block.  A program reads its block before it writes it, so the
gradient may overwrite the logits.

A row whose target is ``ignore_index`` has loss and gradient 0 and is not read.  A target outside
[0, C) makes the loss and gradient of its row NaN, and is not used to load anything.
"""

import triton
import triton.language as tl

from .numerics import round_to


@triton.jit
def _load_target(target_ptr, row, num_classes, ignore_index):
    """The target, whether the row counts, and whether the target is a class."""
    target = tl.load(target_ptr + row).to(tl.int64)
    counts = target != ignore_index
    return target, counts, counts & (target >= 0) & (target < num_classes)


@triton.jit(do_not_specialize=["ignore_index"])
def _cross_entropy_forward_kernel(
    logits_ptr,
    target_ptr,
    weight_ptr,
    loss_ptr,
    stats_ptr,
    stride_n,
    num_classes,
    ignore_index,
    label_smoothing,
    WEIGHTED: tl.constexpr,
    SMOOTHED: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    target, counts, valid = _load_target(target_ptr, row, num_classes, ignore_index)
    logits_ptr += row * stride_n
    x_t = tl.load(logits_ptr + target, mask=valid, other=0.0).to(tl.float32)

    m_i = float("-inf")
    anchor = 0.0  # m_i, but finite while every class so far is -inf
    l_i = 0.0  # sum of exp(x - anchor)
    w_sum = 0.0
    gaps = 0.0  # sum of w (anchor - x): no term is negative, so nothing cancels
    end = tl.where(valid, num_classes, 0)
    for start in range(0, end, BLOCK_C):
        offs_c = start + tl.arange(0, BLOCK_C)
        inside = offs_c < num_classes
        x = tl.load(logits_ptr + offs_c, mask=inside, other=float("-inf")).to(tl.float32)
        m_new = tl.maximum(m_i, tl.max(x, 0))
        anchor_new = tl.where(m_new == float("-inf"), 0.0, m_new)
        l_i = l_i * tl.exp(m_i - anchor_new) + tl.sum(tl.exp(x - anchor_new), 0)
        if SMOOTHED:
            if WEIGHTED:
                w = tl.load(weight_ptr + offs_c, mask=inside, other=0.0).to(tl.float32)
            else:
                w = tl.where(inside, 1.0, 0.0)
            gap = tl.where(inside, w * (anchor_new - x), 0.0)
            gaps += w_sum * (anchor_new - anchor) + tl.sum(gap, 0)
            w_sum += tl.sum(w, 0)
        m_i = m_new
        anchor = anchor_new

    log_sum = tl.log(tl.where(valid, l_i, 1.0))
    loss = anchor - x_t + log_sum
    if WEIGHTED:
        loss *= tl.load(weight_ptr + target, mask=valid, other=0.0).to(tl.float32)
    if SMOOTHED:
        smooth = gaps + w_sum * log_sum
        loss = (1.0 - label_smoothing) * loss + label_smoothing / num_classes * smooth
    loss = tl.where(valid, loss, tl.where(counts, float("nan"), 0.0))
    tl.store(loss_ptr + row, loss)
    tl.store(stats_ptr + 2 * row, anchor)
    tl.store(stats_ptr + 2 * row + 1, log_sum)


@triton.jit(do_not_specialize=["stride_grad", "ignore_index"])
def _cross_entropy_backward_kernel(
    grad_ptr,
    logits_ptr,
    target_ptr,
    weight_ptr,
    weight_sum_ptr,
    stats_ptr,
    dlogits_ptr,
    stride_grad,
    stride_n,
    stride_dn,
    num_classes,
    ignore_index,
    label_smoothing,
    WEIGHTED: tl.constexpr,
    SMOOTHED: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    target, counts, valid = _load_target(target_ptr, row, num_classes, ignore_index)
    grad = tl.load(grad_ptr + row * stride_grad).to(tl.float32)
    offs_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = offs_c < num_classes

    x = tl.load(logits_ptr + row * stride_n + offs_c, mask=inside & valid, other=0.0)
    top = tl.load(stats_ptr + 2 * row)
    log_sum = tl.load(stats_ptr + 2 * row + 1)
    p = tl.exp(x.to(tl.float32) - top - log_sum)
    hit = 1.0  # weight of the target in the loss
    if WEIGHTED:
        hit = tl.load(weight_ptr + target, mask=valid, other=0.0).to(tl.float32)
    total = hit  # summed weight of all classes in the loss
    if SMOOTHED:
        share = label_smoothing / num_classes
        hit *= 1.0 - label_smoothing
        if WEIGHTED:
            total = hit + share * tl.load(weight_sum_ptr)
            share *= tl.load(weight_ptr + offs_c, mask=inside, other=0.0).to(tl.float32)
        dx = p * total - share
    else:
        dx = p * total
    dx = (dx - tl.where(offs_c == target, hit, 0.0)) * grad
    dx = tl.where(valid, dx, tl.where(counts, float("nan"), 0.0))
    dtype = dlogits_ptr.dtype.element_ty
    tl.store(dlogits_ptr + row * stride_dn + offs_c, round_to(dx, dtype), mask=inside)


def cross_entropy_forward(
    logits, target, weight, losses, stats, ignore_index: int, label_smoothing: float, config
) -> None:
    """Fill ``losses`` (N,) and ``stats`` (N, 2), fp32, from logits (N, C), contiguous along C.

    ``target`` (N,) is contiguous, ``weight`` (C,) contiguous or None; ``config`` has ``block`` and
    ``num_warps``.
    """
    if len(target) == 0:
        return
    _cross_entropy_forward_kernel[(len(target),)](
        *(logits, target, weight, losses, stats),
        *(logits.stride(0), logits.shape[1], ignore_index, label_smoothing),
        WEIGHTED=weight is not None,
        SMOOTHED=label_smoothing > 0,
        BLOCK_C=config.block,
        num_warps=config.num_warps,
    )


def cross_entropy_backward(
    grad,
    logits,
    target,
    weight,
    weight_sum,
    stats,
    dlogits,
    ignore_index: int,
    label_smoothing: float,
    config,
) -> None:
    """Fill ``dlogits`` (N, C), which may be ``logits``, from the gradient of the losses (N,).

    ``weight_sum``, one fp32 number, is read if there are both weights and label smoothing.
    """
    if dlogits.numel() == 0:
        return
    _cross_entropy_backward_kernel[(len(target), triton.cdiv(logits.shape[1], config.block))](
        *(grad, logits, target, weight, weight_sum, stats, dlogits),
        *(grad.stride(0), logits.stride(0), dlogits.stride(0)),
        *(logits.shape[1], ignore_index, label_smoothing),
        WEIGHTED=weight is not None,
        SMOOTHED=label_smoothing > 0,
        BLOCK_C=config.block,
        num_warps=config.num_warps,
    )
