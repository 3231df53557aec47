"""Attention: the public function, its registered operators, and their gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ... import philox
from ...variants.base import Variant, as_variants, decode, encode
from .. import autocast, backend
from ..checks import check_dropout, check_scale
from ..layout import accumulator, empty_gradient, empty_like
from ..registration import define
from ..transforms import refuse_forward_mode
from . import checks, sinks, torch_backend
from .dropout import Dropout

_STACK = "str spec, Tensor[] tensors, float[] scalars, float scale, float dropout_p, Tensor? seed"
_INSTEAD = "torch.nn.functional.scaled_dot_product_attention with its math backend"


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    variants: Variant | Sequence[Variant] = (),
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    return_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Exact softmax attention in O(seqlen) memory, forward and backward.

    Computes ``softmax(scale * q @ k.T) @ v`` with the ``variants`` applied to the scores: score
    variants in the order given, then the masks.  FlashAttention-2 (Dao 2023, arXiv 2307.08691).

    Args:
        q: (batch, heads, seqlen_q, head_dim); fp16, bf16, fp32 or fp64.
        k: (batch, kv_heads, seqlen_k, head_dim), kv_heads dividing heads: query head h reads
            key head ``h // (heads // kv_heads)``.
        v: (batch, kv_heads, seqlen_k, head_dim_v).
            Any strides with a contiguous last dimension.  If head_dim or head_dim_v is above 256,
            the limit of the kernels, PyTorch operations compute the attention on every device.
        variants: a variant or a sequence of them, e.g. ``(fa.softcap(30.0), fa.causal())``.
        scale: of the scores; 1 / sqrt(head_dim) by default.
        dropout_p: probability of dropping a weight; the seed is drawn from the default generator
            of the device.
        return_lse: also return the log-sum-exp of the scores.

    Returns:
        (batch, heads, seqlen_q, head_dim_v) in the dtype of q; with ``return_lse`` also the
        natural-log LSE, (batch, heads, seqlen_q), fp32 (fp64 for fp64 inputs), through which
        gradients flow.  A query that sees no key has output 0, LSE -inf and zero gradient.

    Under autocast the inputs, unless fp64, are cast to its dtype.  Backward is deterministic.
    NaN and infinities give what they give in `reference.attention`, though keys that a mask hides
    may or may not pass theirs on.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or range.
        NotImplementedError: nested tensors, tensor subclasses that redefine operations,
            forward-mode derivatives, double backward, a gradient for an argument of a variant that
            has none.
    """
    variants = as_variants(variants)
    check_scale(scale)
    check_dropout(dropout_p)
    q, k, v = autocast.cast(q, k, v)
    checks.check_tensors(q, k, v)
    checks.check_head_dims(q, k, v)
    checks.check_variants(q, k, variants)
    out, lse = apply(q, k, v, variants, scale, dropout_p)
    return (out, lse) if return_lse else out


def apply(q, k, v, variants: Sequence[Variant], scale: float | None, dropout_p: float):
    """Output and LSE, from the operator; the arguments have been checked."""
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else float(scale)
    seed = philox.new_seed(q.device) if dropout_p > 0 else None
    variants, extra = sinks.split_off(variants)
    spec, tensors, scalars = encode(variants)
    refuse_forward_mode("attention", _INSTEAD, q, k, v, *tensors)
    out, lse, _ = _attention(q, k, v, spec, tensors, scalars, scale, float(dropout_p), seed)
    return sinks.apply(out, lse, extra, heads_at=1)


def _backend(q, v):
    """The backend of q's device, but the torch backend for heads too wide for the kernels."""
    if max(q.shape[3], v.shape[3]) > checks.MAX_HEAD_DIM:
        return torch_backend
    return backend.of("attention", q)


def _forward(q, k, v, spec, tensors, scalars, scale, dropout_p, seed):
    dropout = None if seed is None else Dropout(dropout_p, seed)
    variants = decode(spec, tensors, scalars)
    return _backend(q, v).forward(q, k, v, variants, scale, dropout)


