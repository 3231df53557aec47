"""ViT: ViTForImageClassification."""

from __future__ import annotations

from ..hf_config import Options
from .family import Family
from .shared import DECODER, LEARNED, encoder_sizes, layer_names


def _vit(options: Options, parts: dict[str, bool]) -> dict:
    options.fixed(qkv_bias=True)
    return {
        **encoder_sizes(options),
        "image_size": options.get("image_size", 224),
        "patch_size": options.get("patch_size", 16),
        "channels": options.get("num_channels", 3),
        "num_classes": len(options.get("id2label", "01")),
        "dropout": options.get("hidden_dropout_prob", 0.0),
        "attention_dropout": options.get("attention_probs_dropout_prob", 0.0),
    }


VIT = Family(
    "ViT",
    "vit.",
    _vit,
    {
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
    {**LEARNED, **DECODER},
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
    leading={"cls": 2, "stack.positions.weight": 1},
)
