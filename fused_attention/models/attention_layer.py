"""Multi-head attention: self-attention, cross-attention, and over a paged cache."""

import torch
from torch import nn

from .backends import Core
from .config import Config


class Attention(nn.Module):
    """Multi-head attention: of x to itself, to a ``context``, or to what a cache holds.

    ``qkv.weight`` has the rows of all queries, then of all keys, then of all values, head by head.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        self.heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
        self.qkv = nn.Linear(config.dim, sum(self.heads) * config.head_dim, config.bias)
        self.out = nn.Linear(config.num_heads * config.head_dim, config.dim, config.bias)
        self.core = Core(config.attention_dropout)

    def project(self, x: torch.Tensor, context: torch.Tensor | None = None):
        """q of x, k and v of the context: (..., seqlen, heads, head_dim) each."""
        sizes = [heads * self.head_dim for heads in self.heads]
        if context is None:
            q, k, v = self.qkv(x).split(sizes, -1)
        else:
            parts = [sizes[0], sizes[1] + sizes[2]]
            biases = (None, None) if self.qkv.bias is None else self.qkv.bias.split(parts)
            weights = self.qkv.weight.split(parts)
            q, kv = map(nn.functional.linear, (x, context), weights, biases)
            k, v = kv.split(sizes[1:], -1)
        return (t.unflatten(-1, (-1, self.head_dim)) for t in (q, k, v))

    def forward(self, x, variants=(), positions=None, at=None, context=None, cache=None, step=None):
        q, k, v = self.project(x, context)
        if step is None:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, H, L, D)
        if positions is not None:
            q, k = positions.rotate(q, k, at)
        if step is None:
            out = self.core(q, k, v, variants).transpose(1, 2)
        else:
            out = cache.attend(self.layer, q, k, v, step, variants)
        return self.out(out.flatten(-2))
