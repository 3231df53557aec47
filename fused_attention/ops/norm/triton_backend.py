"""Norms on Triton kernels; both functions fill the results they are given."""

from __future__ import annotations

import torch

from ... import philox, tuning
from ...kernels import norm


def forward(x, residual, weight, bias, y, h, mean, rstd, eps, dropout_p, seed) -> None:
    """``mean`` of no elements means RMSNorm."""
    arch, num_columns = tuning.architecture(x.device), x.shape[1]
    config = tuning.norm("forward", num_columns, arch)
    fits = num_columns <= config.block_n
    if not fits:
        config = tuning.norm("forward_long", num_columns, arch)
    launch = norm.norm_forward if fits else norm.norm_forward_long
    launch(
        _adjacent(x),
        None if residual is None else _adjacent(residual),
        _vector(weight),
        _vector(bias),
        y,
        h,
        _given(mean),
        rstd,
        eps,
        _dropout(dropout_p, seed),
        config,
    )


def backward(
    dy, dsum, h, weight, mean, rstd, dx, dresidual, dweight, dbias, dropout_p, seed
) -> None:
    """Gradients of no elements are not computed."""
    num_rows, num_columns = h.shape
    arch = tuning.architecture(h.device)
    config = tuning.norm("backward", num_columns, arch)
    fits = num_columns <= config.block_n
    if not fits:
        config = tuning.norm("columns", num_columns, arch)
    programs = min(-(-num_rows // config.block_m), tuning.programs(h.device, config.num_warps))
    partials = [
        h.new_empty(programs, num_columns, dtype=torch.float32) if x.numel() else None
        for x in (dweight, dbias)
    ]
    dy, h, mean = dy.contiguous(), _adjacent(h), _given(mean)
    dsum = None if dsum is None else dsum.contiguous()
    inputs = (dy, dsum, h, _vector(weight), mean, rstd, _given(dx), _given(dresidual))
    dropout = _dropout(dropout_p, seed)
    if fits:
        norm.norm_backward(*inputs, *partials, dropout, programs, config)
    else:
        long = tuning.norm("backward_long", num_columns, arch)
        norm.norm_backward_long(*inputs, dropout, long)
        if partials != [None, None]:
            norm.norm_columns(dy, h, mean, rstd, *partials, programs, config)
    for partial, gradient in zip(partials, (dweight, dbias), strict=True):
        if partial is not None:
            config = tuning.norm("reduce", num_columns, arch)
            norm.norm_reduce(partial, gradient, config)


def _given(x):
    return x if x is not None and x.numel() else None


def _adjacent(x):
    """``x`` with its columns adjacent."""
    return x if x.stride(1) == 1 else x.contiguous()


def _vector(parameter):
    return None if parameter is None else parameter.contiguous()


def _dropout(dropout_p, seed):
    return seed, philox.threshold(dropout_p), philox.inverse_keep(dropout_p)
