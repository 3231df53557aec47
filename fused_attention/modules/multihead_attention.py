"""torch's multi-head attention on the fused op."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..ops.attention.attention import attention
from ..ops.checks import ArgumentError
from ..plain import check_plain
from ..variants import bias, causal, mask
from .called import always_called


@always_called
class MultiheadAttention(nn.MultiheadAttention):
    """``torch.nn.MultiheadAttention`` on `fused_attention.attention`.

    Constructor, state dict, initialization, signature and results are the same as torch's, with one
    exception: for a query that sees no key (if every key is padding, for example) the attention is
    zero, so the output is the bias of ``out_proj``; in torch it can be NaN, depending on the
    implementation that torch selects.  ``need_weights=True``, torch's default, keeps all attention
    weights in memory; pass False to avoid that.

    ``is_causal`` promises that ``attn_mask`` is the causal mask.  Without weights and
    key_padding_mask the mask is then not read, as in torch, and query i sees the keys ``j <= i``.
    The keys that ``add_bias_kv`` and ``add_zero_attn`` append count as the last ones: most queries
    do not see them then, while a mask that is read leaves them visible to all.

    A nested tensor is taken where torch's ``TransformerEncoder`` passes one: as query, key and
    value alike, with ``batch_first`` and no masks or weights.

    Raises:
        ValueError, TypeError: shapes or dtypes that do not fit, or ``is_causal`` without
            ``attn_mask``; torch raises RuntimeError or AssertionError for these.
        NotImplementedError: other nested tensors, tensor subclasses that redefine operations.
    """

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        alone = query is key is value and key_padding_mask is None and attn_mask is None
        if alone and self.batch_first and not need_weights and _is_nested(query):
            padded, padding, lengths = _padded(query)
            out, _ = self.forward(padded, padded, padded, padding, False, is_causal=is_causal)
            rows = [x[:length] for x, length in zip(out, lengths, strict=True)]
            return torch.nested.as_nested_tensor(rows), None
        # is_causal promises that attn_mask is causal, so that attn_mask need not be read.
        hinted = is_causal and key_padding_mask is None and not need_weights
        self._check(query, key, value, key_padding_mask, attn_mask, is_causal, hinted)
        batch_dim = None if query.ndim == 2 else 0 if self.batch_first else 1
        q, k, v = (
            x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for x in self._projected(*_batch_first(batch_dim, query, key, value))
        )  # (B, H, L, D)
        masks = [] if hinted else self._masks(q, k, key_padding_mask, attn_mask)
        dropout_p = self.dropout if self.training else 0.0
        if need_weights:
            out, weights = _with_weights(q, k, v, masks, dropout_p)
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights[0] if batch_dim is None else weights
        else:
            variants = [mask(m) if m.dtype == torch.bool else bias(m) for m in masks]
            variants += [causal("top_left")] if hinted else []
            out, weights = attention(q, k, v, variants, dropout_p=dropout_p), None
        out = F.linear(out.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)
        return out[0] if batch_dim is None else out.transpose(0, batch_dim), weights

    def _projected(self, query, key, value):
        """Projections, (B, L, E) each; keys and values extended as `_extended` does."""
        weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            if query is key is value:
                packed = F.linear(query, self.in_proj_weight, self.in_proj_bias)
                return self._extended(*packed.chunk(3, -1))
            weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return self._extended(*map(F.linear, (query, key, value), weights, biases))

    def _extended(self, q, k, v):
        ends = [] if self.bias_k is None else [(self.bias_k, self.bias_v)]
        ends += [(k.new_zeros(1, 1, self.embed_dim),) * 2] if self.add_zero_attn else []
        for end_k, end_v in ends:
            k, v = (
                torch.cat([x, end.expand(len(x), 1, -1)], 1) for x, end in ((k, end_k), (v, end_v))
            )
        return q, k, v

    def _masks(self, q, k, key_padding_mask, attn_mask) -> list[torch.Tensor]:
        """Masks, (B or 1, H or 1, L or 1, S): boolean, True to attend, or added to the scores."""
        masks = []
        if key_padding_mask is not None:
            masks.append(key_padding_mask.reshape(len(q), 1, 1, -1))
        if attn_mask is not None:
            heads = q.shape[:2] if attn_mask.ndim == 3 else (1, 1)
            masks.append(attn_mask.reshape(*heads, *attn_mask.shape[-2:]))
        # Keys appended by `_extended` are always visible.
        masks = [F.pad(m, (0, k.shape[2] - m.shape[-1])) for m in masks]
        return [~m if m.dtype == torch.bool else m for m in masks]

    def _check(self, query, key, value, key_padding_mask, attn_mask, is_causal, hinted) -> None:
        tensors = {"query": query, "key": key, "value": value}
        for name, x in tensors.items():
            check_plain(name, x, "; pad it and mask the padding")
            if x.ndim != query.ndim or x.ndim not in (2, 3):
                raise ArgumentError(
                    "query, key, value: expected 3 dimensions each, or 2 each without a batch, got "
                    + ", ".join(str(tuple(x.shape)) for x in tensors.values())
                )
        for name, x, size in zip(
            tensors, tensors.values(), (self.embed_dim, self.kdim, self.vdim), strict=True
        ):
            if x.shape[-1] != size:
                raise ArgumentError(
                    f"{name}: expected {size} for the last dimension, got {tuple(x.shape)}"
                )
        if key.shape[:-1] != value.shape[:-1]:
            raise ArgumentError(
                f"value: expected the batch and length of key, {tuple(key.shape)}, "
                f"got {tuple(value.shape)}"
            )
        batch_first = self.batch_first or query.ndim == 2
        seqlen_q, seqlen_k = (x.shape[-2 if batch_first else 0] for x in (query, key))
        batch = 1 if query.ndim == 2 else query.shape[0 if batch_first else 1]
        if query.ndim == 3 and key.shape[0 if batch_first else 1] != batch:
            raise ArgumentError(
                f"key: expected the batch of query, {batch}, got {tuple(key.shape)}"
            )
        padding = (seqlen_k,) if query.ndim == 2 else (batch, seqlen_k)
        square = (seqlen_q, seqlen_k)
        _check_mask("key_padding_mask", key_padding_mask, padding)
        shapes = (square, (batch * self.num_heads, *square))
        if hinted and isinstance(attn_mask, torch.Tensor) and attn_mask.ndim in (2, 3):
            shapes = (tuple(attn_mask.shape),)  # it is not read, so any will do, as in torch
        _check_mask("attn_mask", attn_mask, *shapes)
        if is_causal and attn_mask is None:
            raise ArgumentError(
                "is_causal: expected the causal attn_mask that it hints at, got None"
            )


def _is_nested(x) -> bool:
    return type(x) is torch.Tensor and x.is_nested and x.layout == torch.strided


def _padded(nested: torch.Tensor):
    """The batch (B, L, E) padded with zeros, True where it is padded (B, L), and the lengths."""
    lengths = [len(x) for x in nested.unbind()]
    padded = nested.to_padded_tensor(0.0)
    position = torch.arange(padded.shape[1], device=padded.device)
    padding = position >= torch.tensor(lengths, device=padded.device)[:, None]
    return padded, padding, lengths


def _check_mask(name: str, x, *shapes: tuple[int, ...]) -> None:
    if x is None:
        return
    check_plain(name, x)
    if x.dtype != torch.bool and not x.is_floating_point():
        raise TypeError(f"{name}: expected dtype bool or floating, got {x.dtype}")
    if tuple(x.shape) not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ArgumentError(f"{name}: expected shape {expected}, got {tuple(x.shape)}")


def _batch_first(batch_dim: int | None, query, key, value):
    """query, key and value as (B, L, E).

    Arguments that are the same tensor stay the same tensor, so that `_projected` projects it once.
    """

    def moved(x):
        return x[None] if batch_dim is None else x.transpose(0, batch_dim)

    q = moved(query)
    k = q if key is query else moved(key)
    return q, k, k if value is key else moved(value)


def _with_weights(q, k, v, masks, dropout_p):
    """Output and weights (B, H, L, S) of attention; as in torch, the weights are after dropout."""
    scores = (q / math.sqrt(q.shape[-1])) @ k.mT
    for m in masks:
        scores = scores.masked_fill(~m, -math.inf) if m.dtype == torch.bool else scores + m
    empty = (scores == -math.inf).all(-1, keepdim=True)
    weights = scores.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)
    weights = F.dropout(weights, dropout_p)
    return weights.to(v.dtype) @ v, weights
