"""Three implementations of the same attention: fused, naive, and PyTorch's."""

import torch
import torch.nn.functional as F
from torch import nn

from .. import reference
from ..ops.attention.attention import attention as fused
from ..ops.attention.sdpa_mask import sdpa_mask
from ..variants.base import Shape


def naive(q, k, v, variants, *, dropout_p):
    """The textbook formula, with all scores in memory."""
    return reference.attention(q, k, v, variants, dropout_p=dropout_p).out


def sdpa(q, k, v, variants, *, dropout_p):
    """``F.scaled_dot_product_attention``, with ``is_causal`` if that suffices, else one mask."""
    options = {"dropout_p": dropout_p, "enable_gqa": q.shape[1] != k.shape[1]}
    if [variant.name for variant in variants] == ["causal"] and q.shape[2] == k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, **options)
    mask = sdpa_mask(Shape.of(q, k), variants, q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)


BACKENDS = {"fused": fused, "naive": naive, "sdpa": sdpa}


class AttentionCore(nn.Module):
    """The attention of q, k and v by the chosen backend; a module, so that hooks see its inputs.

    q: (batch, heads, seqlen_q, head_dim), k and v: (batch, kv_heads, seqlen_k, head_dim).
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.backend = "fused"

    def forward(self, q, k, v, variants=()) -> torch.Tensor:
        dropout_p = self.dropout if self.training else 0.0
        return BACKENDS[self.backend](q, k, v, variants, dropout_p=dropout_p)

    def extra_repr(self) -> str:
        return f"backend={self.backend!r}, dropout={self.dropout}"
