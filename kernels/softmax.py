"""The softmax of attention in base 2: scores, the online step, and the weights from the LSE.

exp2 is the exponential that GPUs have; scores are multiplied by log2(e) first.
"""

import triton
import triton.language as tl

from .hooks import fold_scores

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def fold_scaled_scores(s, sm_scale, at, SCORES: tl.constexpr, score_args):
    """Scores and the factor that takes them to base 2, from the products ``s`` of q and k.

    Without score hooks the factor includes sm_scale, to save a multiplication.
    """
    if len(SCORES) > 0:
        return fold_scores(s * sm_scale, at, SCORES, score_args, len(SCORES)), LOG2E
    else:
        return s, sm_scale * LOG2E


@triton.jit
def online_softmax(s, scale, m_i, l_i):
    """One step over a tile of scores (M, N); in base 2 they are ``s * scale``, scale >= 0.

    Returns the new maximum m_i and sum l_i of each row, the weights p relative to the new maximum,
    and alpha, by which earlier accumulators must be multiplied.  The scale is applied after the
    maximum, where multiplication and subtraction are one instruction.
    """
    m_new = tl.maximum(m_i, tl.max(s, 1) * scale)
    m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
    p = tl.exp2(s * scale - m_safe[:, None])
    alpha = tl.exp2(m_i - m_safe)
    return m_new, l_i * alpha + tl.sum(p, 1), p, alpha


@triton.jit
def weights(s, sm_scale, lse, at, SCORES: tl.constexpr, score_args):
    """exp(scores - LSE) from the products ``s`` of q and k; ``lse`` in base 2."""
    s, scale = fold_scaled_scores(s, sm_scale, at, SCORES, score_args)
    return tl.exp2(s * scale - lse)


@triton.jit
def load_lse(lse_ptr, offs_m, seqlen_q):
    """LSE in base 2; for rows that see no key or do not exist +inf, which makes weights 0."""
    lse = tl.load(lse_ptr + offs_m, mask=offs_m < seqlen_q, other=float("-inf")) * LOG2E
    return tl.where(lse == float("-inf"), float("inf"), lse)
