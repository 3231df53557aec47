"""Multi-head attention: self-attention, cross-attention, and attention to a paged cache."""

import torch
import torch.nn.functional as F
from torch import nn

from .backends import AttentionCore
from .config import Config


class AttentionLayer(nn.Module):
    """Multi-head attention of x to itself, to a ``context``, or to the keys of a cache.

    The rows of ``qkv.weight`` are those of all queries, then all keys, then all values, each head
    by head.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        self.heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
        self.qkv = nn.Linear(config.dim, sum(self.heads) * config.head_dim, config.bias)
        self.out = nn.Linear(config.num_heads * config.head_dim, config.dim, config.bias)
        self.core = AttentionCore(config.attention_dropout)

    def project(self, x: torch.Tensor, context: torch.Tensor | None = None):
        """q of x, k and v of the context or of x: (..., seqlen, heads, head_dim) each."""
        q_rows, k_rows, v_rows = (heads * self.head_dim for heads in self.heads)
        if context is None:
            q, k, v = self.qkv(x).split([q_rows, k_rows, v_rows], -1)
        else:
            parts = [q_rows, k_rows + v_rows]
            q_weight, kv_weight = self.qkv.weight.split(parts)
            q_bias, kv_bias = (None, None) if self.qkv.bias is None else self.qkv.bias.split(parts)
            q = F.linear(x, q_weight, q_bias)
            k, v = F.linear(context, kv_weight, kv_bias).split([k_rows, v_rows], -1)
        return (t.unflatten(-1, (-1, self.head_dim)) for t in (q, k, v))

    def forward(
        self,
        x,
        variants=(),
        positions=None,
        position_ids=None,
        context=None,
        cache=None,
        step=None,
    ):
        """The output (..., seqlen, dim).

        Args:
            x: (batch, seqlen, dim); with a step (tokens, dim).
            variants: masks and biases of the scores.
            positions: `Positions` that rotate queries and keys; none by default.
            position_ids: (seqlen,) or (tokens,), of x.
            context: (batch, context_len, dim), to attend to in place of x.
            cache, step: a `PagedKVCache` to attend to in place of x, and its open step.
        """
        q, k, v = self.project(x, context)
        if step is None:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, H, L, D)
        if positions is not None:
            q, k = positions.rotate(q, k, position_ids)
        if step is None:
            out = self.core(q, k, v, variants).transpose(1, 2)
        else:
            out = cache.attend(self.layer, q, k, v, step, variants)
        return self.out(out.flatten(-2))
