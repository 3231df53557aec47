"""Attention variants, one file each: a new variant is a file and an import.  Read `base` first."""

from .alibi import alibi, alibi_slopes
from .base import Variant, VariantType, define_variant
from .bias import bias
from .causal import causal
from .document import document
from .key_padding import key_padding
from .mask import mask
from .past_bias import past_bias
from .sink import sink
from .sliding_window import sliding_window
from .softcap import softcap

__all__ = [
    "Variant",
    "VariantType",
    "alibi",
    "alibi_slopes",
    "bias",
    "causal",
    "define_variant",
    "document",
    "key_padding",
    "mask",
    "past_bias",
    "sink",
    "sliding_window",
    "softcap",
]
