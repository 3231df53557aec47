"""Modules on the fused ops; a module that torch has too keeps its constructor and state dict."""

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
