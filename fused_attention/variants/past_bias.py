"""A bias by the distance from a query back to a key: relative positions, from a table."""

import torch

from .._triton import jit, tl
from ..plain import check_plain
from .base import Shape, Variant, define_variant


@jit
def _score(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    pointer, stride_h, stride_d = args[0]
    back = tl.minimum(tl.maximum(q_idx - kv_idx, 0), args[1] - 1)
    return s + tl.load(pointer + h * stride_h + back * stride_d).to(tl.float32)


@jit
def _values_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds


def _torch_score(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    values, distances = args
    return s + values.to(s.dtype)[h, (q_idx - kv_idx).clamp(0, distances - 1)]


def _torch_index(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    _, distances = args
    return h * distances + (q_idx - kv_idx).clamp(0, distances - 1)


def _check(args, shape: Shape):
    values, _ = args
    if values.shape[0] != shape.num_heads:
        raise ValueError(
            f"values: expected shape ({shape.num_heads}, distances), a row per query head, "
            f"got {tuple(values.shape)}"
        )
    if values.device != shape.device:
        raise ValueError(f"values: expected device {shape.device}, got {values.device}")


_PAST_BIAS = define_variant(
    "past_bias",
    score=_score,
    torch_score=_torch_score,
    additive=True,
    arg_grad=_values_grad,
    torch_arg_grad=lambda ds, s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: ds,
    torch_arg_index=_torch_index,
    check=_check,
)


def past_bias(values: torch.Tensor) -> Variant:
    """Add ``values[h, i - j]`` to the score of the query at i and the key at j.

    ``values``: floating tensor, shape (heads, distances), of query heads, on the device of the
    inputs; it can receive a gradient.  Keys farther back than the table get its last value, keys
    after the query the value of distance 0.  The variant needs no memory of the size of the scores
    and works over a paged KV cache.  An example of such a bias is T5's: Raffel et al. 2020, arXiv
    1910.10683, section 2.1.

    Raises TypeError if ``values`` is not a floating tensor, ValueError if its shape or device does
    not fit.
    """
    check_plain("values", values)
    if not values.is_floating_point():
        raise TypeError(f"values: expected a floating dtype, got {values.dtype}")
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"values: expected shape (heads, distances), got {tuple(values.shape)}")
    return _PAST_BIAS(values, values.shape[1])
