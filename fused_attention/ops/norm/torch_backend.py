"""Norms on PyTorch operations; both functions fill the results they are given.

The public functions call PyTorch's own norms.  This backend serves operators called where no
kernel runs, such as those of a program exported on a machine with a GPU.
"""

from __future__ import annotations

import torch

from ... import philox


def forward(x, residual, weight, bias, y, h, mean, rstd, eps, dropout_p, seed) -> None:
    """``mean`` of no elements means RMSNorm."""
    centered = mean.shape == rstd.shape
    source = x
    if residual is not None:
        source = h.copy_(residual + dropped(x, dropout_p, seed))
    xhat = source.to(rstd.dtype)
    if centered:
        mean.copy_(xhat.mean(1))
        xhat = xhat - mean[:, None]
    rstd.copy_((xhat.square().mean(1) + eps).rsqrt())
    xhat = xhat * rstd[:, None]
    xhat = xhat if weight is None else xhat * weight
    y.copy_(xhat if bias is None else xhat + bias)


def backward(
    dy, dsum, h, weight, mean, rstd, dx, dresidual, dweight, dbias, dropout_p, seed
) -> None:
    """Gradients of no elements are not computed."""
    centered = mean.shape == rstd.shape
    xhat = h.to(rstd.dtype)
    xhat = (xhat - mean[:, None] if centered else xhat) * rstd[:, None]
    dy = dy.to(rstd.dtype)
    g = dy if weight is None else dy * weight
    dh = g - xhat * (g * xhat).mean(1, keepdim=True)
    if centered:
        dh = dh - g.mean(1, keepdim=True)
    dh = dh * rstd[:, None]
    dh = dh if dsum is None else dh + dsum
    if dresidual is not None:
        dresidual.copy_(dh)
    if dx.numel():
        dx.copy_(dropped(dh, dropout_p, seed))
    if dweight.numel():
        dweight.copy_((dy * xhat).sum(0))
    if dbias.numel():
        dbias.copy_(dy.sum(0))


def dropped(x: torch.Tensor, dropout_p: float, seed: torch.Tensor | None) -> torch.Tensor:
    """The matrix ``x`` where dropout keeps it, scaled, and times 0 elsewhere; all without a seed.

    The same elements as the kernels drop.  NaN is not dropped, as in PyTorch.
    """
    if seed is None:
        return x
    row = torch.arange(x.shape[0], device=x.device)[:, None]
    column = torch.arange(x.shape[1], device=x.device)
    kept = philox.keep(seed, 0, 0, row, column, dropout_p)
    return x * kept * philox.inverse_keep(dropout_p)
