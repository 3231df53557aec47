"""Stacks of variants by name, such as ``softcap+alibi+causal``, and the tensors they take."""

from collections.abc import Callable
from typing import NamedTuple

import torch

import fused_attention as fa

from .custom_variants import BEND, GATE, HEAD_WINDOW, PREFIX, RELATIVE, SINK, STRIPES


class Sizes(NamedTuple):
    """Batch, query heads, key heads, rows, keys, head_dim of q and k, and of v."""

    batch: int
    heads: int
    kv_heads: int
    rows: int
    keys: int
    head_dim: int
    head_dim_v: int


class Part(NamedTuple):
    """One variant: ``tensor`` draws its argument, if it has one, and ``build`` takes it."""

    build: Callable
    tensor: Callable | None = None


def _normal(sizes):
    def draw(shape, generator, dtype):
        full = (shape.batch, shape.heads, shape.rows, shape.keys)
        size = [n if kept else 1 for n, kept in zip(full, sizes, strict=True)]
        return torch.randn(size, generator=generator).to(dtype)

    return draw


def _slopes(shape, generator, dtype):
    return fa.alibi_slopes(shape.heads)


def _batch_slopes(shape, generator, dtype):
    return torch.rand(shape.batch, shape.heads, generator=generator)


def _logits(shape, generator, dtype):
    return (2 * torch.randn(shape.heads, generator=generator)).to(dtype)


def _distances(shape, generator, dtype):
    return torch.randn(shape.heads, 15, generator=generator).to(dtype)


def _relative(shape, generator, dtype):
    """A table (31, heads) that is the transpose of what lies in memory."""
    return torch.randn(shape.heads, 31, generator=generator).to(dtype).mT


def _gates(shape, generator, dtype):
    """Factors of blocks of 16 rows and 16 keys, the same for all heads."""
    size = (shape.batch, 1, -(-shape.rows // 16), -(-shape.keys // 16))
    return torch.randn(size, generator=generator).to(dtype)


def _lengths(shape, generator, dtype):
    """A mix of full, zero and random lengths in every batch of four or more."""
    drawn = torch.randint(1, max(2, shape.keys), (shape.batch,), generator=generator)
    drawn[1::3] = shape.keys
    drawn[3::5] = 0
    return drawn


def _ids(shape, generator, dtype):
    changes = torch.rand(shape.batch, shape.keys, generator=generator) < 0.06
    return changes.long().cumsum(1)


def _some(shape, generator, dtype):
    return torch.rand(shape.batch, 1, shape.rows, shape.keys, generator=generator) < 0.7


PARTS = {
    "causal": Part(lambda _: fa.causal()),
    "top_left": Part(lambda _: fa.causal(align="top_left")),
    "window": Part(lambda _: fa.sliding_window(20)),
    "window_both": Part(lambda _: fa.sliding_window(9, 40)),
    "softcap": Part(lambda _: fa.softcap(1.5)),
    "alibi": Part(fa.alibi, _slopes),
    "alibi_batch": Part(fa.alibi, _batch_slopes),
    "key_padding": Part(fa.key_padding, _lengths),
    "document": Part(fa.document, _ids),
    "mask": Part(fa.mask, _some),
    "bias": Part(fa.bias, _normal((1, 1, 1, 1))),
    "bias_shared": Part(fa.bias, _normal((0, 0, 1, 1))),
    "bias_keys": Part(fa.bias, _normal((1, 0, 0, 1))),
    "bias_rows": Part(fa.bias, _normal((0, 1, 1, 0))),
    "bias_heads": Part(fa.bias, _normal((0, 1, 0, 0))),
    "past_bias": Part(fa.past_bias, _distances),
    "stripes": Part(lambda _: STRIPES(3)),
    "prefix": Part(lambda _: PREFIX(10)),
    "head_window": Part(lambda _: HEAD_WINDOW(9)),
    "bend": Part(lambda _: BEND(0.125)),
    "logit": Part(fa.sink, _logits),
    "relative": Part(lambda table: RELATIVE(table, 15), _relative),
    "gate": Part(lambda gates: GATE(gates, 16), _gates),
    "sink": Part(lambda tensor: SINK(tensor, 0.5), _normal((0, 1, 0, 1))),
}


def names(stack: str) -> list[str]:
    return stack.split("+") if stack else []


def argument_names(stack: str) -> list[str]:
    """A name for the tensor of each part, with its position: a variant may occur twice."""
    return [f"{name}[{position}]" for position, name in enumerate(names(stack))]


def with_gradient(stack: str, tensors: list[torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """The tensors that receive a gradient, by name."""
    return {
        argument: tensor
        for argument, tensor in zip(argument_names(stack), tensors, strict=True)
        if tensor is not None and tensor.is_floating_point()
    }


def draw(stack: str, shape: Sizes, generator: torch.Generator, dtype) -> list[torch.Tensor | None]:
    """The tensor of each part; floating ones are in ``dtype`` unless their variant needs fp32."""
    parts = [PARTS[name] for name in names(stack)]
    return [part.tensor and part.tensor(shape, generator, dtype) for part in parts]


def build(stack: str, tensors: list[torch.Tensor | None]) -> tuple[fa.Variant, ...]:
    return tuple(
        PARTS[name].build(tensor) for name, tensor in zip(names(stack), tensors, strict=True)
    )
