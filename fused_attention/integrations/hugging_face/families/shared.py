"""What several families have in common."""

from __future__ import annotations

from ....modules.mlp import PLAIN
from ..hf_config import Options

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

LEARNED = {
    "position": ("learned",),
    "norm": ("layer",),
    "activation": tuple(PLAIN),
    "bias": (True,),
    "scale_embeddings": (False,),
    "window": (None,),
    "num_heads / num_kv_heads": (1,),
    "num_heads * head_dim / dim": (1,),
}
DECODER = {"prenorm": (True,), "embedding_norm": (False,)}


def encoder_sizes(options: Options) -> dict:
    return {
        "dim": options["hidden_size"],
        "num_layers": options["num_hidden_layers"],
        "num_heads": options["num_attention_heads"],
        "hidden_dim": options["intermediate_size"],
        "norm_eps": options.get("layer_norm_eps", 1e-12),
        "activation": options.choice("hidden_act", "gelu", ACTIVATIONS),
    }


def layer_names(ours: dict[str, str], theirs: str) -> dict[str, tuple[str, ...]]:
    return {
        f"stack.blocks.{{}}.{name}": tuple(f"{theirs}.{{}}.{part}" for part in parts.split())
        for name, parts in ours.items()
    }
