"""Sliding window: a query sees the keys near its own position (Longformer, Mistral)."""

from numbers import Integral

from .._triton import jit
from .base import Variant, define_variant

MAX_WINDOW = 2**30  # so that a position plus or minus a width is an int32


@jit
def _mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    left, right = args
    return (kv_idx >= q_idx - left) & (kv_idx <= q_idx + right)


@jit
def _key_bounds(b, h, q_first, q_last, seqlen_q, seqlen_k, args):
    left, right = args
    return q_first - left, q_last + right + 1, q_last - left, q_first + right + 1


@jit
def _query_bounds(b, h, kv_first, kv_last, seqlen_q, seqlen_k, args):
    left, right = args
    return kv_first - right, kv_last + left + 1, kv_last - right, kv_first + left + 1


def _torch_mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    left, right = args
    return (kv_idx >= q_idx - left) & (kv_idx <= q_idx + right)


def _torch_key_bounds(b, q_first, q_last, seqlen_q, seqlen_k, args):
    left, right = args
    return q_first - left, q_last + right + 1, q_last - left, q_first + right + 1


_SLIDING_WINDOW = define_variant(
    "sliding_window",
    mask=_mask,
    torch_mask=_torch_mask,
    key_bounds=_key_bounds,
    query_bounds=_query_bounds,
    torch_key_bounds=_torch_key_bounds,
)


def sliding_window(left: int, right: int = 0) -> Variant:
    """Local attention: query i sees keys ``i - left <= j <= i + right``, both ends included.

    ``sliding_window(255)`` is a causal window of 256 keys, the query's own position included.
    Positions are in key coordinates: the last query is at the position of the last key.

    Raises TypeError if ``left`` or ``right`` is not an int, ValueError if one is negative or
    beyond 2**30 (for an unbounded side, use `causal`).
    """
    for name, width in (("left", left), ("right", right)):
        if isinstance(width, bool) or not isinstance(width, Integral):
            raise TypeError(f"{name}: expected an int, got {type(width).__name__}")
        if not 0 <= width <= MAX_WINDOW:
            raise ValueError(f"{name}: expected 0 <= {name} <= 2**30, got {width}")
    return _SLIDING_WINDOW(int(left), int(right))
