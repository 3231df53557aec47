"""Folds: functions that apply all hooks of a stack of attention variants.

A stack reaches a kernel as tuples of ``@triton.jit`` functions (constexpr) and tuples of their
run-time arguments.  The folds unroll at compile time; an empty stack costs nothing.
`fused_attention.variants.base.define_variant` documents the hooks.  ``at`` is the tuple
(b, h, q_idx, kv_idx, seqlen_q, seqlen_k); positions are in key coordinates and clamped to the
tensors, so a hook may load at them without a mask.
"""

import triton
import triton.language as tl


@triton.jit
def no_bounds(b, h, first, last, seqlen_q, seqlen_k, args):
    """Bounds for a mask that defines none: every key may be visible, no key is known to be."""
    return -(2**30), 2**30, 2**30, -(2**30)


@triton.jit
def fold_masks(keep, at, MASKS: tl.constexpr, mask_args):
    """``keep`` and all masks, combined by logical and."""
    for i in tl.static_range(len(MASKS)):
        keep = keep & MASKS[i](*at, mask_args[i])
    return keep


@triton.jit
def fold_scores(s, at, SCORES: tl.constexpr, score_args, COUNT: tl.constexpr):
    """``s`` after the first COUNT score hooks."""
    for i in tl.static_range(COUNT):
        s = SCORES[i](s, *at, score_args[i])
    return s


@triton.jit
def fold_score_grads(
    ds, s, at, SCORES: tl.constexpr, SCORE_GRADS: tl.constexpr, score_args, DOWN_TO: tl.constexpr
):
    """The gradient at the input of score hook DOWN_TO, from the gradient of the final scores.

    ``s`` are the raw scores.  The input and output of each hook are recomputed; the compiler
    merges the repeated code.  The score_grad of an additive hook is None.
    """
    for i in tl.static_range(len(SCORES) - 1, DOWN_TO - 1, -1):
        if SCORE_GRADS[i] is not None:
            s_in = fold_scores(s, at, SCORES, score_args, i)
            s_out = SCORES[i](s_in, *at, score_args[i])
            ds = SCORE_GRADS[i](ds, s_in, s_out, *at, score_args[i])
    return ds


@triton.jit
def fold_bounds(
    b,
    h,
    first,
    last,
    lowest,
    highest,
    seqlen_q,
    seqlen_k,
    BOUNDS: tl.constexpr,
    mask_args,
    BLOCK: tl.constexpr,
):
    """Loop bounds: the intersection of all bounds within [lowest, highest).

    Returns (lo, hi, full_lo, full_hi) relative to ``lowest``, with 0 <= lo <= hi.  Blocks that
    start in [full_lo, full_hi), both multiples of BLOCK, are full: they need no mask.  There may
    be no full block.
    """
    lo = lowest
    hi = highest
    full_lo = lowest
    full_hi = highest
    for i in tl.static_range(len(BOUNDS)):
        some_lo, some_hi, all_lo, all_hi = BOUNDS[i](
            b, h, first, last, seqlen_q, seqlen_k, mask_args[i]
        )
        lo = tl.maximum(lo, some_lo)
        hi = tl.minimum(hi, some_hi)
        full_lo = tl.maximum(full_lo, all_lo)
        full_hi = tl.minimum(full_hi, all_hi)
    lo = lo - lowest
    hi = tl.maximum(hi - lowest, lo)
    full_lo = tl.cdiv(full_lo - lowest, BLOCK) * BLOCK
    full_hi = tl.maximum(full_hi - lowest, 0) // BLOCK * BLOCK
    start = lo // BLOCK * BLOCK
    empty = full_hi <= full_lo
    return lo, hi, tl.where(empty, start, full_lo), tl.where(empty, start, full_hi)


@triton.jit
def block_count(bounds, PARTIAL: tl.constexpr, BLOCK: tl.constexpr):
    """The number of partial blocks, below full_lo and from full_hi on, or of full blocks."""
    lo, hi, full_lo, full_hi = bounds
    if PARTIAL:
        below = (full_lo - lo // BLOCK * BLOCK) // BLOCK
        return tl.where(lo < hi, below + tl.cdiv(tl.maximum(hi - full_hi, 0), BLOCK), 0)
    else:
        return (full_hi - full_lo) // BLOCK


@triton.jit
def block_start(i, bounds, PARTIAL: tl.constexpr, BLOCK: tl.constexpr):
    """The start of the i-th partial block, or of the i-th full block."""
    lo, hi, full_lo, full_hi = bounds
    if PARTIAL:
        start = lo // BLOCK * BLOCK
        below = (full_lo - start) // BLOCK
        return tl.where(i < below, start + i * BLOCK, full_hi + (i - below) * BLOCK)
    else:
        return full_lo + i * BLOCK
