"""Triton attention kernels for PyTorch: exact, tiled, with every common variant."""

from . import reference
from .ops.attention import attention
from .variants import (
    Variant,
    alibi,
    alibi_slopes,
    bias,
    causal,
    define_variant,
    document,
    key_padding,
    mask,
    sliding_window,
    softcap,
)

__version__ = "0.1.0"

__all__ = [
    "Variant",
    "alibi",
    "alibi_slopes",
    "attention",
    "bias",
    "causal",
    "define_variant",
    "document",
    "key_padding",
    "mask",
    "reference",
    "sliding_window",
    "softcap",
]
