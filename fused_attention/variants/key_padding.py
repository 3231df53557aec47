"""Key padding: each sequence sees the keys before its length only."""

import torch

from .._triton import jit, tl
from ..plain import check_plain
from .base import Shape, Variant, define_variant


@jit
def _length(b, args):
    """Clamped before it is narrowed: an int64 length may be beyond any position."""
    pointer, stride = args[0]
    length = tl.load(pointer + b * stride)
    return tl.minimum(tl.maximum(length, 0), 2**30).to(tl.int32)


@jit
def _mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return kv_idx < _length(b, args)


@jit
def _key_bounds(b, h, q_first, q_last, seqlen_q, seqlen_k, args):
    length = _length(b, args)
    return 0, length, 0, length


@jit
def _query_bounds(b, h, kv_first, kv_last, seqlen_q, seqlen_k, args):
    length = _length(b, args)
    first = seqlen_k - seqlen_q
    seen = tl.where(kv_first < length, seqlen_k, first)
    wholly_seen = tl.where(kv_last < length, seqlen_k, first)
    return first, seen, first, wholly_seen


def _torch_key_bounds(b, q_first, q_last, seqlen_q, seqlen_k, args):
    (lengths,) = args
    length = int(lengths[b])
    return 0, length, 0, length


def _check(args, shape: Shape):
    (lengths,) = args
    if lengths.shape != (shape.batch,):
        raise ValueError(
            f"lengths: expected shape ({shape.batch},), one per sequence, "
            f"got {tuple(lengths.shape)}"
        )
    if lengths.device != shape.device:
        raise ValueError(f"lengths: expected device {shape.device}, got {lengths.device}")


_KEY_PADDING = define_variant(
    "key_padding",
    mask=_mask,
    torch_mask=lambda b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: kv_idx < args[0][b],
    key_bounds=_key_bounds,
    query_bounds=_query_bounds,
    torch_key_bounds=_torch_key_bounds,
    batched_bounds=True,
    check=_check,
)


def key_padding(lengths: torch.Tensor) -> Variant:
    """Right padding: in sequence b, only keys ``j < lengths[b]`` exist.

    ``lengths``: integer tensor, shape (batch,), on the device of the inputs.  The contents of the
    padding of k and v, even NaN, have no effect.  Any length above seqlen_k means all keys, a
    negative one no keys.

    Raises TypeError if ``lengths`` is not an integer tensor, ValueError if its shape or device
    does not fit the inputs.
    """
    check_plain("lengths", lengths)
    if lengths.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"lengths: expected dtype int32 or int64, got {lengths.dtype}")
    return _KEY_PADDING(lengths)
