"""Modules over the fused ops; constructors and state dicts are torch's where it has them."""

from .activation import GELU
from .loss import CrossEntropyLoss
from .mlp import MLP
from .multihead_attention import MultiheadAttention
from .norm import AddLayerNorm, AddRMSNorm, LayerNorm, RMSNorm

__all__ = [
    "GELU",
    "MLP",
    "AddLayerNorm",
    "AddRMSNorm",
    "CrossEntropyLoss",
    "LayerNorm",
    "MultiheadAttention",
    "RMSNorm",
]
