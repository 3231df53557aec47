"""The softmax of attention: scores, the online step, and the weights recomputed in backward.

exp2 is the exponential that GPUs have.  Scores are numbers ``s`` times a factor, the unit, and the
maximum of a row is subtracted from s before anything is multiplied: near the maximum the
difference is exact, so that rows of any magnitude, such as a row masked by -1e9, have weights as
accurate as any other.

Forward hands backward two numbers per row, its statistics: the maximum m and log2(sum of the
exponentials relative to m).  Their sum, the LSE, would round the digits of the second away where
the first is large.
"""

import triton
import triton.language as tl

from .hooks import fold_scores
from .numerics import round_to

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def unit_of(sm_scale, SCORES: tl.constexpr):
    """The unit of scores: sm_scale, which saves a multiplication of all, or 1 with score hooks."""
    if len(SCORES) > 0:
        return 1.0
    else:
        return sm_scale


@triton.jit
def oriented(q, sm_scale, SCORES: tl.constexpr):
    """q and the unit, positive, so that the largest number is the largest score; q has its sign."""
    if len(SCORES) > 0:
        return q, 1.0
    else:
        sign = tl.where(sm_scale > 0, 1.0, tl.where(sm_scale < 0, -1.0, 0.0))
        q = round_to(q.to(tl.float32) * sign, q.dtype)
        return q, tl.where(sm_scale == 0, 1.0, tl.abs(sm_scale))


@triton.jit
def final_scores(s, sm_scale, at, SCORES: tl.constexpr, score_args):
    """Scores, as multiples of the unit, from the products ``s`` of q and k."""
    if len(SCORES) > 0:
        return fold_scores(s * sm_scale, at, SCORES, score_args, len(SCORES))
    else:
        return s


@triton.jit
def finite(m):
    """The maximum of a row, or 0 where it is infinite: a number that can be subtracted."""
    return tl.where(tl.abs(m) == float("inf"), 0.0, m)


@triton.jit
def online_softmax(s, unit, m_i, l_i):
    """One step over a tile of scores (M, N).

    Returns the new maximum m_i and sum l_i of each row, the weights p relative to the new maximum,
    and alpha, by which earlier accumulators must be multiplied.
    """
    m_new = tl.maximum(m_i, tl.max(s, 1))
    m_safe = finite(m_new)
    p = tl.exp2((s - m_safe[:, None]) * (unit * LOG2E))
    alpha = tl.exp2((m_i - m_safe) * (unit * LOG2E))
    return m_new, l_i * alpha + tl.sum(p, 1), p, alpha


@triton.jit
def log2_sum(l_i):
    """log2 of the sum of a row; -inf for a row that sees no key."""
    return tl.where(l_i == 0, float("-inf"), tl.log2(tl.where(l_i == 0, 1.0, l_i)))


@triton.jit
def store_stats(stats_ptr, rows, m_i, l_i, mask):
    """Store the statistics of ``rows``: (rows, 2)."""
    tl.store(stats_ptr + 2 * rows, finite(m_i), mask=mask)
    tl.store(stats_ptr + 2 * rows + 1, log2_sum(l_i), mask=mask)


@triton.jit
def load_stats(stats_ptr, offs_m, seqlen_q, unit):
    """The statistics of rows, so that `weights` gives 0 for rows that see no key or do not exist.

    For a row with a score of +inf it gives NaN, as softmax does.  The maximum was that of products
    with the sign of the unit; here it is what to subtract from products without.
    """
    inside = offs_m < seqlen_q
    m = tl.load(stats_ptr + 2 * offs_m, mask=inside, other=0.0)
    log_sum = tl.load(stats_ptr + 2 * offs_m + 1, mask=inside, other=float("-inf"))
    log_sum = tl.where(log_sum == float("inf"), float("nan"), log_sum)
    log_sum = tl.where(log_sum == float("-inf"), float("inf"), log_sum)
    return tl.where(unit < 0, -m, m), log_sum


@triton.jit
def weights(s, unit, m, log_sum):
    """The weights of scores (M, N) or (N, M), from the statistics of their rows.

    The minimum bounds them by 1 where recomputed scores are so large that they differ from those
    of the forward pass by their rounding.
    """
    exponent = (s - m) * (unit * LOG2E) - log_sum
    return tl.exp2(tl.minimum(exponent, 0.0, propagate_nan=tl.PropagateNan.ALL))
