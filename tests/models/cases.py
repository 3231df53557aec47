"""Small models of every kind and option, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from fused_attention.models import BERT, GPT, Config, Seq2Seq, TransformerXL, ViT

SIZES = {"dim": 32, "num_layers": 2, "num_heads": 4, "hidden_dim": 40, "vocab_size": 50}
LENGTHS = torch.tensor([11, 6])


def config(**options) -> Config:
    return Config(**{**SIZES, "max_seq_len": 16, **options})


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


class ModelCase(NamedTuple):
    """How to make a model, and how to call it; the call returns one tensor."""

    make: Callable[[], nn.Module]
    call: Callable[[nn.Module], torch.Tensor]


def gpt(**options) -> ModelCase:
    return ModelCase(lambda: GPT(config(**options)), lambda m: m(ids(2, 11), key_padding=LENGTHS))


def bert(**options) -> ModelCase:
    kinds = ids(2, 11, seed=1) % 2
    options = {"prenorm": False, "embedding_norm": True, "num_token_types": 2, **options}

    def call(model):
        hidden = model(ids(2, 11), kinds, LENGTHS)
        return torch.cat([model.predict(hidden).flatten(), model.pool(hidden).flatten()])

    return ModelCase(lambda: BERT(config(**options), pooler=True, mlm_head=True), call)


def seq2seq(**options) -> ModelCase:
    options = {"prenorm": False, "activation": "relu", "scale_embeddings": True, **options}
    return ModelCase(
        lambda: Seq2Seq(config(**options)), lambda m: m(ids(2, 11), ids(2, 7, seed=1), LENGTHS)
    )


def vit(**options) -> ModelCase:
    options = {"image_size": 12, "patch_size": 4, "num_classes": 7, **options}
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 12, 12, generator=generator)
    # Images have the dtype of the parameters, which may be fp64.
    return ModelCase(lambda: ViT(config(**options)), lambda m: m(images.to(m.cls.dtype)))


def xl(**options) -> ModelCase:
    def call(model):
        first, memory = model(ids(2, 5))
        second, memory = model(ids(2, 8, seed=1), memory)
        third, _ = model(ids(2, 3, seed=2), memory)
        return torch.cat([first, second, third], 1)

    options = {"position": "xl", "prenorm": False, **options}
    return ModelCase(lambda: TransformerXL(config(**options), memory_length=7), call)


CASES = {
    **{
        f"gpt-{position}-{'pre' if prenorm else 'post'}": gpt(position=position, prenorm=prenorm)
        for position in ("learned", "sinusoidal", "rotary", "alibi", "t5", "none")
        for prenorm in (True, False)
    },
    **{
        f"gpt-{activation}": gpt(activation=activation)
        for activation in ("gelu_tanh", "relu", "swiglu", "geglu", "geglu_tanh")
    },
    "gpt-rms": gpt(norm="rms"),
    "gpt-rms-post": gpt(norm="rms", prenorm=False),
    "gpt-untied": gpt(tied=False),
    "gpt-gqa": gpt(num_kv_heads=2),
    "gpt-head-dim": gpt(position="rotary", num_heads=3, head_dim=14),
    "xl-head-dim": xl(num_heads=3, head_dim=14),
    "gpt-window": gpt(position="rotary", num_kv_heads=2, window=3),
    "gpt-llama": gpt(
        position="rotary",
        norm="rms",
        activation="swiglu",
        num_kv_heads=1,
        bias=False,
        tied=False,
    ),
    "bert": bert(),
    "bert-t5": bert(position="t5", prenorm=True, num_buckets=8, max_distance=9),
    "bert-alibi": bert(position="alibi"),
    "seq2seq": seq2seq(position="sinusoidal"),
    "seq2seq-t5": seq2seq(position="t5", prenorm=True, norm="rms", bias=False, num_kv_heads=2),
    "seq2seq-rotary": seq2seq(position="rotary", activation="swiglu"),
    "vit": vit(),
    "vit-rotary-gqa": vit(position="rotary", num_kv_heads=2),
    "xl": xl(),
    "xl-prenorm-gqa": xl(prenorm=True, num_kv_heads=2, activation="geglu"),
    "dropout-pre": gpt(dropout=0.2, attention_dropout=0.3),
    "dropout-post": bert(dropout=0.2, attention_dropout=0.3),
    "dropout-xl": xl(dropout=0.2, attention_dropout=0.3),
}


def build(
    case: ModelCase, attention: str = "fused", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The model of a case; its parameters are the same every time, and none is zero or one."""
    torch.manual_seed(0)
    model = case.make()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator)
    model.attention = attention
    return model.to(dtype)
