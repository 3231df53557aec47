"""Boolean mask given as a tensor."""

import torch

from .._triton import jit, tl
from ..plain import check_plain
from .base import Shape, Variant, define_variant
from .bias import check_broadcastable


@jit
def _mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    pointer, stride_b, stride_h, stride_q, stride_k = args[0]
    row = q_idx - (seqlen_k - seqlen_q)
    start = pointer + b.to(tl.int64) * stride_b + h.to(tl.int64) * stride_h
    return tl.load(start + row.to(tl.int64) * stride_q + kv_idx.to(tl.int64) * stride_k) != 0


def _check(args, shape: Shape):
    check_broadcastable("mask", args[0], shape)


_MASK = define_variant(
    "mask",
    mask=_mask,
    torch_mask=lambda b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: args[0],
    check=_check,
)


def mask(mask: torch.Tensor) -> Variant:
    """Mask given as a boolean tensor: True where a query may see a key, as in torch.

    ``mask``: broadcastable to (batch, heads, seqlen_q, seqlen_k), on the device of the inputs.
    The mask is read tile by tile, and no tile is skipped.  A variant that computes the same mask
    and its bounds (`causal`, `sliding_window`, `document`, or your own) is faster.

    Raises TypeError if ``mask`` is not a boolean tensor, ValueError if it cannot be broadcast,
    NotImplementedError if it is sparse, nested or of a subclass that redefines operations.
    """
    check_plain("mask", mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected dtype bool, got {mask.dtype}; see bias() for floats")
    if mask.ndim > 4:
        raise ValueError(f"mask: expected at most 4 dimensions, got {tuple(mask.shape)}")
    return _MASK(mask[(None,) * (4 - mask.ndim)])