def _forward_fake(q, k, v, spec, tensors, scalars, scale, dropout_p, seed):
    lse = q.new_empty(q.shape[:3], dtype=accumulator(q.dtype))
    return empty_like(q, v.shape[3]), lse, lse.new_empty(*lse.shape, 2)


def _backward(
    do, dlse, q, k, v, out, stats, spec, tensors, scalars, scale, dropout_p, seed, wanted
):
    dropout = None if seed is None else Dropout(dropout_p, seed)
    variants = decode(spec, tensors, scalars)
    dq, dk, dv, dargs = _backend(q, v).backward(
        do, dlse, q, k, v, out, stats, variants, scale, dropout, wanted
    )
    return [dq, dk, dv, *dargs]


def _backward_fake(
    do, dlse, q, k, v, out, stats, spec, tensors, scalars, scale, dropout_p, seed, wanted
):
    dtype = accumulator(q.dtype)
    variants = decode(spec, tensors, scalars)
    dargs = [
        variant.args[0].new_empty(variant.args[0].shape, dtype=dtype)
        for variant, want in zip(variants, wanted, strict=True)
        if want
    ]
    return [*map(empty_gradient, (q, k, v)), *dargs]


def _setup_context(ctx, inputs, output):
    q, k, v, spec, tensors, scalars, scale, dropout_p, seed = inputs
    out, _, stats = output
    ctx.mark_non_differentiable(stats)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, out, stats, seed, *tensors)
    ctx.rest = spec, scalars, scale, dropout_p


def _autograd(ctx, do, dlse, _):
    q, k, v, out, stats, seed, *tensors = ctx.saved_tensors
    spec, scalars, scale, dropout_p = ctx.rest
    needed = iter(ctx.needs_input_grad[4])
    wanted, positions, position = [], [], 0
    for variant in decode(spec, tensors, scalars):
        count = sum(isinstance(arg, torch.Tensor) for arg in variant.args)
        flags = [next(needed) for _ in range(count)]
        wanted.append(any(flags))
        positions += [position] if any(flags) else []
        position += count
    do = torch.zeros_like(out) if do is None else do
    dq, dk, dv, *dargs = _attention_backward(
        do, dlse, q, k, v, out, stats, spec, tensors, scalars, scale, dropout_p, seed, wanted
    )
    dtensors = [None] * len(tensors)
    for position, darg in zip(positions, dargs, strict=True):
        dtensors[position] = darg.to(tensors[position].dtype)
    return dq, dk, dv, None, dtensors, None, None, None, None


def _flops(q_shape, k_shape, v_shape, *args, out_shape=None, **kwargs) -> int:
    """Two matrix products over all pairs of query and key, masked or not, as torch counts SDPA."""
    batch, heads, seqlen_q, head_dim = q_shape
    return 2 * batch * heads * seqlen_q * k_shape[2] * (head_dim + v_shape[3])


def _backward_flops(do_shape, dlse_shape, q_shape, k_shape, v_shape, *args, **kwargs) -> int:
    """Five matrix products, two of them over v's head_dim."""
    batch, heads, seqlen_q, head_dim = q_shape
    return 2 * batch * heads * seqlen_q * k_shape[2] * (3 * head_dim + 2 * v_shape[3])


_attention = define(
    f"attention(Tensor q, Tensor k, Tensor v, {_STACK}) -> (Tensor out, Tensor lse, Tensor stats)",
    _forward,
    _forward_fake,
    autograd=_autograd,
    setup_context=_setup_context,
    flops=_flops,
)
_attention_backward = define(
    "attention_backward(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, "
    f"Tensor out, Tensor stats, {_STACK}, bool[] wanted) -> Tensor[]",
    _backward,
    _backward_fake,
    flops=_backward_flops,
    instead=_INSTEAD,
)
