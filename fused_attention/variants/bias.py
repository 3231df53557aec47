"""Additive bias given as a tensor, with a gradient."""

import torch

from .._triton import jit, tl
from ..plain import check_plain
from .base import Shape, Variant, define_variant


@jit
def _score(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    pointer, stride_b, stride_h, stride_q, stride_k = args[0]
    row = q_idx - (seqlen_k - seqlen_q)
    start = pointer + b.to(tl.int64) * stride_b + h.to(tl.int64) * stride_h
    at = start + row.to(tl.int64) * stride_q + kv_idx.to(tl.int64) * stride_k
    return s + tl.load(at).to(tl.float32)


@jit
def _bias_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds


def _check(args, shape: Shape):
    check_broadcastable("bias", args[0], shape)


def check_broadcastable(name: str, tensor: torch.Tensor, shape: Shape) -> None:
    """Raise ValueError unless a 4-D tensor broadcasts to (batch, heads, seqlen_q, seqlen_k)."""
    full = (shape.batch, shape.num_heads, shape.seqlen_q, shape.seqlen_k)
    if any(have not in (1, want) for have, want in zip(tensor.shape, full, strict=True)):
        raise ValueError(
            f"{name}: expected a shape broadcastable to {full}, got {tuple(tensor.shape)}"
        )
    if tensor.device != shape.device:
        raise ValueError(f"{name}: expected device {shape.device}, got {tensor.device}")


_BIAS = define_variant(
    "bias",
    score=_score,
    torch_score=lambda s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: s + args[0],
    additive=True,
    arg_grad=_bias_grad,
    torch_arg_grad=lambda ds, s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: ds,
    check=_check,
)


def bias(bias: torch.Tensor) -> Variant:
    """Additive bias: a floating tensor added to the scaled scores; -inf masks a key.

    ``bias``: broadcastable to (batch, heads, seqlen_q, seqlen_k), on the device of the inputs; it
    can receive a gradient, summed over the dimensions that were broadcast.

    Raises TypeError if ``bias`` is not a floating tensor, ValueError if it cannot be broadcast,
    NotImplementedError if it is sparse, nested or of a subclass that redefines operations.
    """
    check_plain("bias", bias)
    if not bias.is_floating_point():
        raise TypeError(f"bias: expected a floating dtype, got {bias.dtype}; see mask() for bool")
    if bias.ndim > 4:
        raise ValueError(f"bias: expected at most 4 dimensions, got {tuple(bias.shape)}")
    return _BIAS(bias[(None,) * (4 - bias.ndim)])
