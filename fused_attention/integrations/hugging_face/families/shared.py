"""What several families have in common."""

from __future__ import annotations

from ....modules.mlp import PLAIN
from ..hf_config import HFConfig

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

# Of `Family.supported`.
LEARNED_POSITIONS = {
    "position": ("learned",),
    "norm": ("layer",),
    "activation": tuple(PLAIN),
    "bias": (True,),
    "scale_embeddings": (False,),
    "window": (None,),
    "num_heads / num_kv_heads": (1,),
    "num_heads * head_dim / dim": (1,),
}
PRENORM = {"prenorm": (True,), "embedding_norm": (False,)}


def encoder_fields(config: HFConfig) -> dict:
    """Fields of our `Config` that BERT and ViT read alike."""
    return {
        "dim": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "hidden_dim": config["intermediate_size"],
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "activation": config.choice("hidden_act", "gelu", ACTIVATIONS),
    }


def layer_names(ours: dict[str, str], theirs: str) -> dict[str, tuple[str, ...]]:
    """`Family.names` of the modules of a block; theirs are separated by spaces."""
    return {
        f"stack.blocks.{{}}.{name}": tuple(f"{theirs}.{{}}.{part}" for part in parts.split())
        for name, parts in ours.items()
    }
