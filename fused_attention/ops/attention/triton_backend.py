"""Attention on Triton kernels, on a GPU or in the interpreter."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from ... import philox, tuning
from ...kernels import attention_backward, attention_forward, hooks
from ...kernels.launch import LaunchOptions, VariantStack
from ...variants.base import Shape, Variant
from ..layout import empty_gradient, empty_like
from . import tables
from .dropout import Dropout


def forward(q, k, v, variants: Sequence[Variant], scale: float, dropout: Dropout | None):
    """Output (B, H, M, Dv) in the dtype of q, LSE (B, H, M) and statistics (B, H, M, 2), fp32."""
    out = empty_like(q, v.shape[3])
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    stats = lse.new_empty(*lse.shape, 2)
    options = _options("forward", q, v, variants, scale, dropout)
    attention_forward.attention_forward(q, k, v, out, lse, stats, options)
    return out, lse, stats


def backward(do, dlse, q, k, v, out, stats, variants, scale, dropout, wanted: Sequence[bool]):
    """dq, dk, dv, and the gradient of the first argument of each variant that is ``wanted``."""
    dq, dk, dv = (empty_gradient(x) for x in (q, k, v))
    if do.shape[3] > 1 and do.stride(3) != 1:
        do = do.contiguous()
    dlse = None if dlse is None else dlse.contiguous()
    delta = stats.new_empty(stats.shape[:3])

    def options(kernel):
        return _options(kernel, q, v, variants, scale, dropout)

    dq_options = options("dq")
    attention_backward.attention_delta(out, do, dlse, delta, dq_options.config)
    attention_backward.attention_dq(q, k, v, do, stats, delta, dq, dq_options)
    if dk.numel() > 0:
        attention_backward.attention_dkdv(q, k, v, do, stats, delta, dk, dv, options("dkdv"))
    scoring = [variant for variant in variants if variant.type.score is not None]
    dargs = []
    for variant, want in zip(variants, wanted, strict=True):
        if not want:
            continue
        shape, index = variant.args[0].shape, scoring.index(variant)
        if k.numel() == 0:
            dargs.append(delta.new_zeros(shape))
            continue
        dbias_options = options("dbias")
        dbias = functools.partial(
            attention_backward.attention_dbias,
            *(q, k, v, do, stats, delta),
            index=index,
            options=dbias_options,
        )
        if variant.type.torch_arg_index is None:
            dargs.append(dbias(shape, slice(0, q.shape[2])))
        else:
            dargs.append(_table_gradient(q, k, variant, dbias, dbias_options.config.block_m))
    return dq, dk, dv, dargs


def _table_gradient(q, k, variant: Variant, dbias, block_m: int):
    """The gradient, fp32, of the variant's table; ``dbias(shape, rows)`` is that of a bias."""
    shape = Shape.of(q, k)
    dtable = q.new_zeros(variant.args[0].shape, dtype=torch.float32)
    batch, keys = slice(0, shape.batch), slice(0, shape.seqlen_k)
    for rows in tables.strips(shape, block_m):
        index = tables.index_of(variant, shape.indices(batch, rows, keys))
        tables.add_at(dtable, index, dbias(index.shape, rows))
    return dtable


def variant_stack(variants: Sequence[Variant]) -> VariantStack:
    """The hooks of the variants and their arguments, as the kernels take them."""
    masks = [variant for variant in variants if variant.type.mask is not None]
    scores = [variant for variant in variants if variant.type.score is not None]
    return VariantStack(
        masks=tuple(variant.type.mask for variant in masks),
        mask_args=tuple(_kernel_args(variant) for variant in masks),
        key_bounds=tuple(variant.type.key_bounds or hooks.no_bounds for variant in masks),
        query_bounds=tuple(variant.type.query_bounds or hooks.no_bounds for variant in masks),
        scores=tuple(variant.type.score for variant in scores),
        score_args=tuple(_kernel_args(variant) for variant in scores),
        score_grads=tuple(variant.type.score_grad for variant in scores),
        arg_grads=tuple(variant.type.arg_grad for variant in scores),
    )


def _kernel_args(variant: Variant) -> tuple:
    """The arguments as hooks take them: tensors as (pointer, strides), stride 0 for size 1."""
    return tuple(
        (arg, *(s if n > 1 else 0 for n, s in zip(arg.shape, arg.stride(), strict=True)))
        if isinstance(arg, torch.Tensor)
        else arg
        for arg in variant.args
    )


def dot_precision() -> str:
    """The input precision of tl.dot for fp32, by ``torch.get_float32_matmul_precision()``."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _options(kernel: str, q, v, variants, scale, dropout: Dropout | None) -> LaunchOptions:
    head_dim = max(q.shape[3], v.shape[3])
    config = tuning.config(kernel, head_dim, q.dtype, tuning.architecture(q.device))
    options = LaunchOptions(scale, variant_stack(variants), config, dot_precision())
    if dropout is None:
        return options
    return options._replace(
        seed=dropout.seed,
        dropout_threshold=philox.threshold(dropout.p),
        dropout_scale=philox.inverse_keep(dropout.p),
    )
