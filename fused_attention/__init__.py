"""Triton attention kernels for PyTorch: exact, tiled, with every common variant."""

from . import models, objectives, reference, visualize
from .cache.block_pool import BlockPool, OutOfBlocks
from .cache.paged_kv_cache import PagedKVCache
from .checking import check_variant
from .modules import (
    GELU,
    MLP,
    AddLayerNorm,
    AddRMSNorm,
    CrossEntropyLoss,
    LayerNorm,
    MultiheadAttention,
    RMSNorm,
)
from .ops.activation.bias_gelu import bias_gelu
from .ops.activation.gelu import gelu
from .ops.activation.glu import geglu, swiglu
from .ops.attention.attention import attention
from .ops.attention.sdpa import scaled_dot_product_attention
from .ops.loss.cross_entropy import cross_entropy
from .ops.loss.linear_cross_entropy import linear_cross_entropy
from .ops.norm.add_norm import add_layer_norm, add_rms_norm
from .ops.norm.layer_norm import layer_norm
from .ops.norm.rms_norm import rms_norm
from .ops.paged.append import paged_append
from .ops.paged.attention import paged_attention
from .ops.paged.copy_blocks import copy_blocks
from .ops.rotary.rotary import apply_rotary, rotary_tables
from .ops.rotary.scaling import RotaryScaling
from .variants import (
    Variant,
    VariantType,
    alibi,
    alibi_slopes,
    bias,
    causal,
    define_variant,
    document,
    key_padding,
    mask,
    past_bias,
    sink,
    sliding_window,
    softcap,
)

__version__ = "0.1.0"

__all__ = [
    "GELU",
    "MLP",
    "AddLayerNorm",
    "AddRMSNorm",
    "BlockPool",
    "CrossEntropyLoss",
    "LayerNorm",
    "MultiheadAttention",
    "OutOfBlocks",
    "PagedKVCache",
    "RMSNorm",
    "RotaryScaling",
    "Variant",
    "VariantType",
    "add_layer_norm",
    "add_rms_norm",
    "alibi",
    "alibi_slopes",
    "apply_rotary",
    "attention",
    "bias",
    "bias_gelu",
    "causal",
    "check_variant",
    "copy_blocks",
    "cross_entropy",
    "define_variant",
    "document",
    "geglu",
    "gelu",
    "key_padding",
    "layer_norm",
    "linear_cross_entropy",
    "mask",
    "models",
    "objectives",
    "paged_append",
    "paged_attention",
    "past_bias",
    "reference",
    "rms_norm",
    "rotary_tables",
    "scaled_dot_product_attention",
    "sink",
    "sliding_window",
    "softcap",
    "swiglu",
    "visualize",
]
