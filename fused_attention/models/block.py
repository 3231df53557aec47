"""The block that every model is a stack of: attention, feed-forward, and a residual stream.

Shapes: x is (batch, seqlen, dim), or (tokens, dim) where sequences of different lengths are laid
end to end and their keys are in a paged cache.
"""

import torch
from torch import nn

from ..modules import MLP, AddLayerNorm, AddRMSNorm
from ..variants import causal, key_padding, sliding_window
from .backends import Core
from .config import Config
from .positions import Positions, positions


def norm_of(config: Config) -> nn.Module:
    """(norm(sum), sum), where sum is ``stream + dropout(x)``, or x where there is no stream."""
    sizes, dropout = (config.dim, config.norm_eps), config.dropout
    if config.norm == "rms":
        return AddRMSNorm(*sizes, dropout=dropout)
    return AddLayerNorm(*sizes, bias=config.bias, dropout=dropout)


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


class Block(nn.Module):
    """Self-attention, cross-attention if there is a context, feed-forward; each with its norm.

    Between blocks travel ``x`` and ``stream``.  Pre-norm: ``x`` is what the last layer has to add
    to the stream, so that sum, dropout and norm are one pass; post-norm needs no stream.
    """

    attention_type = Attention

    def __init__(self, config: Config, layer: int, cross: bool) -> None:
        super().__init__()
        self.prenorm = config.prenorm
        self.attention_norm, self.attention = norm_of(config), self.attention_type(config, layer)
        self.cross_norm = norm_of(config) if cross else None
        self.cross = Attention(config, layer) if cross else None
        self.mlp_norm = norm_of(config)
        self.mlp = MLP(config.dim, config.hidden_dim, config.activation, config.bias)

    def forward(self, x, stream, attend: dict, cross: dict):
        x, stream = self._layer(self.attention_norm, self.attention, x, stream, attend)
        if self.cross is not None:
            x, stream = self._layer(self.cross_norm, self.cross, x, stream, cross)
        return self._layer(self.mlp_norm, self.mlp, x, stream, {})

    def _layer(self, norm, layer, x, stream, options):
        if self.prenorm:
            x, stream = norm(x, stream)
            return layer(x, **options), stream
        return norm(layer(x, **options), x)[0], None


class Stack(nn.Module):
    """Positions, blocks, and the last norm of a pre-norm model: embeddings to hidden states."""

    def __init__(
        self,
        config: Config,
        *,
        causal: bool,
        cross: bool = False,
        at: Positions | None = None,
        block: type = Block,
    ) -> None:
        super().__init__()
        if config.window is not None and not causal:
            raise ValueError(f"window: expected None without a causal mask, got {config.window}")
        self.causal, self.window = causal, config.window
        self.positions = positions(config, causal) if at is None else at
        self.embedding_norm = norm_of(config) if config.embedding_norm else None
        dropout = config.embedding_dropout
        self.dropout = nn.Dropout(config.dropout if dropout is None else dropout)
        self.blocks = nn.ModuleList(block(config, i, cross) for i in range(config.num_layers))
        self.norm = norm_of(config) if config.prenorm else None

    def forward(
        self, x, *, lengths=None, context=None, context_lengths=None, cache=None, step=None
    ) -> torch.Tensor:
        at = torch.arange(x.shape[-2], device=x.device) if step is None else step.positions
        x = self.positions.embed(x, at)
        x = x if self.embedding_norm is None else self.embedding_norm(x)[0]
        x, stream = self.dropout(x), None
        attend = {"positions": self.positions, "at": at, "cache": cache, "step": step}
        attend["variants"] = self._variants(x, lengths, cache if step is not None else None)
        cross = {"context": context, "variants": _padding(context_lengths)}
        for block in self.blocks:
            x, stream = block(x, stream, attend, cross)
        return x if self.norm is None else self.norm(x, stream)[0]

    def _variants(self, x, lengths, paged) -> tuple:
        if paged is not None:
            if self.window is not None and paged.window != self.window:
                raise ValueError(
                    f"cache: expected window {self.window}, the model's, got {paged.window}"
                )
            return self.positions.paged_variants()  # the cache is causal by itself
        masks = (causal(),) if self.causal else ()
        masks += () if self.window is None else (sliding_window(self.window),)
        return (*self.positions.variants(x.shape[1]), *masks, *_padding(lengths))


def _padding(lengths) -> tuple:
    return () if lengths is None else (key_padding(lengths),)
