"""ViT: ViTForImageClassification."""

from __future__ import annotations

from ..hf_config import HFConfig
from .family import Family
from .shared import LEARNED_POSITIONS, PRENORM, encoder_fields, layer_names


def _read_config(config: HFConfig, present: dict[str, bool]) -> dict:
    config.require(qkv_bias=True)
    return {
        **encoder_fields(config),
        "image_size": config.get("image_size", 224),
        "patch_size": config.get("patch_size", 16),
        "channels": config.get("num_channels", 3),
        "num_classes": len(config.get("id2label", "01")),
        "dropout": config.get("hidden_dropout_prob", 0.0),
        "attention_dropout": config.get("attention_probs_dropout_prob", 0.0),
    }


VIT = Family(
    model_types=("vit",),
    prefix="vit.",
    read_config=_read_config,
    names={
        "cls": ("vit.embeddings.cls_token",),
        "patches": ("vit.embeddings.patch_embeddings.projection",),
        "stack.positions.weight": ("vit.embeddings.position_embeddings",),
        **layer_names(
            {
                "attention_norm": "layernorm_before",
                "attention.qkv": "attention.q_proj attention.k_proj attention.v_proj",
                "attention.out": "attention.o_proj",
                "mlp_norm": "layernorm_after",
                "mlp.up": "mlp.fc1",
                "mlp.down": "mlp.fc2",
            },
            "vit.layers",
        ),
        "stack.norm": ("vit.layernorm",),
        "head": ("classifier",),
    },
    supported={**LEARNED_POSITIONS, **PRENORM},
    old_names=(  # before transformers 5
        (r"encoder\.layer\.", "layers."),
        (r"attention\.attention\.(query|key|value)", r"attention.\1"),
        (r"attention\.query", "attention.q_proj"),
        (r"attention\.key", "attention.k_proj"),
        (r"attention\.value", "attention.v_proj"),
        (r"attention\.output\.dense", "attention.o_proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"(layers\.\d+)\.output\.dense", r"\1.mlp.fc2"),
    ),
    leading_dims={"cls": 2, "stack.positions.weight": 1},
)
