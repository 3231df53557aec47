"""Seeded inputs of attention: normal and adversarial values, contiguous and strided layouts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from . import stacks
from .stacks import Sizes


@dataclass(frozen=True)
class Inputs:
    """The tensors of one problem: q, k, v, those of the variants, and the upstream gradients."""

    stack: str
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    tensors: list[torch.Tensor | None]
    do: torch.Tensor
    dlse: torch.Tensor | None
    repeats: bool = False  # whether rows are equal, and so their rounding errors are too
    exact: bool = False  # whether scores are numbers of fp32, so that they have no rounding errors

    def double(self) -> Inputs:
        """The same values in fp64."""

        def cast(x):
            return x.double() if x is not None and x.is_floating_point() else x

        return replace(
            self,
            **{name: cast(getattr(self, name)) for name in ("q", "k", "v", "do", "dlse")},
            tensors=[cast(x) for x in self.tensors],
        )


def _normal(x):
    return x


def _large(x):
    """Attention weights close to one-hot, scores within the range of fp16."""
    return x * 12


def _constant(x):
    """All rows equal: uniform weights, and dq and dk are zero by cancellation."""
    return x[:, :, :1].expand_as(x)


def _outliers(x):
    x = x.clone()
    x[:, :, ::17, 0] = 60
    x[:, :, 1::29] *= 20
    return x


def _tiny(x):
    """All scores nearly equal, yet without subnormals in fp16."""
    return x * 2.0**-6


KINDS = {f.__name__[1:]: f for f in (_normal, _large, _constant, _outliers, _tiny)}


def _contiguous(x):
    return x.clone(memory_format=torch.contiguous_format)


def _hollow(*size, like):
    """A buffer of NaN, so that a read outside the view into it shows up in the result."""
    return like.new_full(size, math.nan)


def _bshd(x):
    batch, heads, length, dim = x.shape
    return _hollow(batch, length, heads, dim, like=x).transpose(1, 2).copy_(x)


def _packed(x):
    """The middle third of a packed projection (batch, length, 3 · heads · dim)."""
    batch, heads, length, dim = x.shape
    packed = _hollow(batch, length, 3, heads, dim, like=x)
    return packed[:, :, 1].transpose(1, 2).copy_(x)


def _strided(x):
    """Gaps in every dimension: no stride follows from the others and the shape."""
    batch, heads, length, dim = x.shape
    parent = _hollow(2 * batch, 3 * heads, 2 * length, dim + 5, like=x)
    return parent[::2, ::3, 1::2, 3 : 3 + dim].copy_(x)


def _permuted(x):
    """The batch dimension second to last in memory, before head_dim."""
    batch, heads, length, dim = x.shape
    return _hollow(length, heads, batch, dim, like=x).permute(2, 1, 0, 3).copy_(x)


def _expanded(x):
    """One sequence for the whole batch: stride 0 over the batch."""
    return x[:1].clone().expand_as(x)


def _broadcast(x):
    """One head for all: stride 0 over the heads."""
    return x[:, :1].clone().expand_as(x)


LAYOUTS = {
    f.__name__[1:]: f
    for f in (_contiguous, _bshd, _packed, _strided, _permuted, _expanded, _broadcast)
}


def make(
    shape: Sizes,
    dtype: torch.dtype,
    device: str = "cpu",
    *,
    stack: str = "",
    kind: str = "normal",
    layout: str = "contiguous",
    do_layout: str = "contiguous",
    lse: bool = True,
    seed: int = 0,
) -> Inputs:
    """Draw a problem, always on the CPU, so that every device gets the same values."""
    generator = torch.Generator().manual_seed(seed)

    def draw(heads, length, dim):
        x = torch.randn(shape.batch, heads, length, dim, generator=generator)
        return LAYOUTS[layout](KINDS[kind](x).to(dtype))

    q = draw(shape.heads, shape.rows, shape.head_dim)
    k = draw(shape.kv_heads, shape.keys, shape.head_dim)
    v = draw(shape.kv_heads, shape.keys, shape.head_dim_v)
    tensors = stacks.draw(stack, shape, generator, dtype)
    do = torch.randn(shape.batch, shape.heads, shape.rows, shape.head_dim_v, generator=generator)
    do = LAYOUTS[do_layout](do.to(dtype))
    dlse = torch.randn(shape.batch, shape.heads, shape.rows, generator=generator)
    dlse = dlse.to(torch.promote_types(dtype, torch.float32)) if lse else None
    moved = [x if x is None else _move(x, device) for x in (q, k, v, do, dlse)]
    tensors = [x if x is None else x.to(device) for x in tensors]
    return Inputs(stack, *moved[:3], tensors, *moved[3:], repeats=kind == "constant")


def _move(x, device):
    """``x`` on the device with the same strides; ``to`` alone drops the gaps between elements."""
    if torch.device(device).type == "cpu":
        return x
    size = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) + 1
    flat = x.new_full((size if x.numel() else 0,), math.nan, device=device)
    moved = flat.as_strided(x.shape, x.stride())
    unique = [slice(None) if s else slice(0, 1) for s in x.stride()]
    moved[unique] = x[unique].to(device)
    return moved
