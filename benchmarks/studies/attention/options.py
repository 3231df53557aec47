"""Options that the studies of attention share, and the checks of their values."""

from dataclasses import dataclass
from typing import Annotated

from ...harness.options import BadOption, at_least, choices, found_by, one_of, option
from . import providers, variants
from .point import MODES

DEFAULT_HEADS, DEFAULT_HEAD_DIM = 8, 64

Providers = Annotated[
    str | None,
    option(
        "Comma-separated: naive, sdpa, sdpa:math, sdpa:flash, sdpa:efficient, sdpa:cudnn, flex, "
        "fused, or your own as module:function."
    ),
]
Variants = Annotated[
    str | None,
    option(
        "Comma-separated: full, causal, sliding_window:LEFT[:RIGHT], key_padding:F, softcap:CAP, "
        "alibi, document[:N]; composed with +, as in causal+softcap:30."
    ),
]
Heads = Annotated[int | None, option("Query heads; the model's, or 8, if left out.")]
KvHeads = Annotated[int | None, option("Key and value heads, a divisor of --heads.")]
HeadDim = Annotated[int | None, option("Size of a head; the model's, or 64, if left out.")]


@dataclass(frozen=True)
class ModelPreset:
    """The attention of a well-known model."""

    heads: int
    kv_heads: int
    head_dim: int
    variant: str
    seq_lens: tuple[int, ...]


MODELS = {
    "gpt2": ModelPreset(12, 12, 64, "causal", (128, 256, 512, 1024)),
    "bert-base": ModelPreset(12, 12, 64, "full", (64, 128, 256, 512)),
    "llama3-8b": ModelPreset(32, 8, 128, "causal", (512, 1024, 2048, 4096, 8192)),
    "vit-b16": ModelPreset(12, 12, 64, "full", (197, 577, 1025)),  # 224, 384 and 512 pixels
}


def provider_names(text: str) -> tuple[str, ...]:
    return found_by(providers.find, "--providers", text)


def variant_specs(text: str) -> tuple[str, ...]:
    return found_by(variants.parse, "--variants", text)


def modes(text: str) -> tuple[str, ...]:
    return choices("--mode", text, MODES)


def model(text: str) -> ModelPreset:
    return MODELS[one_of("--model", text, tuple(MODELS))]


def heads(known: ModelPreset | None, count: int | None, kv_count: int | None) -> tuple[int, int]:
    """Query and key heads: as given, else the model's, else 8 of each."""
    if count is None:
        count = known.heads if known else DEFAULT_HEADS
        kv_count = known.kv_heads if known and kv_count is None else kv_count
    at_least("--heads", count, 1)
    kv_count = count if kv_count is None else at_least("--kv-heads", kv_count, 1)
    if count % kv_count:
        raise BadOption("--kv-heads", f"expected a divisor of --heads {count}, got {kv_count}")
    return count, kv_count


def head_dim(known: ModelPreset | None, size: int | None) -> int:
    if size is None:
        return known.head_dim if known else DEFAULT_HEAD_DIM
    return at_least("--head-dim", size, 1)
